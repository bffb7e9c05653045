"""Named sizes: our own for a laptop, and the published models.

A size of ours is a size alone: with a mode it becomes a GPT, a BERT or a T5 (`FAMILIES`), in which the encoder and the
decoder have half of its layers each. A published model has its mode. What a row leaves open is `ModelConfig`'s
default, and a hidden width of 4 d.

Sources: the original Transformer (Vaswani 2017, table 3); BERT (Devlin 2019, §3) and its small ones (Turc 2019,
table 1); T5 (Raffel 2020, §3.7.2 and the released configurations, which for 1.1 are the only source); GPT-1 (Radford
2018, §4.1), GPT-2 (Radford 2019, table 2), GPT-3 (Brown 2020, table 2.1). GPT-3's table misprints two rows: 13B has
width 5120 (5140 is printed, which 40 heads do not divide), and XL has 16 heads of 128 (24 are printed, and 24 x 128 is
not 2048). GPT-3 alternates dense with locally banded attention, which has no parameters.

Read before: `config.py`. Read next: `tinyformer/analysis/scale.py`, what the published ones cost.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..errors import UsageError
from .config import CHOICES, ModelConfig, unknown

Row = dict[str, Any]  # fields of `ModelConfig`

_OURS: Row = {"mode": "decoder", "positions": "rotary", "norm": "rms", "bias": False, "dropout": 0.1}
_BERT: Row = {
    "mode": "encoder",
    "norm_position": "post",
    "segments": 2,
    "embedding_norm": True,
    "activation": "gelu-exact",
    "head": "transform",
    "epsilon": 1e-12,
    "dropout": 0.1,
}
_T5: Row = {
    "mode": "encoder-decoder",
    "norm": "rms",
    "positions": "relative",
    "activation": "relu",
    "bias": False,
    "scaled_scores": False,
    "scaled_head": True,
    "epsilon": 1e-6,
    "dropout": 0.1,
}

# What a size of ours is made into. An encoder turns queries and keys, as RoFormer does (Su 2021, §4.2): learned
# positions have to find out of each pair of them that it stands side by side, for which a short run has no time. T5 1.1
# was pretrained without dropout, and a short run has none to overfit.
_ROFORMER = _BERT | {"positions": "rotary"}
FAMILIES: dict[str, Row] = {row["mode"]: row for row in (_OURS, _ROFORMER, _T5 | {"dropout": 0.0})}

_SIZES: dict[str, Row] = {
    "tiny": {"layers": 4, "heads": 4, "width": 128, "context": 128},
    "small": {"layers": 6, "heads": 6, "width": 384, "context": 256},
    "medium": {"layers": 8, "heads": 8, "width": 512, "context": 512},
}

_TRANSFORMER: Row = {
    "mode": "encoder-decoder",
    "vocabulary": 37000,
    "context": 512,  # the paper sets no limit
    "layers": 6,
    "norm_position": "post",
    "positions": "sinusoidal",
    "scaled_embedding": True,
    "activation": "relu",
}
_BERT_BOTH = _BERT | {"vocabulary": 30522, "context": 512, "next_sentence": True}  # with both objectives
_T5_10 = _T5 | {"vocabulary": 32128, "context": 512}
_T5_11 = _T5_10 | {"activation": "gelu", "gated": True, "tied": False, "scaled_head": False, "dropout": 0.0}
_GPT: Row = {"mode": "decoder", "dropout": 0.1}
_GPT2 = _GPT | {"vocabulary": 50257, "context": 1024}
_GPT3 = _GPT2 | {"context": 2048, "dropout": 0.0}

_PUBLISHED: dict[str, Row] = {
    "transformer-base": _TRANSFORMER | {"heads": 8, "width": 512, "dropout": 0.1},
    "transformer-big": _TRANSFORMER | {"heads": 16, "width": 1024, "dropout": 0.3},
    "bert-tiny": _BERT_BOTH | {"layers": 2, "heads": 2, "width": 128},
    "bert-mini": _BERT_BOTH | {"layers": 4, "heads": 4, "width": 256},
    "bert-small": _BERT_BOTH | {"layers": 4, "heads": 8, "width": 512},
    "bert-medium": _BERT_BOTH | {"layers": 8, "heads": 8, "width": 512},
    "bert-base": _BERT_BOTH | {"layers": 12, "heads": 12, "width": 768},
    "bert-large": _BERT_BOTH | {"layers": 24, "heads": 16, "width": 1024},
    "t5-small": _T5_10 | {"layers": 6, "heads": 8, "width": 512},
    "t5-base": _T5_10 | {"layers": 12, "heads": 12, "width": 768},
    "t5-large": _T5_10 | {"layers": 24, "heads": 16, "width": 1024},
    "t5-3b": _T5_10 | {"layers": 24, "heads": 32, "width": 1024, "head_width": 128, "hidden": 16384},
    "t5-11b": _T5_10 | {"layers": 24, "heads": 128, "width": 1024, "head_width": 128, "hidden": 65536},
    "t5-v1.1-small": _T5_11 | {"layers": 8, "heads": 6, "width": 512, "head_width": 64, "hidden": 1024},
    "t5-v1.1-base": _T5_11 | {"layers": 12, "heads": 12, "width": 768, "hidden": 2048},
    "t5-v1.1-large": _T5_11 | {"layers": 24, "heads": 16, "width": 1024, "hidden": 2816},
    "t5-v1.1-xl": _T5_11 | {"layers": 24, "heads": 32, "width": 2048, "hidden": 5120},
    "t5-v1.1-xxl": _T5_11 | {"layers": 24, "heads": 64, "width": 4096, "hidden": 10240},
    "gpt1": _GPT
    | {"vocabulary": 40478, "context": 512, "layers": 12, "heads": 12, "width": 768, "norm_position": "post"},
    "gpt2": _GPT2 | {"layers": 12, "heads": 12, "width": 768},
    "gpt2-medium": _GPT2 | {"layers": 24, "heads": 16, "width": 1024},
    "gpt2-large": _GPT2 | {"layers": 36, "heads": 20, "width": 1280},
    "gpt2-xl": _GPT2 | {"layers": 48, "heads": 25, "width": 1600},
    "gpt3-small": _GPT3 | {"layers": 12, "heads": 12, "width": 768},
    "gpt3-medium": _GPT3 | {"layers": 24, "heads": 16, "width": 1024},
    "gpt3-large": _GPT3 | {"layers": 24, "heads": 16, "width": 1536},
    "gpt3-xl": _GPT3 | {"layers": 24, "heads": 16, "width": 2048},
    "gpt3-2.7b": _GPT3 | {"layers": 32, "heads": 32, "width": 2560},
    "gpt3-6.7b": _GPT3 | {"layers": 32, "heads": 32, "width": 4096},
    "gpt3-13b": _GPT3 | {"layers": 40, "heads": 40, "width": 5120},
    "gpt3-175b": _GPT3 | {"layers": 96, "heads": 96, "width": 12288},
}

PRESETS: dict[str, Row] = _SIZES | _PUBLISHED  # a row with a mode is a published model
DEFAULT = "tiny"


def resolve(preset: str | None = None, *, mode: str | None = None, **given: Any) -> ModelConfig:
    """A whole configuration from a preset and whatever the user gave; one size dial fills in the rest.

    A width or a number of layers alone sets the other (64 channels a layer, of an encoder-decoder 128 a layer of each
    stack) and the heads (of 64 channels, 32 in narrow models). A width for a preset keeps its layers and its share of
    hidden to width, which is 4 where nothing else is published, and makes new heads that share the width evenly.

    Args:
        preset: a key of `PRESETS`; None is the default.
        mode: "decoder", "encoder" or "encoder-decoder"; None is that of a published model, else a decoder.
        given: fields of `ModelConfig`; None counts as not given. `vocabulary` is needed where the preset has none.

    Raises:
        UsageError: the preset or a field is unknown, a published model has another mode, or the sizes contradict
            each other.
    """
    given = {name: value for name, value in given.items() if value is not None}
    fields = [field.name for field in dataclasses.fields(ModelConfig)]
    for name in given:
        if name not in fields:
            raise unknown("setting", name, fields)
    base = _base(preset, mode)
    named, width, layers = base["width"], given.get("width"), given.get("layers")
    if preset is None and (width or layers):
        per_layer = 128 if base["mode"] == "encoder-decoder" else 64
        width = width or per_layer * layers
        base |= {"width": width, "layers": layers or max(1, round(width / per_layer))}
    if width and width != named:
        base.pop("head_width", None)
        base |= {"heads": _heads(width), "hidden": base.get("hidden", 4 * named) * width // named}
    values = base | given
    if "vocabulary" not in values:
        raise UsageError("the vocabulary is not known without a tokenizer; give its size")
    values.setdefault("hidden", 4 * values["width"])
    return ModelConfig(**values)


def _base(preset: str | None, mode: str | None) -> Row:
    """The fields that a preset fixes in a mode."""
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if mode is not None and mode not in CHOICES["mode"]:
        raise unknown("mode", mode, CHOICES["mode"])
    row = PRESETS[preset or DEFAULT]
    if "mode" not in row:
        layers = row["layers"] // 2 if mode == "encoder-decoder" else row["layers"]
        return FAMILIES[mode or "decoder"] | row | {"layers": layers}
    if mode not in (None, row["mode"]):
        others = [name for name, other in PRESETS.items() if other.get("mode", mode) == mode]
        raise UsageError(
            f"the preset {preset!r} is of mode {row['mode']}; for mode {mode} there are {', '.join(others)}"
        )
    return dict(row)


def _heads(width: int) -> int:
    """Heads that divide the width into even parts of about 64 channels, or 32 in narrow models."""
    wanted = 64 if width >= 256 else 32
    parts = [c for c in range(1, min(width, 1024) + 1) if width % c == 0 and (c % 2 == 0 or width % 2)]
    return width // min(parts, key=lambda c: abs(math.log(c / wanted))) if parts else 1


def default_learning_rate(config: ModelConfig) -> float:
    """A peak learning rate for AdamW that falls with the width, near the published ones (6e-4 at 768 in GPT-3).

    An encoder takes less. One of width 128 learned less at 3e-3 than at 2e-3; with learned positions it stayed at the
    unigram loss at 2e-3, and left it at 1e-3.
    """
    rate = min(3e-3, 0.5 / config.width)
    if config.mode == "encoder":
        rate *= 2 / 3 if config.positions == "rotary" else 1 / 3
    return float(f"{rate:.1g}")


def learning_rate_factors(config: ModelConfig) -> dict[str, float]:
    """Factors on the learning rate of parameters that are on another scale, by name.

    T5's token embedding starts √d times as large as the matrices, and its logits are divided by √d, so AdamW's steps,
    which are of one size for all, would move it √d times too slowly. T5's own optimiser has steps in proportion to a
    parameter's size (Shazeer and Stern 2018, §8). Weight decay is in proportion already, and has no such factor.
    """
    return {"tokens.weight": config.width**0.5} if config.scaled_head else {}
