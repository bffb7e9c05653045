"""Objectives, rows and small models that these tests share."""

import math

import numpy as np

from tinyformer.models import ModelConfig, build
from tinyformer.objectives import CausalLM, MaskedLM, NextSentence, Seq2Seq, SpanCorruption

ORDINARY = 20  # ids of text; the special tokens take the next ones
PAD, CLS, SEP, MASK, END = range(ORDINARY, ORDINARY + 5)
V = 40
SENTINELS = list(range(V - 1, END, -1))
LINE_END = 0
ENCODER = {"vocabulary": V, "cls": CLS, "sep": SEP, "mask": MASK, "pad": PAD}


def next_sentence(context=12, line_ends=None):
    line_ends = np.arange(V) == LINE_END if line_ends is None else line_ends
    return NextSentence(**ENCODER, line_ends=line_ends, context=context)


OBJECTIVES = {
    "causal": CausalLM(),
    "masked": MaskedLM(**ENCODER),
    "next-sentence": next_sentence(),
    "span-corruption": SpanCorruption(sentinels=SENTINELS, end=END, pad=PAD),
    "seq2seq": Seq2Seq(end=END, pad=PAD, smoothing=0.1),
}
SHAPES = {
    "decoder": {},
    "encoder": {"segments": 2, "head": "transform", "norm_position": "post", "next_sentence": True},
    "encoder-decoder": {"positions": "relative", "norm": "rms", "bias": False},
}


def generators(rows, seed=0):
    """A stream of its own for each row."""
    return [np.random.default_rng([seed, row]) for row in range(rows)]


def text(rng, length):
    return rng.integers(0, ORDINARY, length).astype(np.int32)


def documents(rng, length):
    """A stretch of a text whose documents, of up to seven tokens, stand between <cls> and <sep>."""
    pieces = [np.concatenate([[CLS], text(rng, rng.integers(1, 8)), [SEP]]) for _ in range(length + 8)]
    start = rng.integers(0, 9)
    return np.concatenate(pieces)[start : start + length].astype(np.int32)


def draw_rows(name, rng, count):
    """Rows that the objective of this name takes; ragged where it takes ragged ones."""
    lengths = rng.integers(1, 13, (count, 2)).tolist()
    lengths[0] = [12, 12]
    if name == "causal":
        return [text(rng, 9) for _ in lengths]
    if name == "masked":
        return [documents(rng, length) for length, _ in lengths]
    if name == "span-corruption":
        return [text(rng, length) for length, _ in lengths]
    return [(text(rng, first), text(rng, second)) for first, second in lengths]


def make(mode, dtype="float64", **choices):
    """A model with weights so large that its answers differ."""
    sizes = {"vocabulary": V, "context": 24, "layers": 1, "heads": 2, "width": 8, "hidden": 16}
    model = build(ModelConfig(mode=mode, **sizes | SHAPES[mode] | choices), dtype=dtype)
    rng = np.random.default_rng(5)
    model.assign({name: rng.standard_normal(p.shape) * 0.5 for name, p in model.parameters().items()})
    return model


def assert_share(count, draws, share, *, rate):
    """Raise unless `count` of `draws` independent draws may have the given share.

    Chernoff's bound: both P(count/draws >= q) for q above the share, and P(count/draws <= q) for q below it, are at
    most exp(-draws KL(q, share)). So draws that do have the share raise with a probability of at most `rate`.
    """
    q = count / draws
    divergence = sum(a * math.log(a / b) for a, b in ((q, share), (1 - q, 1 - share)) if a)
    assert draws * divergence <= math.log(2 / rate), f"{count} of {draws}, where a share of {share} was expected"
