"""The models once more, in plain NumPy and loops on the host: what the layers and models are held to.

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


def attend(q, k, v, *, visible, factor, bias=None, scale=None):
    """One query of one head at a time; `visible` and `factor` are `b h t s`, `bias` `h t s`."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    out = np.zeros(q.shape)
    for b, h, t in np.ndindex(*q.shape[:3]):
        seen = np.flatnonzero(visible[b, h, t])
        if seen.size:
            scores = np.array([q[b, h, t] @ k[b, h, s] * scale for s in seen])
            scores += 0.0 if bias is None else bias[h, t, seen]
            shares = np.exp(scores - np.logaddexp.reduce(scores))
            out[b, h, t] = sum(share * factor[b, h, t, s] * v[b, h, s] for share, s in zip(shares, seen))
    return out


def turn(x, angles):
    """Channel i and channel i + c/2 as the two parts of a complex number, turned by an angle."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def attention(
    parameters, x, *, heads, memory=None, mask=None, causal=False, angles=None, bias=None, scale=None, drop=keep_all
):
    """`mask` is `b s` or `b t s`, `angles` `t c/2`, `bias` `h t s`."""
    source = x if memory is None else memory
    q, k, v = (linear(parameters, name, z) for name, z in (("query", x), ("key", source), ("value", source)))
    q, k, v = (np.stack(np.split(z, heads, axis=-1), axis=1) for z in (q, k, v))  # b h t c
    if angles is not None:
        q, k = turn(q, angles), turn(k, angles)
    visible = np.ones((*q.shape[:3], k.shape[2]), bool)
    if mask is not None:
        visible[...] = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    if causal:
        for t in range(q.shape[2]):
            visible[:, :, t, k.shape[2] - q.shape[2] + t + 1 :] = False
    out = attend(q, k, v, visible=visible, factor=drop(visible.shape), bias=bias, scale=scale)
    return linear(parameters, "output", np.concatenate(list(np.moveaxis(out, 1, 0)), axis=-1))


def feed_forward(parameters, x, *, activation):
    up = linear(parameters, "up", x)
    if "gate.weight" in parameters:
        hidden = elementwise(ACTIVATIONS[activation], linear(parameters, "gate", x)) * up
    else:
        hidden = elementwise(ACTIVATIONS[activation], up)
    return linear(parameters, "down", hidden)


def block(
    parameters, x, *, norm, pre_norm, activation, epsilon, memory=None, memory_mask=None, drop=keep_all, **settings
):
    """`settings` are those of the self-attention."""
    look = {name: settings[name] for name in ("heads", "scale") if name in settings}
    parts = {
        "attention": lambda y: attention(part(parameters, "attention"), y, drop=drop, **settings),
        "cross_attention": lambda y: attention(
            part(parameters, "cross_attention"), y, memory=memory, mask=memory_mask, drop=drop, **look
        ),
        "feed_forward": lambda y: feed_forward(part(parameters, "feed_forward"), y, activation=activation),
    }
    if memory is None:
        del parts["cross_attention"]
    for name, function in parts.items():
        normed = {"parameters": part(parameters, f"{name}_norm"), "norm": norm, "epsilon": epsilon}
        y = function(normalise(x=x, **normed) if pre_norm else x)
        x = x + y * drop(x.shape)
        x = x if pre_norm else normalise(x=x, **normed)
    return x


def bucket(distance, *, buckets, max_distance, bidirectional):
    """T5's bucket for the distance of a key from its query, by the distance at which each bucket begins."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    begins = [exact * (max_distance / exact) ** (i / (buckets - exact)) for i in range(buckets - exact)]
    return first + exact + sum(distance > begin - 1e-4 for begin in begins) - 1


def relative_bias(table, queries, keys, **kinds):
    """`h t s`."""
    bias = np.zeros((table.shape[1], queries, keys))
    for t, s in np.ndindex(queries, keys):
        bias[:, t, s] = table[bucket(s - t, **kinds)]
    return bias


def sinusoid(position, width):
    pairs = [position / 10000 ** (2 * i / width) for i in range(width // 2)]
    return np.array([f(angle) for angle in pairs for f in (math.sin, math.cos)])


def stack(parameters, x, config, *, layers, causal, mask=None, segments=None, positions=None, drop=keep_all, **memory):
    """Hidden states of embedded tokens `b t d`; `mask` is `b s` or `b t s`."""
    b, t, pre_norm = *x.shape[:2], config.norm_position == "pre"
    places = np.tile(np.arange(t), (b, 1)) if positions is None else positions
    if config.scaled_embedding:
        x = x * math.sqrt(config.width)
    if config.positions == "learned":
        x = x + parameters["positions.weight"][places]
    elif config.positions == "sinusoidal":
        x = x + np.array([[sinusoid(place, config.width) for place in row] for row in places])
    if config.segments:
        x = x + parameters["segments.weight"][np.zeros((b, t), int) if segments is None else segments]
    settings = {"norm": config.norm, "epsilon": config.epsilon}
    if config.embedding_norm:
        x = normalise(part(parameters, "embedding_norm"), x, **settings)
    angles = bias = None
    if config.positions == "rotary":
        pairs = config.channels // 2
        angles = np.array([[place / 10000 ** (i / pairs) for i in range(pairs)] for place in range(t)])
    elif config.positions == "relative":
        kinds = {"buckets": config.buckets, "max_distance": config.max_distance, "bidirectional": not causal}
        bias = relative_bias(parameters["relative.weight"], t, t, **kinds)
    x = x * drop(x.shape)
    for i in range(layers):
        x = block(
            part(parameters, f"blocks.{i}"),
            x,
            pre_norm=pre_norm,
            activation=config.activation,
            heads=config.heads,
            scale=None if config.scaled_scores else 1.0,
            causal=causal,
            mask=mask,
            angles=angles,
            bias=bias,
            drop=drop,
            **memory,
            **settings,
        )
    return normalise(part(parameters, "norm"), x, **settings) if pre_norm else x


def head(parameters, x, config):
    """Logits of hidden states."""
    if config.head == "transform":
        x = elementwise(ACTIVATIONS[config.activation], linear(parameters, "head.dense", x))
        x = normalise(part(parameters, "head.norm"), x, norm=config.norm, epsilon=config.epsilon)
    if config.scaled_head:
        x = x / math.sqrt(config.width)
    weight = parameters["tokens.weight"].T if config.tied else parameters["head.output.weight"]
    return x @ weight + parameters.get("head.bias", 0.0)


def decoder(parameters, ids, config, drop=keep_all, **settings):
    """Logits, `b t v`."""
    x = parameters["tokens.weight"][ids]
    x = stack(part(parameters, "stack"), x, config, layers=config.layers, causal=True, drop=drop, **settings)
    return head(parameters, x, config)


def encoder(parameters, ids, config, drop=keep_all, **settings):
    """Logits, `b t v`, and the next-sentence classifier's, `b 2`, where there is one."""
    x = parameters["tokens.weight"][ids]
    x = stack(part(parameters, "stack"), x, config, layers=config.layers, causal=False, drop=drop, **settings)
    pair = None
    if config.next_sentence:
        pair = linear(parameters, "next_sentence", np.tanh(linear(parameters, "pooler", x[:, 0])))
    return head(parameters, x, config), pair


def encoder_decoder(parameters, source, target, config, mask=None, drop=keep_all, **settings):
    """Logits, `b t v`."""
    table, sizes = parameters["tokens.weight"], {"config": config, "drop": drop}
    memory = stack(
        part(parameters, "encoder"), table[source], layers=config.layers, causal=False, mask=mask, **sizes, **settings
    )
    seen = {"memory": memory, "memory_mask": mask}
    layers = config.decoder_layers or config.layers
    x = stack(part(parameters, "decoder"), table[target], layers=layers, causal=True, **sizes, **seen)
    return head(parameters, x, config)
