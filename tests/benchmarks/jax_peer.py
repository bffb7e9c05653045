"""JAX's training step: a decoder, forward, backward, clipping and AdamW in one compiled function.

XLA takes all cores that the process may use, and updates the weights in place where it is told that they may go.

Read before: `torch_peer.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .cases import BETAS, CLIP, EPSILON, LEARNING_RATE, WEIGHT_DECAY, read_case

Weights = dict[str, jax.Array]


def norm(w: Weights, name: str, x: jax.Array, epsilon: float) -> jax.Array:
    """A layer norm."""
    return jax.nn.standardize(x, epsilon=epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: Weights, name: str, x: jax.Array) -> jax.Array:
    """x W + b."""
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def decoder_loss(w: Weights, inputs: jax.Array, targets: jax.Array, *, config: Any) -> jax.Array:
    """Mean cross-entropy of GPT-2's architecture; queries, keys and values are one array of weights."""
    x = w["tokens.weight"][inputs] + w["stack.positions.weight"][: inputs.shape[1]]
    for i in range(config.layers):
        block = f"stack.blocks.{i}"
        y = linear(w, f"{block}.attention.packed", norm(w, f"{block}.attention_norm", x, config.epsilon))
        q, k, v = (part.reshape(*x.shape[:2], config.heads, -1) for part in jnp.split(y, 3, axis=-1))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        x = x + linear(w, f"{block}.attention.output", y)
        y = linear(w, f"{block}.feed_forward.up", norm(w, f"{block}.feed_forward_norm", x, config.epsilon))
        x = x + linear(w, f"{block}.feed_forward.down", jax.nn.gelu(y, approximate=True))
    logits = norm(w, "stack.norm", x, config.epsilon) @ w["tokens.weight"].T
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def packed(weights: dict[str, Any], layers: int) -> Weights:
    """Our weights, those of queries, keys and values beside each other."""
    weights = dict(weights)
    for i in range(layers):
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"stack.blocks.{i}.attention.{name}.{kind}") for name in ("query", "key", "value")]
            weights[f"stack.blocks.{i}.attention.packed.{kind}"] = jnp.concatenate(parts, axis=-1)
    return {name: jnp.array(array) for name, array in weights.items()}


def prepare(folder: Path, threads: int, form: str) -> Callable[[], list[float]]:
    """A step that returns its loss and the norm of its gradient; of decoders only."""
    case = read_case(folder)
    weights, inputs, targets = packed(case.weights, case.config.layers), case.batch.inputs, case.batch.targets
    loss_of = functools.partial(decoder_loss, inputs=inputs, targets=targets, config=case.config)
    beta1, beta2 = BETAS

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(weights: Weights, first: Weights, second: Weights, step: int) -> tuple:
        loss, gradients = jax.value_and_grad(loss_of)(weights)
        total = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradients.values()))
        scale = jnp.minimum(1.0, CLIP / total)
        for name, g in gradients.items():
            g = g * scale
            first[name] = beta1 * first[name] + (1 - beta1) * g
            second[name] = beta2 * second[name] + (1 - beta2) * g * g
            mean, square = first[name] / (1 - beta1**step), second[name] / (1 - beta2**step)
            decay = 1 - LEARNING_RATE * WEIGHT_DECAY * (g.ndim >= 2)
            weights[name] = weights[name] * decay - LEARNING_RATE * mean / (jnp.sqrt(square) + EPSILON)
        return weights, first, second, loss, total

    state = [weights, *(jax.tree.map(jnp.zeros_like, weights) for _ in range(2))]
    steps = 0

    def step() -> list[float]:
        nonlocal steps
        steps += 1
        *state[:], loss, total = update(*state, steps)
        return [float(loss), float(total)]

    return step
