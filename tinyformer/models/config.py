"""What distinguishes one transformer from another, as orthogonal choices.

Published models differ in sizes and in a handful of decisions: where the norm stands, how positions are told, which
activation. Each is one field here, so a paper is a row of values (`presets.py`) and not a class.

Read next: `presets.py`, `decoder.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable

from ..errors import UsageError
from ..nn import ACTIVATIONS

CHOICES = {
    "mode": ("decoder",),
    "norm": ("layer", "rms"),
    "norm_position": ("pre", "post"),
    "positions": ("learned", "sinusoidal", "rotary", "none"),
    "activation": tuple(ACTIVATIONS),
}


MOST = 1 << 30  # of any size


def unknown(what: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known, with the nearest one that is."""
    known = list(known)
    nearest = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UsageError(f"unknown {what} {given!r}; {hint}known are {', '.join(known)}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A transformer's shape.

    Attributes:
        vocabulary: number of token ids, `v`.
        context: the longest sequence, in tokens.
        layers: blocks.
        heads: of each attention, `h`; they divide the width.
        width: of the residual stream, `d`.
        hidden: of the feed-forward network, `f`.
        dropout: share of embeddings, attention weights and residual branches dropped in training.
        mode: which arrangement of blocks: "decoder".
        norm: "layer" or "rms".
        norm_position: "pre" or "post".
        positions: "learned", "sinusoidal", "rotary" or "none".
        activation: of the feed-forward network.
        gated: whether the feed-forward network has a gate (Shazeer 2020).
        bias: whether linear maps and layer norms have one.
        tied: whether the output layer is the token embedding (Press and Wolf 2017).
        epsilon: of the norms.

    Raises:
        UsageError: a size is not positive, the heads do not divide the width, or a choice is unknown.
    """

    vocabulary: int
    context: int = 256
    layers: int = 4
    heads: int = 4
    width: int = 128
    hidden: int = 512
    dropout: float = 0.0
    mode: str = "decoder"
    norm: str = "layer"
    norm_position: str = "pre"
    positions: str = "learned"
    activation: str = "gelu"
    gated: bool = False
    bias: bool = True
    tied: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "heads", "width", "hidden"):
            value = getattr(self, name)
            if type(value) is not int:
                raise UsageError(f"{name} must be a whole number, and is {value!r}")
            if not 1 <= value <= MOST:
                bound = "at least 1" if value < 1 else f"at most {MOST}"
                raise UsageError(f"{name} must be {bound}, and is {value}")
        if self.width % self.heads:
            divisors = [n for n in range(1, min(self.width, 1 << 16) + 1) if self.width % n == 0]
            nearest = min(divisors, key=lambda n: (abs(n - self.heads), n))
            raise UsageError(f"{self.heads} heads do not divide a width of {self.width}; try {nearest} heads")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(name.replace("_", " "), getattr(self, name), known)
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout must lie in [0, 1), and is {self.dropout}")
        if self.positions == "sinusoidal" and self.width % 2:
            raise UsageError(f"sinusoidal positions need an even width, and it is {self.width}; try {self.width + 1}")
        channels = self.width // self.heads
        if self.positions == "rotary" and channels % 2:
            remedy = f"try a width of {self.heads * (channels + 1)}, or other heads"
            raise UsageError(
                f"rotary positions need an even width per head, and {self.width} / {self.heads} is {channels}; {remedy}"
            )
