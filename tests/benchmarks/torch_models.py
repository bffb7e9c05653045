"""GPT-2, BERT and T5 in plain torch, fast: packed projections, torch's own attention, logits only at targets.

They read our weights, so that the first loss must equal ours, and return the loss of a batch, so that torch.compile
gets forward and loss in one piece.

Read before: `cases.py`. Read next: `torch_peer.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Attention

from tinyformer.models import ModelConfig

Weights = dict[str, Tensor]
ACTIVATIONS = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu-exact": F.gelu,
    "relu": F.relu,
}


def linear(weights: Weights, *names: str) -> nn.Linear:
    """One map for several of ours, whose results then lie beside each other."""
    weight = torch.cat([weights[f"{name}.weight"] for name in names], dim=1).T
    biases = [weights[f"{name}.bias"] for name in names if f"{name}.bias" in weights]
    layer = nn.Linear(*reversed(weight.shape), bias=bool(biases), device="meta")
    layer.weight = nn.Parameter(weight.contiguous())
    if biases:
        layer.bias = nn.Parameter(torch.cat(biases))
    return layer


def make_norm(weights: Weights, name: str, config: ModelConfig) -> nn.Module:
    """A layer or RMS norm."""
    make = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    layer = make(config.width, eps=config.epsilon)
    with torch.no_grad():
        for part, parameter in layer.named_parameters():
            parameter.copy_(weights[f"{name}.{part}"])
    return layer


def biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """softmax(scale q kᵀ + bias) v in plain products.

    scaled_dot_product_attention has no fast path for a bias that wants a gradient: with it, steps of the smallest
    encoder-decoder took 1.05 times as long.
    """
    return F.softmax(scale * q @ k.transpose(-1, -2) + bias, dim=-1) @ v


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values; or cross-attention with one for the latter."""

    def __init__(self, weights: Weights, name: str, config: ModelConfig, *, cross: bool = False) -> None:
        super().__init__()
        self.heads, self.scale = config.heads, None if config.scaled_scores else 1.0
        self.query = linear(weights, f"{name}.query") if cross else None
        packed = ("key", "value") if cross else ("query", "key", "value")
        self.packed = linear(weights, *(f"{name}.{part}" for part in packed))
        self.output = linear(weights, f"{name}.output")

    def forward(self, x: Tensor, memory: Tensor | None = None, bias: Tensor | None = None, causal: bool = False):
        parts = list(self.packed(x if memory is None else memory).chunk(2 if self.query else 3, dim=-1))
        if self.query is not None:
            parts.insert(0, self.query(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if bias is None:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=self.scale)
        else:
            out = biased_attention(q, k, v, bias, self.scale)
        return self.output(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, cross-attention where there is one, and the feed-forward network, each with a norm before or after."""

    def __init__(self, weights: Weights, name: str, config: ModelConfig) -> None:
        super().__init__()
        cross = f"{name}.cross_attention.query.weight" in weights
        self.pre, self.activation = config.norm_position == "pre", ACTIVATIONS[config.activation]
        self.norm = make_norm(weights, f"{name}.attention_norm", config)
        self.attention = Attention(weights, f"{name}.attention", config)
        self.cross_norm = make_norm(weights, f"{name}.cross_attention_norm", config) if cross else None
        self.cross = Attention(weights, f"{name}.cross_attention", config, cross=True) if cross else None
        self.forward_norm = make_norm(weights, f"{name}.feed_forward_norm", config)
        self.up, self.down = (linear(weights, f"{name}.feed_forward.{part}") for part in ("up", "down"))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))

    def forward(self, x: Tensor, bias: Tensor | None, causal: bool, memory: Tensor | None = None) -> Tensor:
        if not self.pre:
            x = self.norm(x + self.attention(x, bias=bias, causal=causal))
            return self.forward_norm(x + self.feed_forward(x))
        x = x + self.attention(self.norm(x), bias=bias, causal=causal)
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), memory)
        return x + self.feed_forward(self.forward_norm(x))


class Stack(nn.Module):
    """Positions, blocks, and with pre-norm a final norm."""

    def __init__(self, weights: Weights, name: str, config: ModelConfig, length: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        layers = {key.split(".")[2] for key in weights if key.startswith(f"{name}.blocks.")}
        self.blocks = nn.ModuleList(Block(weights, f"{name}.blocks.{i}", config) for i in range(len(layers)))
        self.norm = make_norm(weights, f"{name}.norm", config) if config.norm_position == "pre" else None
        self.embedding_norm = make_norm(weights, f"{name}.embedding_norm", config) if config.embedding_norm else None
        for part in ("positions", "segments", "relative"):
            found = weights.get(f"{name}.{part}.weight")
            self.register_parameter(part, None if found is None else nn.Parameter(found))
        if self.relative is not None:
            places = torch.arange(length)
            kinds = {"num_buckets": config.buckets, "max_distance": config.max_distance, "bidirectional": not causal}
            self.buckets = T5Attention._relative_position_bucket(places[None] - places[:, None], **kinds)
            self.later = torch.full((length, length), -torch.inf).triu(1) if causal else None

    def bias(self) -> Tensor:
        """T5's bias of the scores, `1 h t s`, the same in all layers; the causal mask is in it."""
        bias = F.embedding(self.buckets, self.relative).permute(2, 0, 1)[None]
        return bias if self.later is None else bias + self.later

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        if self.segments is not None:
            x = x + self.segments[0]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        bias = None if self.relative is None else self.bias()
        for block in self.blocks:
            x = block(x, bias, self.causal and bias is None, memory)
        return x if self.norm is None else self.norm(x)


class Model(nn.Module):
    """What the three have in common: one table of tokens, which is the output layer too."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(weights["tokens.weight"])
        self.config = config


class Decoder(Model):
    def __init__(self, weights: Weights, config: ModelConfig, batch: Weights) -> None:
        super().__init__(weights, config)
        self.stack = Stack(weights, "stack", config, batch["inputs"].shape[1], causal=True)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        x = self.stack(F.embedding(inputs, self.tokens))
        return F.cross_entropy(F.linear(x.flatten(0, 1), self.tokens), targets.flatten())


class Encoder(Model):
    """No mask: no row of the batch is padded, or holds two documents."""

    def __init__(self, weights: Weights, config: ModelConfig, batch: Weights) -> None:
        super().__init__(weights, config)
        self.stack = Stack(weights, "stack", config, batch["inputs"].shape[1], causal=False)
        self.dense = linear(weights, "head.dense")
        self.norm = make_norm(weights, "head.norm", config)
        self.bias = nn.Parameter(weights["head.bias"])

    def forward(self, inputs: Tensor, targets: Tensor, places: Tensor) -> Tensor:
        """The loss at the places that have a target, counted through the flattened batch."""
        x = self.stack(F.embedding(inputs, self.tokens)).flatten(0, 1)[places]
        x = self.norm(ACTIVATIONS[self.config.activation](self.dense(x)))
        return F.cross_entropy(F.linear(x, self.tokens, self.bias), targets)


class EncoderDecoder(Model):
    def __init__(self, weights: Weights, config: ModelConfig, batch: Weights) -> None:
        super().__init__(weights, config)
        self.encoder = Stack(weights, "encoder", config, batch["inputs"].shape[1], causal=False)
        self.decoder = Stack(weights, "decoder", config, batch["decoder_inputs"].shape[1], causal=True)

    def forward(self, inputs: Tensor, decoder_inputs: Tensor, targets: Tensor) -> Tensor:
        memory = self.encoder(F.embedding(inputs, self.tokens))
        x = self.decoder(F.embedding(decoder_inputs, self.tokens), memory) * self.config.width**-0.5
        return F.cross_entropy(F.linear(x.flatten(0, 1), self.tokens), targets.flatten())


MODELS = {"decoder": Decoder, "encoder": Encoder, "encoder-decoder": EncoderDecoder}


def arguments(batch: Weights, mode: str) -> dict[str, Tensor]:
    """What a model is called with for a batch of ours."""
    if mode == "decoder":
        return {name: batch[name] for name in ("inputs", "targets")}
    if mode == "encoder":
        places = batch["weights"].flatten().nonzero()[:, 0]
        return {"inputs": batch["inputs"], "targets": batch["targets"].flatten()[places], "places": places}
    return {name: batch[name] for name in ("inputs", "decoder_inputs", "targets")}
