"""Heads of fine-tuned models as transformers writes them down: its classes, its names, what config.json says of labels.

BERT's pooler is of the body, and gone where tokens are told apart; RoFormer's is of the head. Decoders have a linear
map without a bias. What a model was pretrained to say, its words, has no place beside a head there, and is left out.

Read before: `family.py`, `tokenizer.py`, `tinyformer/tasks/heads.py`. Read next: `directory.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from ..models import ModelConfig
from ..text import Tokenizer
from ..training.checkpoint import BODY
from . import tokenizer as tokenizers
from .family import Family
from .table import Row, linear

# Of a task: the end of the class's name, and what it calls the linear map of a head for tokens.
_KINDS = {
    "classify": ("ForSequenceClassification", ""),
    "pair": ("ForSequenceClassification", ""),
    "regress": ("ForSequenceClassification", ""),
    "tag": ("ForTokenClassification", "classifier"),
    "answer": ("ForQuestionAnswering", "qa_outputs"),
}
_CLASSES = {"bert": "Bert", "roformer": "RoFormer", "gpt2": "GPT2", "llama": "Llama", "arcee": "Arcee"}
_POOLER, _SCORE = "bert.pooler.dense", "score"
_WHOLE = {"bert": (_POOLER, "classifier"), "roformer": ("classifier.dense", "classifier.out_proj")}  # of a whole text


def rows(family: Family, config: ModelConfig, task: str) -> list[Row]:
    """The table of names of a body with a head.

    Raises:
        UsageError: theirs does not compute the same.
    """
    whole = _KINDS[task][0] == "ForSequenceClassification"
    gone = family.heads if whole else (*family.heads, _POOLER)
    body = [row for row in family.rows(config) if not row.theirs.startswith(gone)]
    found = [dataclasses.replace(row, ours=BODY + row.ours) for row in body]
    if config.mode == "decoder":
        return [*found, *linear("head.output", _SCORE, bias=False)]
    if not whole:
        return [*found, *linear("head.output", _KINDS[task][1])]
    pooler, output = _WHOLE[family.model_type]
    if not config.next_sentence:
        found += linear("head.pooler", pooler)
    elif pooler != _POOLER:
        raise UsageError(
            f"the pooler that next-sentence prediction trained ends in tanh, which transformers' {family.title} does "
            "not; fine-tune a run that was trained with --objective masked"
        )
    return [*found, *linear("head.output", output)]


def options(family: Family, task: str, labels: Sequence[str]) -> dict[str, Any]:
    """What config.json says of a head: the class that opens it, the names of its scores, and what they are.

    Raises:
        UsageError: there is no such class.
    """
    if task not in _KINDS or family.model_type not in _CLASSES:
        raise UsageError(f"transformers has no {family.title} with the head of the task {task}")
    found: dict[str, Any] = {"architectures": [_CLASSES[family.model_type] + _KINDS[task][0]]}
    if task == "answer":
        return found
    names = [task] if task == "regress" else list(labels)
    found |= {"id2label": {str(i): name for i, name in enumerate(names)}}
    found |= {"label2id": {name: i for i, name in enumerate(names)}}
    kinds = {"tag": None, "regress": "regression"}
    return found | {"problem_type": kinds.get(task, "single_label_classification")}


def is_headed(options: Mapping[str, Any]) -> bool:
    """Whether config.json tells of a model with a head for a task, which is not read."""
    names = options.get("architectures")
    return isinstance(names, list) and any(str(name).endswith(kind) for name in names for kind, _ in _KINDS.values())


def with_padding(
    tokenizer: Tokenizer, config: ModelConfig, weights: Mapping[str, np.ndarray]
) -> tuple[Tokenizer, ModelConfig, dict[str, np.ndarray]]:
    """A decoder with a head, and with a token to pad with, without which its class reads no texts of unlike length.

    Where the token is a new one, its embedding is 0: no token looks at what stands behind it, so nothing reads it.

    Args:
        tokenizer: of the model.
        config: of its body.
        weights: of body and head.
    """
    tokenizer, name = tokenizers.with_padding(tokenizer), f"{BODY}tokens.weight"
    more = max(tokenizer.vocabulary_size - config.vocabulary, 0)
    longer = np.pad(weights[name], [(0, more), (0, 0)])
    return tokenizer, dataclasses.replace(config, vocabulary=config.vocabulary + more), {**weights, name: longer}


def in_units(weights: Mapping[str, np.ndarray], mean: float, deviation: float) -> dict[str, np.ndarray]:
    """The weights of a model whose score is the number itself, and not how many deviations it is from the mean.

    Args:
        weights: of a body and a head with one score.
        mean: of the numbers that were trained on.
        deviation: of the same.

    Raises:
        UsageError: no bias could take the mean up.
    """
    found = dict(weights)
    weight = found["head.output.weight"] = weights["head.output.weight"] * deviation
    if "head.output.bias" in weights:
        found["head.output.bias"] = weights["head.output.bias"] * deviation + mean
    elif (name := f"{BODY}stack.norm.bias") in weights:  # w (h + m w / w²) = w h + m, and nothing else reads h
        whole = weight[:, 0].astype(np.float64)
        found[name] = (weights[name] + mean * whole / (whole @ whole)).astype(weight.dtype)
    elif mean:
        raise UsageError(
            f"the numbers that were trained on have the mean {mean:g}, and such a decoder of transformers has no bias "
            "to take it up; fine-tune an encoder, or on numbers whose mean is 0"
        )
    return found
