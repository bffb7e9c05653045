"""Heads: how many parameters they have, counted without making them."""

import pytest

from tinyformer import nn
from tinyformer.models import ModelConfig
from tinyformer.tasks import TASKS
from tinyformer.tasks.heads import head_parameters
from tinyformer.text import make_tokenizer, special_tokens

LABELS = {"regress": ("2.0", "1.0"), "tag": ("B-X", "I-X", "O"), "answer": (), "text2text": ()}


@pytest.mark.parametrize("next_sentence", [False, True])
@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, task in TASKS.items() for mode in task.modes])
def test_parameters_are_counted_as_they_are_made(name, mode, next_sentence):
    tokenizer = make_tokenizer("bytes", [], special_tokens=special_tokens(mode))
    sizes = {"vocabulary": tokenizer.vocabulary_size, "layers": 1, "heads": 1, "width": 6, "hidden": 4, "context": 20}
    encoder = {"segments": 2, "next_sentence": next_sentence} if mode == "encoder" else {}
    config, labels = ModelConfig(mode=mode, **sizes, **encoder), LABELS.get(name, ("a", "b", "c", "d"))
    head = TASKS[name](tokenizer, config, labels=labels).head(nn.Initializer())
    held = 0 if head is None else sum(parameter.array.size for parameter in head.parameters().values())
    assert head_parameters(config, name, len(labels)) == held
