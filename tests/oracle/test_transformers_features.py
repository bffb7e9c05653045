"""Features against transformers' hidden states, padded and pooled there as ours are defined."""

import numpy as np
import pytest
import torch
from huggingface import bert, close, gpt2, saved, t5

from tinyformer import interop
from tinyformer.tasks.features import embed
from tinyformer.text import ByteTokenizer, special_tokens

pytestmark = pytest.mark.oracle


VOCABULARY = 262  # bytes, and a few special tokens
MADE = {
    "encoder": lambda seed: bert(seed, vocabulary=VOCABULARY),
    "decoder": lambda seed: gpt2(seed, vocabulary=VOCABULARY),
    "encoder-decoder": lambda seed: t5(seed, ("1.0", "1.1")[seed % 2], vocab_size=VOCABULARY),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("mode", "pool"),
    [("encoder", "mean"), ("encoder", "cls"), ("decoder", "mean"), ("decoder", "last"), ("encoder-decoder", "mean")],
)
def test_features_equal_pooled_hidden_states(mode, pool, seed, tmp_path):
    theirs, rng = MADE[mode](seed)
    ours, tokenizer = interop.read_model(saved(theirs, tmp_path)), ByteTokenizer(special_tokens(mode)[:4])
    marks = {"encoder": 2, "decoder": 0, "encoder-decoder": 1}[mode]
    lengths = [1, ours.config.context - marks, 3, 2]
    texts = ["".join(map(chr, rng.integers(97, 123, length))) for length in lengths]
    found = np.stack(list(embed(ours, tokenizer, texts, pool=pool)))

    first = int(mode == "encoder")
    ids = torch.zeros(len(texts), max(lengths) + marks, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        tokens = list(text.encode())
        if mode == "encoder":
            tokens = [tokenizer.special_id("cls"), *tokens, tokenizer.special_id("sep")]
        if mode == "encoder-decoder":
            tokens = [*tokens, tokenizer.special_id("end")]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    body = {"encoder": lambda: theirs.bert, "decoder": lambda: theirs.transformer}.get(mode, lambda: theirs.encoder)()
    with torch.no_grad():
        hidden = body(input_ids=ids, attention_mask=mask).last_hidden_state
    rows = []
    for states, length in zip(hidden, lengths, strict=True):
        own = states[first : first + length]
        rows.append({"mean": own.mean(dim=0), "cls": states[0], "last": own[-1]}[pool])
    close(found, torch.stack(rows), 1e-5)
