"""What distinguishes one transformer from another, as orthogonal choices.

Published models differ in sizes and in a handful of decisions: where the norm stands, how positions are told, which
activation, whether scores are scaled. Each is one field here, so a paper is a row of values (`presets.py`) and not a
class.

Read next: `presets.py`, `stack.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable

from ..errors import UsageError
from ..nn import ACTIVATIONS

CHOICES = {
    "mode": ("decoder", "encoder", "encoder-decoder"),
    "norm": ("layer", "rms"),
    "norm_position": ("pre", "post"),
    "positions": ("learned", "sinusoidal", "rotary", "relative", "none"),
    "activation": tuple(ACTIVATIONS),
    "head": ("linear", "transform"),
}


MOST = 1 << 30  # of any size
_SIZES = ("vocabulary", "context", "layers", "heads", "width", "hidden", "buckets", "max_distance")
_OPTIONAL_SIZES = ("decoder_layers", "head_width")


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
        context: the longest sequence, in tokens; of an encoder-decoder, of the source as of the target.
        layers: blocks; of an encoder-decoder, in its encoder.
        decoder_layers: blocks in the decoder of an encoder-decoder; None for as many as in its encoder.
        heads: of each attention, `h`; they divide the width unless `head_width` is given.
        width: of the residual stream, `d`.
        head_width: channels of a head, `c`; None for d / h.
        hidden: of the feed-forward network, `f`.
        dropout: share of embeddings, attention weights and residual branches dropped in training.
        mode: which arrangement of blocks: "decoder" (GPT), "encoder" (BERT) or "encoder-decoder" (T5).
        norm: "layer" or "rms".
        norm_position: "pre" or "post".
        positions: "learned", "sinusoidal", "rotary", "relative" (T5's bias of the scores) or "none".
        buckets: of relative positions: so many distances are told apart.
        max_distance: of relative positions: all beyond share a bucket.
        segments: kinds of segments that are embedded beside the tokens; 0 for none.
        embedding_norm: whether the embeddings are normed before the first block (BERT).
        scaled_embedding: whether token embeddings are multiplied by √d (Vaswani 2017, §3.4).
        scaled_scores: whether attention scores are divided by √c; T5 leaves that to the initial weights.
        activation: of the feed-forward network.
        gated: whether the feed-forward network has a gate (Shazeer 2020).
        bias: whether linear maps and layer norms have one.
        tied: whether the output layer is the token embedding (Press and Wolf 2017).
        scaled_head: whether what the output layer reads is divided by √d (T5 1.0).
        head: what stands before the output layer: "linear" for nothing; "transform" for a linear map, the activation
            and a norm, and a bias of the logits (BERT's masked-LM head).
        next_sentence: whether an encoder has BERT's pooler and its next-sentence classifier.
        epsilon: of the norms.

    Raises:
        UsageError: a size is not positive, the heads do not divide the width, a choice is unknown, or two of them
            contradict each other.
    """

    vocabulary: int
    context: int = 256
    layers: int = 4
    decoder_layers: int | None = None
    heads: int = 4
    width: int = 128
    head_width: int | None = None
    hidden: int = 512
    dropout: float = 0.0
    mode: str = "decoder"
    norm: str = "layer"
    norm_position: str = "pre"
    positions: str = "learned"
    buckets: int = 32
    max_distance: int = 128
    segments: int = 0
    embedding_norm: bool = False
    scaled_embedding: bool = False
    scaled_scores: bool = True
    activation: str = "gelu"
    gated: bool = False
    bias: bool = True
    tied: bool = True
    scaled_head: bool = False
    head: str = "linear"
    next_sentence: bool = False
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        given = [name for name in _OPTIONAL_SIZES if getattr(self, name) is not None]
        for name in (*_SIZES, *given, "segments"):
            _check_size(name, getattr(self, name), least=0 if name == "segments" else 1)
        if self.head_width is None and self.width % self.heads:
            divisors = [n for n in range(1, min(self.width, 1 << 16) + 1) if self.width % n == 0]
            nearest = min(divisors, key=lambda n: (abs(n - self.heads), n))
            raise UsageError(f"{self.heads} heads do not divide a width of {self.width}; try {nearest} heads")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(name.replace("_", " "), getattr(self, name), known)
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout must lie in [0, 1), and is {self.dropout}")
        self._check_positions()
        if self.next_sentence and self.mode != "encoder":
            raise UsageError(f"next-sentence prediction belongs to an encoder, and this is a model of mode {self.mode}")
        if self.decoder_layers is not None and self.mode != "encoder-decoder":
            raise UsageError("decoder_layers belongs to an encoder-decoder; give layers alone")

    def _check_positions(self) -> None:
        if self.positions == "sinusoidal" and self.width % 2:
            raise UsageError(f"sinusoidal positions need an even width, and it is {self.width}; try {self.width + 1}")
        if self.positions == "rotary" and self.channels % 2:
            remedy = f"try a width of {self.heads * (self.channels + 1)}, or other heads"
            raise UsageError(
                f"rotary positions need an even width per head, and {self.width} / {self.heads} is {self.channels}; "
                f"{remedy}"
            )
        # Each distance below half a direction's buckets has its own; an encoder looks in two directions.
        fewest, most = (
            self.buckets // (2 if self.mode == "decoder" else 4),
            self.buckets // (4 if self.mode == "encoder" else 2),
        )
        if self.positions == "relative" and not 0 < fewest <= most < self.max_distance:
            raise UsageError(
                f"relative positions need at least 4 buckets and a max_distance above {most}, and have {self.buckets} "
                f"and {self.max_distance}"
            )

    @property
    def channels(self) -> int:
        """Width of a head, `c`."""
        return self.width // self.heads if self.head_width is None else self.head_width


def _check_size(name: str, value: int, *, least: int) -> None:
    if type(value) is not int:
        raise UsageError(f"{name} must be a whole number, and is {value!r}")
    if not least <= value <= MOST:
        bound = f"at least {least}" if value < least else f"at most {MOST}"
        raise UsageError(f"{name} must be {bound}, and is {value}")
