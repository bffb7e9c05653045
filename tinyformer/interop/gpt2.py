"""GPT-2 (Radford 2019) as transformers writes it down.

Its "Conv1D" layers hold `inputs outputs`, as ours do, and its attention keeps queries, keys and values in one array.

Read before: `family.py`. Read next: `bert.py`.
"""

from __future__ import annotations

from typing import Any

from ..models import ModelConfig
from .family import Family, Options, activation, is_tied, their_activation
from .table import Finder, Row, same
from .weights import Weights


def _settle(options: Options, weights: Weights, find: Finder) -> dict[str, Any]:
    hidden = options.get("n_inner")
    told = bool(options.get("tie_word_embeddings", True))
    return {
        "hidden": 4 * options.get("n_embd", 768) if hidden is None else hidden,
        "activation": activation(options, "activation_function", "gelu_new"),
        "tied": is_tied(find, weights, "lm_head.weight", "transformer.wte.weight", told),
    }


def _express(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "n_inner": config.hidden,
        "activation_function": their_activation(config.activation),
        "tie_word_embeddings": config.tied,
    }


def _rows(config: ModelConfig) -> list[Row]:
    rows = [Row("tokens.weight", "transformer.wte.weight"), Row("stack.positions.weight", "transformer.wpe.weight")]
    for i in range(config.layers):
        ours, theirs = f"stack.blocks.{i}", f"transformer.h.{i}"
        rows += same(f"{ours}.attention_norm", f"{theirs}.ln_1")
        for number, name in enumerate(("query", "key", "value")):
            rows += same(f"{ours}.attention.{name}", f"{theirs}.attn.c_attn", part=(number, 3))
        rows += same(f"{ours}.attention.output", f"{theirs}.attn.c_proj")
        rows += same(f"{ours}.feed_forward_norm", f"{theirs}.ln_2")
        rows += same(f"{ours}.feed_forward.up", f"{theirs}.mlp.c_fc")
        rows += same(f"{ours}.feed_forward.down", f"{theirs}.mlp.c_proj")
    rows += same("stack.norm", "transformer.ln_f")
    if not config.tied:
        rows.append(Row("head.output.weight", "lm_head.weight", transposed=True))
    return rows


GPT2 = Family(
    title="GPT-2",
    model_type="gpt2",
    options={
        "vocabulary": ("vocab_size", 50257),
        "context": ("n_positions", 1024),
        "layers": ("n_layer", 12),
        "heads": ("n_head", 12),
        "width": ("n_embd", 768),
        "dropout": ("resid_pdrop", 0.1),
        "epsilon": ("layer_norm_epsilon", 1e-5),
        "scaled_scores": ("scale_attn_weights", True),
    },
    choices={
        "mode": "decoder",
        "norm": "layer",
        "norm_position": "pre",
        "positions": "learned",
        "head_width": None,
        "segments": 0,
        "embedding_norm": False,
        "scaled_embedding": False,
        "gated": False,
        "bias": True,
        "scaled_head": False,
        "head": "linear",
    },
    required={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    copies={"embd_pdrop": "dropout", "attn_pdrop": "dropout"},
    settle=_settle,
    express=_express,
    rows=_rows,
    prefix="transformer.",
    heads=("lm_head.",),
    ignored=r"\.attn\.(masked_)?bias$|^lm_head\.weight$",
)
