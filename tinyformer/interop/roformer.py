"""RoFormer (Su 2021) as transformers writes it down: a BERT that turns queries and keys instead of adding positions.

An encoder is one by default here. Pairs of channels are turned: there each with its neighbour, here each with the one
half a head away, so channels of queries and keys lie in another order.

Read before: `bert.py`. Read next: `t5.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from einops import rearrange

from .. import backends, nn
from ..errors import UsageError
from ..models import ModelConfig
from .bert import BERT
from .family import Options, activation, is_tied
from .table import Finder, Row
from .weights import Weights

_TOKENS = "roformer.embeddings.word_embeddings.weight"
_ANGLES = "roformer.encoder.embed_positions.weight"


def _settle(options: Options, weights: Weights, find: Finder) -> dict[str, Any]:
    width, narrow = options.get("hidden_size", 768), options.get("embedding_size")
    if narrow not in (None, width):
        raise UsageError(
            f"{weights.path}: an embedding_size of {narrow} is not supported, only the hidden_size {width}"
        )
    told = bool(options.get("tie_word_embeddings", True))
    return {
        "activation": activation(options, "hidden_act", "gelu"),
        "tied": is_tied(find, weights, "cls.predictions.decoder.weight", _TOKENS, told),
    }


def _express(config: ModelConfig) -> dict[str, Any]:
    return BERT.express(config) | {"architectures": ["RoFormerForMaskedLM"], "embedding_size": config.width}


def _rows(config: ModelConfig) -> list[Row]:
    """Those of BERT that there are; whether one text follows another, nothing there can tell."""
    rows = []
    for row in BERT.rows(dataclasses.replace(config, next_sentence=False)):
        turned = row.theirs.split(".")[-2] in ("query", "key")
        theirs = row.theirs.replace("bert.", "roformer.", 1)
        rows.append(dataclasses.replace(row, theirs=theirs, pairs=config.heads if turned else 0))
    return [row for row in rows if row.ours != "stack.positions.weight"]


def _constants(config: ModelConfig) -> dict[str, np.ndarray]:
    """Sines and, beside them, cosines of the angles, which are stored there as if they were an embedding."""
    xp = backends.get("numpy")
    table = nn.sinusoidal(xp, xp.arange(config.context), config.channels, xp.float32)
    return {_ANGLES: rearrange(table, "t (c two) -> t (two c)", two=2)}


ROFORMER = dataclasses.replace(
    BERT,
    title="RoFormer",
    model_type="roformer",
    options=BERT.options | {"vocabulary": ("vocab_size", 50000), "context": ("max_position_embeddings", 1536)},
    choices=BERT.choices | {"positions": "rotary"},
    required={"rotary_value": False, "is_decoder": False, "add_cross_attention": False},
    settle=_settle,
    express=_express,
    rows=_rows,
    constants=_constants,
    prefix="roformer.",
    ignored=rf"{BERT.ignored}|\.embed_positions\.weight$",
)
