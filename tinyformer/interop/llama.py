"""LLaMA (Touvron 2023) as transformers writes it down, and Arcee, which is the same without a gate.

The second is what a decoder here is by default: rotary positions, RMS norm, no biases, one activation of any kind. Of
either only what both sides can express: as many keys as queries, and angles with the usual base.

Read before: `t5.py`. Read next: `directory.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import UsageError
from ..models import ModelConfig
from .family import Family, Options, activation, is_tied, their_activation
from .table import Finder, Row, linear, same
from .weights import Weights

_BASE = 10000.0  # of the rotary angles


def _settle(options: Options, weights: Weights, find: Finder) -> dict[str, Any]:
    heads, groups = options.get("num_attention_heads", 32), options.get("num_key_value_heads")
    if groups not in (None, heads):
        raise UsageError(
            f"{weights.path}: {groups} num_key_value_heads for {heads} heads are not supported, only equal"
        )
    angles = options.get("rope_parameters") or options.get("rope_scaling") or {}
    base = options.get("rope_theta", _BASE)
    if isinstance(angles, dict):
        base, kind = angles.get("rope_theta", base), angles.get("rope_type", angles.get("type", "default"))
    if not isinstance(angles, dict) or (base, kind) != (_BASE, "default"):
        raise UsageError(f"{weights.path}: only rotary angles with rope_theta {_BASE} and no scaling are supported")
    return {
        "head_width": options.get("head_dim"),
        "activation": activation(options, "hidden_act", "silu"),
        "tied": is_tied(
            find,
            weights,
            "lm_head.weight",
            "model.embed_tokens.weight",
            bool(options.get("tie_word_embeddings", False)),
        ),
    }


def _express(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM" if config.gated else "ArceeForCausalLM"],
        "num_key_value_heads": config.heads,
        "head_dim": config.channels,
        "hidden_act": their_activation(config.activation),
        "rope_theta": _BASE,
        "tie_word_embeddings": config.tied,
    }


def _rows(config: ModelConfig) -> list[Row]:
    rows = [Row("tokens.weight", "model.embed_tokens.weight")]
    for i in range(config.layers):
        ours, theirs = f"stack.blocks.{i}", f"model.layers.{i}"
        for name in ("query", "key", "value", "output"):
            rows += linear(f"{ours}.attention.{name}", f"{theirs}.self_attn.{name[0]}_proj", bias=False)
        for name in ("gate", "up", "down") if config.gated else ("up", "down"):
            rows += linear(f"{ours}.feed_forward.{name}", f"{theirs}.mlp.{name}_proj", bias=False)
        rows += same(f"{ours}.attention_norm", f"{theirs}.input_layernorm", bias=False)
        rows += same(f"{ours}.feed_forward_norm", f"{theirs}.post_attention_layernorm", bias=False)
    rows += same("stack.norm", "model.norm", bias=False)
    if not config.tied:
        rows.append(Row("head.output.weight", "lm_head.weight", transposed=True))
    return rows


LLAMA = Family(
    title="LLaMA",
    model_type="llama",
    options={
        "vocabulary": ("vocab_size", 32000),
        "context": ("max_position_embeddings", 2048),
        "layers": ("num_hidden_layers", 32),
        "heads": ("num_attention_heads", 32),
        "width": ("hidden_size", 4096),
        "hidden": ("intermediate_size", 11008),
        "dropout": ("attention_dropout", 0.0),
        "epsilon": ("rms_norm_eps", 1e-6),
    },
    choices={
        "mode": "decoder",
        "norm": "rms",
        "norm_position": "pre",
        "positions": "rotary",
        "segments": 0,
        "embedding_norm": False,
        "scaled_embedding": False,
        "scaled_scores": True,
        "gated": True,
        "bias": False,
        "scaled_head": False,
        "head": "linear",
    },
    required={"attention_bias": False, "mlp_bias": False},
    copies={},
    settle=_settle,
    express=_express,
    rows=_rows,
    prefix="model.",
    heads=("lm_head.",),
    ignored=r"\.rotary_emb\.inv_freq$|^lm_head\.weight$",
)

ARCEE = dataclasses.replace(
    LLAMA,
    title="Arcee",
    model_type="arcee",
    options=LLAMA.options
    | {
        "context": ("max_position_embeddings", 4096),
        "width": ("hidden_size", 2560),
        "hidden": ("intermediate_size", 18432),
        "epsilon": ("rms_norm_eps", 1e-5),
    },
    choices=LLAMA.choices | {"gated": False},
)
