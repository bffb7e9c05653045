"""T5 (Raffel 2020) as transformers writes it down: version 1.0, and 1.1 with a gate and an output layer of its own.

Version 1.0 divides what its tied output layer reads by √d. Whether a model does is told by `scale_decoder_outputs`
where config.json has that (transformers 5), and otherwise by `tie_word_embeddings`; whether the output layer really
is the embedding shows in the weights.

Read before: `roformer.py`. Read next: `llama.py`.
"""

from __future__ import annotations

from typing import Any

from ..models import ModelConfig
from .family import Family, Options, activation, is_tied, their_activation
from .table import Finder, Row, linear, same
from .weights import Weights

_SCALED, _TIED, _LAYERS = "scale_decoder_outputs", "tie_word_embeddings", "num_decoder_layers"
_FEED_FORWARD = "feed_forward_proj"


def _settle(options: Options, weights: Weights, find: Finder) -> dict[str, Any]:
    told = options.get(_TIED) is not False
    kind = options.get(_FEED_FORWARD, "relu")
    gated = isinstance(kind, str) and kind.startswith("gated-")
    if kind == "gated-gelu":  # which there, and only there, means the approximation with tanh
        kind = "gated-gelu_new"
    name = kind.removeprefix("gated-") if gated else kind
    layers = options.get(_LAYERS)
    return {
        "decoder_layers": None if layers == options.get("num_layers", 6) else layers,
        "gated": gated,
        "activation": activation({_FEED_FORWARD: name}, _FEED_FORWARD, "relu"),
        "scaled_head": bool(options.get(_SCALED, told)),
        "tied": is_tied(find, weights, "lm_head.weight", "shared.weight", True),
    }


def _express(config: ModelConfig) -> dict[str, Any]:
    name = their_activation(config.activation)
    if config.gated:
        name = {"gelu_new": "gated-gelu", "gelu": "gated-gelu_python"}.get(name, f"gated-{name}")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        _LAYERS: config.decoder_layers or config.layers,
        _FEED_FORWARD: name,
        "d_kv": config.channels,
        _TIED: config.tied,
        _SCALED: config.scaled_head,
    }


def _rows(config: ModelConfig) -> list[Row]:
    rows = [Row("tokens.weight", "shared.weight")]
    for stack, layers in (("encoder", config.layers), ("decoder", config.decoder_layers or config.layers)):
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows.append(Row(f"{stack}.relative.weight", first))
        for i in range(layers):
            rows += _block(f"{stack}.blocks.{i}", f"{stack}.block.{i}.layer", stack == "decoder", config.gated)
        rows += same(f"{stack}.norm", f"{stack}.final_layer_norm", bias=False)
    if not config.tied:
        rows.append(Row("head.output.weight", "lm_head.weight", transposed=True))
    return rows


def _block(ours: str, theirs: str, cross: bool, gated: bool) -> list[Row]:
    """The rows of a block: there, each of its parts is a numbered layer."""
    attentions = [("attention", "0.SelfAttention"), *([("cross_attention", "1.EncDecAttention")] if cross else [])]
    last = len(attentions)
    rows = []
    for number, (name, their_name) in enumerate(attentions):
        for part in ("query", "key", "value", "output"):
            rows += linear(f"{ours}.{name}.{part}", f"{theirs}.{their_name}.{part[0]}", bias=False)
        rows += same(f"{ours}.{name}_norm", f"{theirs}.{number}.layer_norm", bias=False)
    maps = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    for name, their_name in maps.items():
        rows += linear(f"{ours}.feed_forward.{name}", f"{theirs}.{last}.DenseReluDense.{their_name}", bias=False)
    return [*rows, *same(f"{ours}.feed_forward_norm", f"{theirs}.{last}.layer_norm", bias=False)]


T5 = Family(
    title="T5",
    model_type="t5",
    options={
        "vocabulary": ("vocab_size", 32128),
        "context": ("n_positions", 512),
        "layers": ("num_layers", 6),
        "heads": ("num_heads", 8),
        "width": ("d_model", 512),
        "head_width": ("d_kv", 64),
        "hidden": ("d_ff", 2048),
        "dropout": ("dropout_rate", 0.1),
        "epsilon": ("layer_norm_epsilon", 1e-6),
        "buckets": ("relative_attention_num_buckets", 32),
        "max_distance": ("relative_attention_max_distance", 128),
    },
    choices={
        "mode": "encoder-decoder",
        "norm": "rms",
        "norm_position": "pre",
        "positions": "relative",
        "segments": 0,
        "embedding_norm": False,
        "scaled_embedding": False,
        "scaled_scores": False,
        "bias": False,
        "head": "linear",
    },
    required={},
    copies={},
    settle=_settle,
    express=_express,
    rows=_rows,
    aliases={"shared.weight": "encoder.embed_tokens.weight"},
    ignored=r"^(en|de)coder\.embed_tokens\.weight$|EncDecAttention\.relative_attention_bias|^lm_head\.weight$",
)
