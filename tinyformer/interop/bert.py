"""BERT (Devlin 2019) as transformers writes it down, with whichever of its pretraining heads a checkpoint has.

Read before: `gpt2.py`. Read next: `roformer.py`.
"""

from __future__ import annotations

from typing import Any

from ..models import ModelConfig
from .family import Family, Options, activation, is_tied, their_activation
from .table import Finder, Row, linear, same
from .weights import Weights

_TOKENS, _OUTPUT = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
_POOLER, _PAIRS = "bert.pooler.dense", "cls.seq_relationship"


def _settle(options: Options, weights: Weights, find: Finder) -> dict[str, Any]:
    told = bool(options.get("tie_word_embeddings", True))
    return {
        "activation": activation(options, "hidden_act", "gelu"),
        "tied": is_tied(find, weights, _OUTPUT, _TOKENS, told),
        "next_sentence": find(f"{_POOLER}.weight") is not None,
    }


def _express(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["BertForPreTraining" if config.next_sentence else "BertForMaskedLM"],
        "hidden_act": their_activation(config.activation),
        "tie_word_embeddings": config.tied,
    }


def _rows(config: ModelConfig) -> list[Row]:
    embeddings = "bert.embeddings"
    rows = [
        Row("tokens.weight", _TOKENS),
        Row("stack.positions.weight", f"{embeddings}.position_embeddings.weight"),
        Row("stack.segments.weight", f"{embeddings}.token_type_embeddings.weight"),
        *same("stack.embedding_norm", f"{embeddings}.LayerNorm"),
    ]
    for i in range(config.layers):
        ours, theirs = f"stack.blocks.{i}", f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            rows += linear(f"{ours}.attention.{name}", f"{theirs}.attention.self.{name}")
        rows += linear(f"{ours}.attention.output", f"{theirs}.attention.output.dense")
        rows += same(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        rows += linear(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense")
        rows += linear(f"{ours}.feed_forward.down", f"{theirs}.output.dense")
        rows += same(f"{ours}.feed_forward_norm", f"{theirs}.output.LayerNorm")
    transform, body_only = "cls.predictions.transform", {"optional": True}
    rows += linear("head.dense", f"{transform}.dense", **body_only)
    rows += same("head.norm", f"{transform}.LayerNorm", **body_only)
    rows.append(Row("head.bias", "cls.predictions.bias", **body_only))
    if not config.tied:  # there the bias is there twice, and the second is the one that counts
        rows.append(Row("head.output.weight", _OUTPUT, transposed=True))
        rows.append(Row("head.bias", "cls.predictions.decoder.bias"))
    if config.next_sentence:
        rows += linear("pooler", _POOLER)
        rows += linear("next_sentence", _PAIRS, **body_only)
    return rows


BERT = Family(
    title="BERT",
    model_type="bert",
    options={
        "vocabulary": ("vocab_size", 30522),
        "context": ("max_position_embeddings", 512),
        "layers": ("num_hidden_layers", 12),
        "heads": ("num_attention_heads", 12),
        "width": ("hidden_size", 768),
        "hidden": ("intermediate_size", 3072),
        "dropout": ("hidden_dropout_prob", 0.1),
        "segments": ("type_vocab_size", 2),
        "epsilon": ("layer_norm_eps", 1e-12),
    },
    choices={
        "mode": "encoder",
        "norm": "layer",
        "norm_position": "post",
        "positions": "learned",
        "head_width": None,
        "embedding_norm": True,
        "scaled_embedding": False,
        "scaled_scores": True,
        "gated": False,
        "bias": True,
        "scaled_head": False,
        "head": "transform",
    },
    required={"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    copies={"attention_probs_dropout_prob": "dropout"},
    settle=_settle,
    express=_express,
    rows=_rows,
    prefix="bert.",
    heads=("cls.",),
    renamed=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    aliases={
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        "cls.predictions.bias": "cls.predictions.decoder.bias",
    },
    ignored=r"\.(position_ids|token_type_ids)$|^cls\.predictions\.(decoder\.(weight|bias)|bias)$",
)
