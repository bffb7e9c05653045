"""Whole transformers: a configuration, the published sizes, and the arrangements of blocks."""

from .. import nn
from .config import ModelConfig
from .decoder import Decoder
from .encoder import Encoder
from .encoder_decoder import EncoderDecoder
from .presets import PRESETS, default_learning_rate, learning_rate_factors, resolve

__all__ = [
    "PRESETS",
    "Decoder",
    "Encoder",
    "EncoderDecoder",
    "Model",
    "ModelConfig",
    "build",
    "default_learning_rate",
    "learning_rate_factors",
    "make",
    "resolve",
]

Model = Decoder | Encoder | EncoderDecoder
_CLASSES: dict[str, type[Model]] = {"decoder": Decoder, "encoder": Encoder, "encoder-decoder": EncoderDecoder}


def build(config: ModelConfig, *, backend: str = "numpy", dtype: str = "float32", seed: int | None = 0) -> Model:
    """A model with fresh parameters.

    Args:
        config: its shape.
        backend: where it lives.
        dtype: of the parameters and all that is computed, "float32" or "float64".
        seed: of the parameters; None for zeros, where they will be assigned.
    """
    return make(config, nn.Initializer(backend, dtype, seed))


def make(config: ModelConfig, init: nn.Initializer) -> Model:
    """A model whose parameters come from `init`: the class that arranges the blocks as its mode says."""
    return _CLASSES[config.mode](config, init)
