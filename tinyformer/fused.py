"""Fast kernels, each paired with the composed function that defines it.

`fused("layer_norm", reference=functional.layer_norm)` is called just like its reference. Where the backend of the
inputs has a kernel of that name that supports the case, it runs as one node of the graph; elsewhere the reference
does. The layers in `nn/` call these, and so never know what a backend can do. A test walks `registry` and holds every
kernel of every backend to its reference, values and gradients.

Read before: `functional.py`. Read next: `nn/`; a backend's side is `backends/numpy/kernels.py`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from . import functional
from .backends import Undrawn
from .tensor import Tensor, primitive

registry: dict[str, Callable[..., Tensor]] = {}


def fused(
    name: str, *, reference: Callable[..., Tensor], parts: Callable[..., Tensor] | None = None
) -> Callable[..., Tensor]:
    """The reference function, computed by a backend's kernel of that name where there is one.

    Args:
        name: of the kernel in `backend.kernels`.
        reference: the composed function that defines it; its parameters before the `*` are arrays.
        parts: the same out of kernels for its parts, where there is none for the whole; None: the reference.
    """
    parameters = inspect.signature(reference).parameters.values()
    arrays = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    required = sum(p.default is p.empty for p in arrays)
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def run(xp, *inputs, kernel, metadata):
        out, saved = kernel.forward(xp, *inputs, **metadata)
        return out, lambda g: kernel.backward(xp, saved, g)

    run.__name__ = name
    operation = primitive(run)

    @functools.wraps(reference)
    def dispatch(*inputs: Any, **given: Any) -> Tensor:
        if len(inputs) < required:  # some by keyword, or missing, which the reference says best
            return reference(*inputs, **given)
        for parameter in arrays[len(inputs) :]:
            inputs += (given.pop(parameter.name, parameter.default),)
        metadata = defaults | given
        kernel = inputs[0].backend.kernels.get(name)
        raw = [x.array if isinstance(x, Tensor) else x for x in inputs]
        if kernel is None or (kernel.supports and not kernel.supports(*raw, **metadata)):
            inputs = (x.drawn() if isinstance(x, Undrawn) else x for x in inputs)
            return (parts or reference)(*inputs, **metadata)
        return operation(*inputs, kernel=kernel, metadata=metadata)

    registry[name] = dispatch
    return dispatch


attention = fused("attention", reference=functional.attention)
cross_entropy = fused("cross_entropy", reference=functional.cross_entropy)
dropout = fused("dropout", reference=functional.dropout)
gated = fused("gated", reference=functional.gated)
gelu = fused("gelu", reference=functional.gelu)
layer_norm = fused("layer_norm", reference=functional.layer_norm)
linear = fused("linear", reference=functional.linear)
relu = fused("relu", reference=functional.relu)
rms_norm = fused("rms_norm", reference=functional.rms_norm)
rotary = fused("rotary", reference=functional.rotary)
silu = fused("silu", reference=functional.silu)
softmax = fused("softmax", reference=functional.softmax)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu-exact": functools.partial(gelu, approximate=False),
    "relu": relu,
    "silu": silu,
}


def _feed_forward(x, up, down, up_bias, down_bias, *, activation):
    return linear(ACTIVATIONS[activation](linear(x, up, up_bias)), down, down_bias)


feed_forward = fused("feed_forward", reference=functional.feed_forward, parts=_feed_forward)
