"""How many parameters, floating-point operations and bytes a model takes, worked out from its configuration.

Closed formulas: counting GPT-3 allocates nothing. A test holds them to models that are built, and to published
figures. Convention: a multiplication with its addition is 2 FLOPs, and only matrix products are counted, with
all of the attention's scores also where a causal mask hides half of them, as the published figures do.

Read before: `tinyformer/models/config.py`.
"""

from __future__ import annotations

from ..models import ModelConfig

_FUSED = ("gelu", "gelu-exact", "relu")  # these keep one array, as wide as their input; the others three


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """The number of parameters in each part of a model; a tied output layer has none of its own."""
    d, f, layers = config.width, config.hidden, config.layers
    norm = 2 * d if config.norm == "layer" and config.bias else d
    norms = 2 * layers + (config.norm_position == "pre")
    maps_up = 2 if config.gated else 1
    attention, feed_forward = 4 * d * d, (maps_up + 1) * d * f
    if config.bias:
        attention += 4 * d
        feed_forward += maps_up * f + d
    return {
        "token embedding": config.vocabulary * d,
        "position embedding": config.context * d if config.positions == "learned" else 0,
        "attention": layers * attention,
        "feed-forward": layers * feed_forward,
        "norms": norms * norm,
        "output layer": 0 if config.tied else config.vocabulary * d,
    }


def count_parameters(config: ModelConfig) -> int:
    """The number of parameters; tied ones count once."""
    return sum(parameters_by_part(config).values())


def forward_flops_by_part(config: ModelConfig, tokens: int | None = None) -> dict[str, int]:
    """FLOPs to read one sequence from its beginning.

    Args:
        config: of the model.
        tokens: length of the sequence; the model's context where None.
    """
    t = config.context if tokens is None else tokens
    d, layers = config.width, config.layers
    return {
        "attention projections": layers * 2 * t * 4 * d * d,
        "attention scores": layers * 2 * t * t * d,
        "attention averages": layers * 2 * t * t * d,
        "feed-forward": layers * 2 * t * (3 if config.gated else 2) * d * config.hidden,
        "output layer": 2 * t * d * config.vocabulary,
    }


def forward_flops(config: ModelConfig, tokens: int | None = None) -> int:
    """FLOPs to read one sequence, as `forward_flops_by_part`."""
    return sum(forward_flops_by_part(config, tokens).values())


def training_flops(config: ModelConfig, sequences: int = 1) -> int:
    """FLOPs of a training step on so many full contexts: the backward pass takes twice the forward pass.

    Per token that is about 6 FLOPs a parameter (Kaplan 2020, §2.1), and more where the context is long.
    """
    return 3 * sequences * forward_flops(config)


def training_memory(config: ModelConfig, sequences: int, *, itemsize: int = 4) -> dict[str, int]:
    """Bytes that a training step holds at its peak.

    The activations are an estimate, within a factor of 1.5 of what a step on the CPU holds; the rest is exact.

    Args:
        config: of the model.
        sequences: full contexts in a forward pass, `b`.
        itemsize: bytes of a number: 4 for float32, 8 for float64.
    """
    weights = count_parameters(config) * itemsize
    return {
        "weights": weights,
        "gradients": weights,
        "optimiser moments": 2 * weights,
        "activations": sequences * config.context * _kept_per_token(config) * itemsize,
    }


def _kept_per_token(config: ModelConfig) -> int:
    """Numbers kept of each token for the backward pass, by the closures of the layers as they are written."""
    d, f = config.width, config.hidden
    scores = config.heads * (config.context + 64) // 2  # a causal attention works by blocks of 64 queries
    hidden = f + (2 * f if config.gated else 0) + (f if config.activation in _FUSED else 3 * f)
    dropped = 2 * d + config.heads * config.context // 4 if config.dropout else 0  # truth values take a quarter
    block = 4 * d + 3 * d + scores + d + hidden + dropped  # two norms; queries, keys, values; scores; joined heads
    return config.layers * block + 3 * d + 2 * config.vocabulary


def generation_memory(config: ModelConfig, sequences: int = 1, *, itemsize: int = 4) -> dict[str, int]:
    """Bytes that writing text takes: the weights, and the keys and values of a full context."""
    return {
        "weights": count_parameters(config) * itemsize,
        "key/value cache": sequences * 2 * config.layers * config.context * config.width * itemsize,
    }


def summary(config: ModelConfig, sequences: int = 1, *, itemsize: int = 4) -> dict[str, dict[str, int]]:
    """All counts of a model by section and part, each section with its total.

    Args:
        config: of the model.
        sequences: full contexts in a forward pass of training.
        itemsize: bytes of a number: 4 for float32, 8 for float64.
    """
    sections = {
        "parameters": parameters_by_part(config),
        "forward_flops": forward_flops_by_part(config),
        "training_bytes": training_memory(config, sequences, itemsize=itemsize),
        "generation_bytes": generation_memory(config, itemsize=itemsize),
    }
    sections = {name: parts | {"total": sum(parts.values())} for name, parts in sections.items()}
    forward = sections["forward_flops"]["total"]
    sections["forward_flops"]["per token"] = forward // config.context
    sections["training_flops"] = {
        "total": training_flops(config, sequences),
        "per token": 3 * forward // config.context,
    }
    return sections
