"""How many parameters, floating-point operations and bytes a model takes, worked out from its configuration.

Closed formulas: counting GPT-3 allocates nothing. A test holds them to models that are built, and to published
figures. Convention: a multiplication with its addition is 2 FLOPs, and only matrix products are counted, with
all of the attention's scores also where a causal mask hides half of them, as the published figures do.

Read before: `tinyformer/models/config.py`. Read next: `scale.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from ..models import ModelConfig
from ..objectives import Seq2Seq, SpanCorruption
from ..objectives.masked import SHARE
from ..objectives.span_corruption import SHORTEST

PRETRAINING_HEADS = ("head transform", "next-sentence head")  # parts that published counts leave out


class Lengths(NamedTuple):
    """Tokens in a row.

    Attributes:
        source: read by an encoder, `s`; 0 without one.
        target: read by a decoder, `t`; 0 without one.
        scored: positions whose logits are computed.
    """

    source: int
    target: int
    scored: int


def row_lengths(config: ModelConfig, objective: str | None = None, *, task: str | None = None) -> Lengths:
    """What an objective makes of a row of text, at most.

    A decoder scores each of its positions. Of an encoder's, 15 % are masked and scored (Devlin 2019, §3.1). An
    encoder-decoder writes the spans that are missing in its source, 114 tokens for 512 (Raffel 2020, §3.1.4); or,
    with the objective "seq2seq", a target of up to its context.

    Args:
        config: of the model.
        objective: by name; None is the first one of the model's mode.
        task: that the model was fine-tuned for. No task asks an encoder's output layer; a decoder goes on learning to
            write, and an encoder-decoder's targets are any texts.
    """
    context = config.context
    if config.mode == "decoder":
        return Lengths(0, context, context)
    if config.mode == "encoder":
        return Lengths(context, 0, max(1, round(SHARE * context)) if task is None else 0)
    target = context
    if objective != Seq2Seq.name and task is None and context > SHORTEST:
        _, target = SpanCorruption(sentinels=[0], end=0, pad=0).raw_length(context)  # whichever ids they are
    return Lengths(context, target, target)


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """The number of parameters in each part that a model has; a tied output layer has none of its own."""
    d, v, inner = config.width, config.vocabulary, config.heads * config.channels
    encoder, decoder, cross = _blocks(config)
    blocks, stacks = encoder + decoder, bool(encoder) + bool(decoder)
    norm = 2 * d if config.norm == "layer" and config.bias else d
    norms = 2 * blocks + cross + stacks * ((config.norm_position == "pre") + config.embedding_norm)
    maps_up = 2 if config.gated else 1
    attention, feed_forward = 4 * d * inner, (maps_up + 1) * d * config.hidden
    if config.bias:
        attention += 3 * inner + d
        feed_forward += maps_up * config.hidden + d
    transform, next_sentence = config.head == "transform", config.next_sentence
    parts = {
        "token embedding": v * d,
        "position embedding": stacks * config.context * d * (config.positions == "learned"),
        "segment embedding": stacks * config.segments * d,
        "relative positions": stacks * config.buckets * config.heads * (config.positions == "relative"),
        "attention": blocks * attention,
        "cross-attention": cross * attention,
        "feed-forward": blocks * feed_forward,
        "norms": norms * norm,
        "pooler": (d * d + d) * next_sentence,
        "next-sentence head": (2 * d + 2) * next_sentence,
        "head transform": (d * d + d + (2 * d if config.norm == "layer" else d) + v) * transform,
        "output layer": v * d * (not config.tied),
    }
    return {part: count for part, count in parts.items() if count}


def count_parameters(config: ModelConfig, *, heads: bool = True) -> int:
    """The number of parameters; tied ones count once.

    Args:
        config: of the model.
        heads: with those of BERT's pretraining heads: the transform and bias before the output layer, and the
            next-sentence classifier. Papers print the count without, and with the pooler.
    """
    return sum(n for part, n in parameters_by_part(config).items() if heads or part not in PRETRAINING_HEADS)


def _blocks(config: ModelConfig) -> tuple[int, int, int]:
    """How many blocks an encoder and a decoder have, and how many of these have a cross-attention."""
    if config.mode == "encoder":
        return config.layers, 0, 0
    if config.mode == "decoder":
        return 0, config.layers, 0
    decoder = config.decoder_layers or config.layers
    return config.layers, decoder, decoder


def forward_flops_by_part(config: ModelConfig, lengths: Lengths | None = None) -> dict[str, int]:
    """FLOPs to read one row from its beginning, in each part that a model has.

    Args:
        config: of the model.
        lengths: of the row; None is `row_lengths`.
    """
    s, t, scored = lengths or row_lengths(config)
    d, inner = config.width, config.heads * config.channels
    encoder, decoder, cross = _blocks(config)
    positions, pairs = encoder * s + decoder * t, encoder * s * s + decoder * t * t
    parts = {
        "attention projections": 2 * positions * 4 * d * inner,
        "attention scores": 2 * pairs * inner,
        "attention averages": 2 * pairs * inner,
        "cross-attention projections": cross * 2 * (s + t) * 2 * d * inner,
        "cross-attention scores": cross * 2 * t * s * inner,
        "cross-attention averages": cross * 2 * t * s * inner,
        "feed-forward": 2 * positions * (3 if config.gated else 2) * d * config.hidden,
        "next-sentence head": 2 * (d * d + 2 * d) * config.next_sentence,
        "head transform": 2 * scored * d * d * (config.head == "transform"),
        "output layer": 2 * scored * d * config.vocabulary,
    }
    return {part: count for part, count in parts.items() if count}


def forward_flops(config: ModelConfig, lengths: Lengths | None = None) -> int:
    """FLOPs to read one row, as `forward_flops_by_part`."""
    return sum(forward_flops_by_part(config, lengths).values())


def training_flops(config: ModelConfig, sequences: int = 1, lengths: Lengths | None = None) -> int:
    """FLOPs of a training step on so many rows: the backward pass takes twice the forward pass.

    Per token that is about 6 FLOPs a parameter that it meets (Kaplan 2020, §2.1), and more where the context is long.
    """
    return 3 * sequences * forward_flops(config, lengths)


def needed_flops(config: ModelConfig, sequences: int = 1, lengths: Lengths | None = None) -> int:
    """FLOPs that a training step cannot do without: as `training_flops`, less the scores that a causal mask hides.

    What to divide by the time of a step, to compare with the rate of a plain matrix product ("model FLOPs utilization",
    Chowdhery 2022, appendix B, which counts the hidden scores too).
    """
    target, (_, decoder, _) = (lengths or row_lengths(config)).target, _blocks(config)
    hidden = decoder * target * (target - 1) // 2  # pairs of a query and a later key
    return training_flops(config, sequences, lengths) - 3 * sequences * hidden * 4 * config.heads * config.channels


def training_memory(
    config: ModelConfig,
    sequences: int,
    lengths: Lengths | None = None,
    *,
    itemsize: int = 4,
    workers: int = 1,
    head: int = 0,
) -> dict[str, int]:
    """Bytes that a training step holds at its peak.

    The activations are an estimate, within a factor of 1.5 of what a step on the CPU holds; the rest is exact. In all,
    two sizes of each mode, of 11 to 34 million parameters, grew the process by 0.92 to 0.99 of what is said here.

    Args:
        config: of the model.
        sequences: rows in a forward pass, `b`.
        lengths: of a row; None is `row_lengths`.
        itemsize: bytes of a number: 4 for float32, 8 for float64.
        workers: that share the rows; each finds a gradient of its own, and these are added up.
        head: parameters of a task's head beside the model's.
    """
    weights = (count_parameters(config) + head) * itemsize
    return {
        "weights": weights,
        "gradients": weights,
        "gradients of workers": workers * weights,
        "optimiser moments": 2 * weights,
        "activations": sequences * _kept(config, lengths or row_lengths(config)) * itemsize,
    }


def training_memory_of_gpu(
    config: ModelConfig, sequences: int, lengths: Lengths | None = None, *, itemsize: int = 4
) -> dict[str, int]:
    """Bytes of a GPU that a training step holds at its peak; the activations are an estimate, the rest is exact.

    Args:
        config: of the model.
        sequences: rows in a forward pass, `b`.
        lengths: of a row; None is `row_lengths`.
        itemsize: bytes of a number that is computed with: 2 for bfloat16, beside weights of 4 bytes.
    """
    count, kept = count_parameters(config), _kept(config, lengths or row_lengths(config), scores=False)
    wide = max(itemsize, 4)
    rounded = {"weights, rounded": count * itemsize} if itemsize < wide else {}
    return {
        "weights": count * wide,
        **rounded,
        "gradients": count * wide,
        "gradients of a pass": count * itemsize,
        "optimiser moments": 2 * count * wide,
        "activations": sequences * kept * itemsize,
    }


def _kept(config: ModelConfig, lengths: Lengths, *, scores: bool = True) -> int:
    """Numbers kept of a row for the backward pass, by the closures of the layers as they are written.

    Args:
        config: of the model.
        lengths: of the row.
        scores: whether attention may keep its weights, which kernels of a GPU never do.
    """
    (s, t, scored), d, f = lengths, config.width, config.hidden
    inner, dropout = config.heads * config.channels, bool(config.dropout)
    encoder, decoder, cross = _blocks(config)
    truth = 0.25 * (dropout and scores)  # values of one byte beside numbers of four
    # The norm and its output; queries, keys, values and joined heads; the dropout of what is added to the stream.
    attention = 2 * d + 4 * inner + d * truth
    # The activation's result, and what the gradients are multiplied by, which for relu follows from the result.
    hidden = f * (3 if config.gated else 1 if config.activation == "relu" else 2)
    block = attention + 2 * d + hidden + d * truth

    def weights(queries: int, keys: int, share: float = 1.0) -> float:
        kept = keys <= 512  # of more keys the weights are computed again
        return config.heads * queries * keys * share * (kept + truth) if scores else 0.0

    kept = encoder * (s * block + weights(s, s))
    kept += decoder * (t * block + weights(t, t, (t + 64) / (2 * t) if t else 0.0))  # causal: in blocks of 64 queries
    kept += cross * (t * (attention - 2 * inner) + s * 2 * inner + weights(t, s))
    # The transform's activation, its norm and the norm's output.
    transform = 3 * d * (config.head == "transform")
    # The logits become their own gradient.
    kept += 3 * d * (s + t) + scored * (config.vocabulary + transform)
    return round(kept)


def generation_memory(config: ModelConfig, sequences: int = 1, *, itemsize: int = 4) -> dict[str, int]:
    """Bytes that writing text takes: the weights, and the keys and values of full contexts. An encoder writes none."""
    _, decoder, cross = _blocks(config)
    keys_values = sequences * 2 * config.context * config.heads * config.channels * itemsize
    parts = {
        "weights": count_parameters(config) * itemsize,
        "key/value cache": decoder * keys_values,
        "cross-attention cache": cross * keys_values,
    }
    return {part: count for part, count in parts.items() if count} if decoder else {}


def summary(
    config: ModelConfig, sequences: int = 1, lengths: Lengths | None = None, *, itemsize: int = 4, head: int = 0
) -> dict[str, dict[str, int]]:
    """All counts of a model by section and part, each section with its total.

    Args:
        config: of the model.
        sequences: rows in a forward pass of training.
        lengths: of a row; None is `row_lengths`.
        itemsize: bytes of a number: 4 for float32, 8 for float64.
        head: parameters of a task's head beside the model's, whose FLOPs are too few to be counted.
    """
    lengths = lengths or row_lengths(config)
    sections = {
        "parameters": parameters_by_part(config) | ({"task head": head} if head else {}),
        "forward_flops": forward_flops_by_part(config, lengths),
        "training_flops": {},
        "training_bytes": training_memory(config, sequences, lengths, itemsize=itemsize, head=head),
        "generation_bytes": generation_memory(config, itemsize=itemsize),
    }
    if not sections["generation_bytes"]:
        del sections["generation_bytes"]
    sections = {name: parts | {"total": sum(parts.values())} for name, parts in sections.items()}
    published = count_parameters(config, heads=False)
    if published != count_parameters(config):
        sections["parameters"]["without pretraining heads"] = published + head
    forward, tokens = sections["forward_flops"]["total"], lengths.source + lengths.target
    sections["forward_flops"]["per token"] = forward // tokens
    sections["training_flops"] = {
        "total": training_flops(config, sequences, lengths),
        "per token": 3 * forward // tokens,
    }
    return sections
