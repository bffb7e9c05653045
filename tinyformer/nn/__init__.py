"""Layers, written once for every backend. Read in this order: module, layers, positions, attention, blocks."""

from ..fused import ACTIVATIONS
from .attention import Attention, Cache, KeysValues, LayerCache
from .blocks import Block
from .layers import Embedding, FeedForward, LayerNorm, Linear, RMSNorm, dropout, make_norm
from .module import Initializer, Module
from .positions import RelativePositions, relative_buckets, rotary_angles, sinusoidal

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "Block",
    "Cache",
    "Embedding",
    "FeedForward",
    "Initializer",
    "KeysValues",
    "LayerCache",
    "LayerNorm",
    "Linear",
    "Module",
    "RMSNorm",
    "RelativePositions",
    "dropout",
    "make_norm",
    "relative_buckets",
    "rotary_angles",
    "sinusoidal",
]
