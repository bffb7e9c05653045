"""Likelihoods of answers after a prompt, against transformers' GPT-2: the loss that it gives labels of these tokens."""

import numpy as np
import pytest
import torch
from huggingface import SETTINGS, gpt2, saved

from tinyformer import interop
from tinyformer.prompting import Question, log_likelihoods

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("seed", SETTINGS)
def test_gpt2_finds_answers_as_likely(seed, tmp_path):
    theirs, rng = gpt2(seed)
    ours = interop.read_model(saved(theirs, tmp_path))
    size, context = theirs.config.vocab_size, theirs.config.n_positions
    begin = rng.integers(0, size, 3)
    questions = [
        Question(
            np.concatenate([begin, rng.integers(0, size, length)]),
            [rng.integers(0, size, count) for count in rng.integers(1, context - 3 - length + 2, 3)],
        )
        for length in rng.integers(1, context - 3, 4)
    ]
    for question, found in zip(questions, log_likelihoods(ours, questions)):
        for answer, value in zip(question.answers, found):
            read = torch.tensor(np.concatenate([question.prompt, answer[:-1]])[None])
            with torch.no_grad():
                scores = torch.log_softmax(theirs(read).logits[0, len(question.prompt) - 1 :].double(), -1)
            expected = float(scores[torch.arange(len(answer)), torch.tensor(answer)].sum())
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-4)
