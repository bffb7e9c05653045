"""The decoding loop against transformers' own, both on the same models of transformers: token for token.

Without a length penalty both score a text by its log-probability. Theirs divides by the length to a power where ours
follows Wu 2016, so that the penalties themselves cannot be compared.
"""

import numpy as np
import pytest
import torch
import transformers

from tinyformer.generation import Options, decode
from tinyformer.generation.strategies import BeamSearch, Sampler

pytestmark = pytest.mark.oracle

END, LENGTH = 1, 12


def t5(seed):
    shape = {"vocab_size": 12, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2}
    special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": END}
    return _sharp(transformers.T5ForConditionalGeneration, transformers.T5Config(**shape, **special), seed)


def gpt2(seed):
    shape = {"vocab_size": 12, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    special = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": 0}
    return _sharp(transformers.GPT2LMHeadModel, transformers.GPT2Config(**shape, **special), seed)


def _sharp(kind, config, seed):
    torch.manual_seed(seed)
    model = kind(config).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.5)
    return model


class TheirState:
    """Their model as our loop sees it, without a cache."""

    def __init__(self, model, ids):
        self.model, self.ids, self.t5 = model, ids, model.config.is_encoder_decoder
        self.rows = torch.zeros((1, 1), dtype=torch.long) if self.t5 else ids

    def start(self):
        return self._logits()

    def advance(self, parents, tokens):
        self.rows = torch.cat([self.rows[parents], torch.from_numpy(tokens)[:, None]], dim=1)
        return self._logits()

    def _logits(self):
        with torch.no_grad():
            if not self.t5:
                return self.model(self.rows).logits[:, -1].numpy()
            source = self.ids.expand(len(self.rows), -1)
            return self.model(input_ids=source, decoder_input_ids=self.rows).logits[:, -1].numpy()


@pytest.mark.parametrize("make", [t5, gpt2])
@pytest.mark.parametrize("early_stopping", [False, "never"])
def test_beam_search_is_theirs(make, early_stopping):
    ended = 0
    for seed in range(8):
        model = make(seed)
        ids = torch.tensor([[5, 7, 3, 2 + seed % 9, END if make is t5 else 4]])
        settings = {"num_beams": 4, "length_penalty": 0.0, "early_stopping": early_stopping}
        theirs = model.generate(ids, max_new_tokens=LENGTH, do_sample=False, **settings)
        theirs = _trimmed(theirs[0, 1 if make is t5 else ids.shape[1] :].tolist())
        options = Options(tokens=LENGTH, beams=4, length_penalty=0.0)
        search = BeamSearch(np.array([], int), 12, options, lambda tokens: tokens[-1] == END)
        (ours,) = decode(TheirState(model, ids), search, LENGTH)
        assert ours.tokens == theirs
        ended += theirs[-1] == END
    assert ended > 2  # by the end token, and not only by the limit


@pytest.mark.parametrize("make", [t5, gpt2])
def test_greedy_choice_is_theirs(make):
    for seed in range(8):
        model = make(seed)
        ids = torch.tensor([[5, 7, 3, 2 + seed % 9, END if make is t5 else 4]])
        theirs = model.generate(ids, max_new_tokens=LENGTH, do_sample=False)
        theirs = _trimmed(theirs[0, 1 if make is t5 else ids.shape[1] :].tolist())
        sampler = Sampler(np.array([], int), 12, Options(temperature=0.0), lambda tokens: tokens[-1] == END)
        ours = [token for part in decode(TheirState(model, ids), sampler, LENGTH) for token in part.tokens]
        assert ours == theirs


def _trimmed(tokens):
    """Up to the end token; what follows is padding."""
    return tokens[: tokens.index(END) + 1] if END in tokens else tokens
