"""A family of published models as data: its options against ours, and its names against ours.

Read before: `table.py`, `tinyformer/models/config.py`. Read next: `gpt2.py`, `bert.py`, `t5.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import UsageError
from ..models import ModelConfig
from .table import Finder, Row
from .weights import Weights

Options = Mapping[str, Any]  # the content of a config.json

# Theirs to ours; of several names for the same, the first is written. "gelu" means the exact one there.
ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu-exact",
    "gelu_python": "gelu-exact",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How one architecture of transformers is one of ours.

    Attributes:
        title: what people call it.
        model_type: what config.json calls it.
        options: of fields of `ModelConfig`, the option with the same value, and that value where config.json is silent.
        choices: fields of `ModelConfig` that all its models share.
        required: options of which only this value is computed here.
        copies: options that say again what one of `options` says: written, and when read, compared.
        settle: from config.json and the weights, the fields that take more than a look-up.
        express: the other way, from our configuration.
        rows: the table of names.
        constants: of a model, what is stored there though nothing of it is learned, by their names.
        prefix: of the names of the body, which checkpoints without a head leave out.
        heads: beginnings of the names that never have the prefix.
        renamed: older spellings of names, as (pattern, replacement).
        aliases: where a file may keep what several names share under another one.
        ignored: pattern of names that hold nothing to learn, or the same again.
    """

    title: str
    model_type: str
    options: Mapping[str, tuple[str, Any]]
    choices: Mapping[str, Any]
    required: Mapping[str, Any]
    copies: Mapping[str, str]
    settle: Callable[[Options, Weights, Finder], dict[str, Any]]
    express: Callable[[ModelConfig], dict[str, Any]]
    rows: Callable[[ModelConfig], list[Row]]
    constants: Callable[[ModelConfig], dict[str, np.ndarray]] = lambda config: {}
    prefix: str = ""
    heads: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: str = r"(?!)"

    def finder(self, weights: Weights) -> Finder:
        """From a name of the table to the one in these weights, which may lack the prefix or be of older spelling."""
        bare = bool(self.prefix) and not any(name.startswith(self.prefix) for name in weights.names)
        known = {}
        for name in weights.names:
            canonical = name
            for pattern, replacement in self.renamed:
                canonical = re.sub(pattern, replacement, canonical)
            if bare and not canonical.startswith(self.heads):
                canonical = self.prefix + canonical
            known[canonical] = name
        for name, other in self.aliases.items():
            if name not in known and other in known:
                known[name] = known[other]
        return known.get

    def leftover(self, weights: Weights, used: set[str]) -> list[str]:
        """Names in the weights that no row reads and that are no old acquaintances."""
        return [name for name in weights.names if name not in used and not re.search(self.ignored, name)]

    def remarks(self, options: Options) -> list[str]:
        """What config.json says that changes nothing but training, and is left out."""
        found = []
        for name, field in self.copies.items():
            first, default = self.options[field]
            used = options.get(first, default)
            if options.get(name, used) != used:
                found.append(f"{name} is {options[name]} and {first} {used}; the latter is used for both in training")
        return found

    def config(self, options: Options, weights: Weights) -> ModelConfig:
        """Our configuration of a model of theirs.

        Raises:
            UsageError: an option has a value that is not computed here, or a size is impossible.
        """
        for name, value in self.required.items():
            given = options.get(name, value)
            if given != value:
                raise UsageError(
                    f"{weights.path}: {self.title} with {name} = {given!r} is not supported, only {value!r}"
                )
        fields = {ours: options.get(theirs, default) for ours, (theirs, default) in self.options.items()}
        for ours, (theirs, _) in self.options.items():
            if fields[ours] is None or isinstance(fields[ours], str | list | dict):
                raise UsageError(f"{weights.path}: {theirs} in config.json should be a number, and is {fields[ours]!r}")
        return ModelConfig(**self.choices, **(fields | self.settle(options, weights, self.finder(weights))))

    def differences(self, config: ModelConfig) -> list[str]:
        """In which of our choices a model is not of this family; none where it is."""
        if config.head_width == config.width / config.heads:
            config = dataclasses.replace(config, head_width=None)
        wrong = [name for name, value in self.choices.items() if getattr(config, name) != value]
        if "segments" in self.options and not config.segments:
            wrong.append("segments")
        return [f"{name} = {getattr(config, name)!r}" for name in wrong]

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """Their options for a model of ours that has no differences."""
        values = {theirs: getattr(config, ours) for ours, (theirs, _) in self.options.items()}
        values |= {name: getattr(config, field) for name, field in self.copies.items()}
        return {"model_type": self.model_type, **values, **self.required, **self.express(config)}


def activation(options: Options, name: str, default: str) -> str:
    """Our name of an activation of theirs.

    Raises:
        UsageError: we have no such.
    """
    given = options.get(name, default)
    if not isinstance(given, str) or given not in ACTIVATIONS:
        raise UsageError(f"{name} = {given!r} is not supported; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[given]


def their_activation(ours: str) -> str:
    """Their first name of an activation of ours."""
    return next(theirs for theirs, known in ACTIVATIONS.items() if known == ours)


def is_tied(find: Finder, weights: Weights, head: str, tokens: str, told: bool) -> bool:
    """Whether the output layer is the token embedding.

    A file that is told to be tied may hold the layer again; where that differs, the weights are right and the
    configuration is not. One that is told to be untied must hold it, or else it is tied after all.
    """
    layer, table = find(head), find(tokens)
    if layer is None or table is None:
        return True
    return told and weights.same(layer, table)
