"""Named sizes: our own for a laptop, and the published ones.

Sources: GPT-1 (Radford 2018), GPT-2 (Radford 2019, table 2), GPT-3 (Brown 2020, table 2.1). GPT-3's table misprints
two rows: 13B has width 5120 (5140 is printed, which 40 heads do not divide), and XL has 16 heads of 128 (24 are
printed, and 24 x 128 is not 2048). GPT-3 alternates dense with locally banded attention, which has no parameters.

Read before: `config.py`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..errors import UsageError
from .config import ModelConfig, unknown

_OURS = {"positions": "rotary", "norm": "rms", "bias": False, "dropout": 0.1}
_GPT2 = {"vocabulary": 50257, "context": 1024, "positions": "learned", "dropout": 0.1}
_GPT3 = _GPT2 | {"context": 2048, "dropout": 0.0}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _OURS | {"layers": 4, "heads": 4, "width": 128, "context": 128},
    "small": _OURS | {"layers": 6, "heads": 6, "width": 384, "context": 256},
    "medium": _OURS | {"layers": 8, "heads": 8, "width": 512, "context": 512},
    "gpt1": {
        "vocabulary": 40478,
        "context": 512,
        "layers": 12,
        "heads": 12,
        "width": 768,
        "norm_position": "post",
    }
    | {"dropout": 0.1},
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

DEFAULT = "tiny"


def resolve(preset: str | None = None, **given: Any) -> ModelConfig:
    """A whole configuration from a preset and whatever the user gave; one size dial fills in the rest.

    A width or a number of layers alone sets the other (64 channels a layer), the heads (of 64 channels, 32 in narrow
    models) and the hidden width (4 d).

    Args:
        preset: a key of `PRESETS`; None is the default.
        given: fields of `ModelConfig`; None counts as not given. `vocabulary` is needed where the preset has none.

    Raises:
        UsageError: the preset or a field is unknown, or the sizes contradict each other.
    """
    given = {name: value for name, value in given.items() if value is not None}
    fields = [field.name for field in dataclasses.fields(ModelConfig)]
    for name in given:
        if name not in fields:
            raise unknown("setting", name, fields)
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    base = dict(PRESETS[preset or DEFAULT])
    width, layers = given.get("width"), given.get("layers")
    if preset is None and (width or layers):
        for name in ("width", "layers", "heads"):
            base.pop(name)
        width = width or 64 * layers
        base |= {"width": width, "layers": layers or max(1, round(width / 64))}
    if width and "heads" not in given:
        base["heads"] = _heads(width)
    values = base | given
    if "vocabulary" not in values:
        raise UsageError("the vocabulary is not known without a tokenizer; give its size")
    values.setdefault("hidden", 4 * values["width"])
    return ModelConfig(**values)


def _heads(width: int) -> int:
    """Heads that divide the width into even parts of about 64 channels, or 32 in narrow models."""
    wanted = 64 if width >= 256 else 32
    parts = [c for c in range(1, min(width, 1024) + 1) if width % c == 0 and (c % 2 == 0 or width % 2)]
    return width // min(parts, key=lambda c: abs(math.log(c / wanted))) if parts else 1


def default_learning_rate(config: ModelConfig) -> float:
    """A peak learning rate for AdamW that falls with the width, near the published ones (6e-4 at 768 in GPT-3)."""
    return float(f"{min(3e-3, 0.5 / config.width):.1g}")
