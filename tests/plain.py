"""The decoder once more, in plain NumPy and loops on the host: what the layers and models are held to.

Nothing here knows a Tensor, a kernel or an infinite score: attention walks over the queries and leaves out the keys
that one may not see. Parameters are a dictionary as `Module.parameters` names them, with NumPy arrays. `drop(shape)`
draws the factors of a dropout, 0 or 1 / (1 - rate), in the order in which the model draws them.
"""

import math

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


ACTIVATIONS = {
    "gelu": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu-exact": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x * sigmoid(x),
}


def elementwise(function, x):
    return np.vectorize(function, otypes=[np.float64])(x)


def keep_all(shape):
    return np.ones(shape)


def part(parameters, name):
    """The parameters of one attribute of a module, without its name."""
    return {path.removeprefix(f"{name}."): x for path, x in parameters.items() if path.startswith(f"{name}.")}


def linear(parameters, name, x):
    return x @ parameters[f"{name}.weight"] + parameters.get(f"{name}.bias", 0.0)


def normalise(parameters, x, *, norm, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True) if norm == "layer" else x
    size = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + epsilon)
    return centred / size * parameters["weight"] + parameters.get("bias", 0.0)


def attend(q, k, v, *, visible, factor, scale=None):
    """One query of one head at a time; `visible` and `factor` are `b h t s`."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    out = np.zeros(q.shape)
    for b, h, t in np.ndindex(*q.shape[:3]):
        seen = np.flatnonzero(visible[b, h, t])
        if seen.size:
            scores = np.array([q[b, h, t] @ k[b, h, s] * scale for s in seen])
            shares = np.exp(scores - np.logaddexp.reduce(scores))
            out[b, h, t] = sum(share * factor[b, h, t, s] * v[b, h, s] for share, s in zip(shares, seen))
    return out


def turn(x, angles):
    """Channel i and channel i + c/2 as the two parts of a complex number, turned by an angle."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def attention(parameters, x, *, heads, memory=None, mask=None, causal=False, angles=None, drop=keep_all):
    """`mask` is `b s`, `angles` `t c/2`."""
    source = x if memory is None else memory
    q, k, v = (linear(parameters, name, z) for name, z in (("query", x), ("key", source), ("value", source)))
    q, k, v = (np.stack(np.split(z, heads, axis=-1), axis=1) for z in (q, k, v))  # b h t c
    if angles is not None:
        q, k = turn(q, angles), turn(k, angles)
    visible = np.ones((*q.shape[:3], k.shape[2]), bool)
    if mask is not None:
        visible[...] = mask[:, None, None, :]
    if causal:
        for t in range(q.shape[2]):
            visible[:, :, t, k.shape[2] - q.shape[2] + t + 1 :] = False
    out = attend(q, k, v, visible=visible, factor=drop(visible.shape))
    return linear(parameters, "output", np.concatenate(list(np.moveaxis(out, 1, 0)), axis=-1))


def feed_forward(parameters, x, *, activation):
    up = linear(parameters, "up", x)
    if "gate.weight" in parameters:
        hidden = elementwise(ACTIVATIONS[activation], linear(parameters, "gate", x)) * up
    else:
        hidden = elementwise(ACTIVATIONS[activation], up)
    return linear(parameters, "down", hidden)


def block(parameters, x, *, norm, pre_norm, activation, epsilon, drop=keep_all, **settings):
    """`settings` are those of the attention."""
    parts = {
        "attention": lambda y: attention(part(parameters, "attention"), y, drop=drop, **settings),
        "feed_forward": lambda y: feed_forward(part(parameters, "feed_forward"), y, activation=activation),
    }
    for name, function in parts.items():
        normed = {"parameters": part(parameters, f"{name}_norm"), "norm": norm, "epsilon": epsilon}
        y = function(normalise(x=x, **normed) if pre_norm else x)
        x = x + y * drop(x.shape)
        x = x if pre_norm else normalise(x=x, **normed)
    return x


def decoder(parameters, ids, config, drop=keep_all):
    """Logits, `b t v`."""
    x, t, pre_norm = parameters["tokens.weight"][ids], ids.shape[1], config.norm_position == "pre"
    if config.positions == "learned":
        x = x + parameters["stack.positions.weight"][:t]
    elif config.positions == "sinusoidal":
        for position, i in np.ndindex(t, config.width // 2):
            angle = position / 10000 ** (2 * i / config.width)
            x[:, position, 2 * i] += math.sin(angle)
            x[:, position, 2 * i + 1] += math.cos(angle)
    angles = None
    if config.positions == "rotary":
        pairs = config.width // config.heads // 2
        angles = np.array([[position / 10000 ** (i / pairs) for i in range(pairs)] for position in range(t)])
    x = x * drop(x.shape)
    settings = {"norm": config.norm, "epsilon": config.epsilon}
    for i in range(config.layers):
        x = block(
            part(parameters, f"stack.blocks.{i}"),
            x,
            pre_norm=pre_norm,
            activation=config.activation,
            drop=drop,
            heads=config.heads,
            causal=True,
            angles=angles,
            **settings,
        )
    if pre_norm:
        x = normalise(part(parameters, "stack.norm"), x, **settings)
    head = parameters["tokens.weight"].T if config.tied else parameters["head.output.weight"]
    return x @ head
