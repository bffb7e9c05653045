"""Whole transformers: a configuration, the published sizes, and the arrangements of blocks."""

from .. import nn
from .config import ModelConfig
from .decoder import Decoder
from .presets import PRESETS, default_learning_rate, resolve

__all__ = ["PRESETS", "Decoder", "ModelConfig", "build", "default_learning_rate", "resolve"]


def build(config: ModelConfig, *, backend: str = "numpy", dtype: str = "float32", seed: int | None = 0) -> Decoder:
    """A model with fresh parameters.

    Args:
        config: its shape.
        backend: where it lives.
        dtype: of the parameters and all that is computed, "float32" or "float64".
        seed: of the parameters; None for zeros, where they will be assigned.
    """
    return Decoder(config, nn.Initializer(backend, dtype, seed))
