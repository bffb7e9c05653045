"""Pretraining objectives, one file each: what the model sees, and how its answer is scored."""

from .batch import Batch
from .causal import CausalLM

__all__ = ["Batch", "CausalLM"]
