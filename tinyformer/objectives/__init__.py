"""Pretraining objectives, one file each: what the model sees, and how its answer is scored."""

from .batch import Batch, pad_rows
from .causal import CausalLM
from .masked import MaskedLM
from .next_sentence import NextSentence
from .objective import Objective, Prediction
from .seq2seq import Seq2Seq
from .span_corruption import SpanCorruption, mark_spans

# By name; the first one of a mode is what it trains on unless another is asked for.
OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective for objective in (CausalLM, MaskedLM, NextSentence, SpanCorruption, Seq2Seq)
}

__all__ = [
    "OBJECTIVES",
    "Batch",
    "CausalLM",
    "MaskedLM",
    "NextSentence",
    "Objective",
    "Prediction",
    "Seq2Seq",
    "SpanCorruption",
    "mark_spans",
    "pad_rows",
]
