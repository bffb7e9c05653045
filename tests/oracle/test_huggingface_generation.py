"""What GPT-2 and T5 write, greedily and with four beams, against transformers' `generate`: token for token.

Length penalties differ (ours is Wu's, theirs a power of the length), so beams are compared with both at 0, where a
text's score is its log-probability in either. Both search until no unfinished text can win.
"""

import numpy as np
import pytest
import torch
from huggingface import SETTINGS, gpt2, saved, t5

from tinyformer import interop
from tinyformer.generation import DecoderState, EncoderDecoderState, Options, answer_sources, decode
from tinyformer.generation.strategies import BeamSearch, Sampler

pytestmark = pytest.mark.oracle

END, TOKENS, BEAMS = 1, 6, 4
VOCABULARY = 9  # so few that many texts end early


class Marks:
    """The tokenizer that these models would have."""

    vocabulary_size = VOCABULARY

    def special_id(self, role):
        return {"pad": 0, "end": END}[role]


def our_text(state, beams):
    """What is written after `state`: greedily for one beam, else the best of a search."""
    kind, options = Sampler, Options(tokens=TOKENS, temperature=0.0)
    if beams > 1:
        kind, options = BeamSearch, Options(tokens=TOKENS, beams=beams, length_penalty=0.0)
    strategy = kind(np.empty(0, np.int64), VOCABULARY, options, lambda text: text[-1] == END)
    return [token for settled in decode(state, strategy, TOKENS) for token in settled.tokens]


def their_text(row):
    """A row that `generate` returns, up to its end token."""
    row = row.tolist()
    return row[: row.index(END) + 1] if END in row else row


def settings(beams):
    """The same for transformers."""
    search = {"num_beams": beams, "length_penalty": 0.0, "early_stopping": "never"} if beams > 1 else {}
    return {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": END, "pad_token_id": 0, **search}


@pytest.mark.parametrize("seed", SETTINGS)
def test_gpt2_writes_the_same(seed, tmp_path):
    theirs, rng = gpt2(seed, vocabulary=VOCABULARY)
    ours = interop.read_model(saved(theirs, tmp_path))
    prompt = rng.integers(0, VOCABULARY, int(rng.integers(1, theirs.config.n_positions - TOKENS + 1)))
    read = torch.tensor(prompt[None])
    for beams in (1, BEAMS):
        (row,) = theirs.generate(read, attention_mask=torch.ones_like(read), **settings(beams))
        state = DecoderState(ours, prompt, cached=True, vocabulary=VOCABULARY)
        assert our_text(state, beams) == their_text(row[len(prompt) :])


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("seed", SETTINGS)
def test_t5_writes_the_same(seed, version, tmp_path):
    # As many layers in both stacks, for theirs makes its cache as large as the encoder (transformers 5.23).
    theirs, rng = t5(seed, version, num_decoder_layers=None, vocab_size=VOCABULARY)
    ours = interop.read_model(saved(theirs, tmp_path))
    lengths = rng.integers(1, 12, 2)
    sources = [rng.integers(0, VOCABULARY, length) for length in lengths]
    read, mask = np.zeros((2, max(lengths)), np.int64), np.zeros((2, max(lengths)), np.int64)
    for row, source in enumerate(sources):
        read[row, : len(source)], mask[row, : len(source)] = source, 1
    given = {"attention_mask": torch.tensor(mask), "decoder_start_token_id": 0}
    for beams in (1, BEAMS):
        rows = theirs.generate(torch.tensor(read), **given, **settings(beams))
        for source, row in zip(sources, rows):
            state = EncoderDecoderState(ours, source, 0, cached=True, vocabulary=VOCABULARY)
            assert our_text(state, beams) == their_text(row[1:])
        if beams == 1:
            at_once = answer_sources(ours, Marks(), read, mask=mask.astype(bool), tokens=TOKENS)
            assert at_once == [their_text(row[1:]) for row in rows]
