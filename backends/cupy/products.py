"""Matrix products on the GPU: any strides and batches, in cuBLASLt, at the precision that the caller chose.

CuPy's own products copy transposed views of more than two dimensions, know no bfloat16 there and no TF32, and refuse to
be recorded into a CUDA graph. So they do only what is left: integers, float16, and all where cuBLASLt is missing.

Each kind of product is planned once, at its first use (`cublaslt.py`). Recording a graph comes after a step that ran,
and finds every plan made and the memory that algorithms work in allocated.

Read before: `cublaslt.py`. Read next: `linear.py`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np

from . import cublaslt
from .cublaslt import Lie, Plan, Product

ROUNDINGS = ("float32", "tf32")

_rounding: contextvars.ContextVar[str] = contextvars.ContextVar("rounding", default="float32")
_plans: dict[tuple[int, Product], Plan | None] = {}
_workspaces: dict[tuple[int, int], Any] = {}


@contextlib.contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Inside, products of float32 matrices round their factors so: "float32" for not at all, or "tf32", to 10 bits."""
    if precision not in ROUNDINGS:
        raise ValueError(f"products round to {' or '.join(ROUNDINGS)}, not to {precision}")
    token = _rounding.set(precision)
    try:
        yield
    finally:
        _rounding.reset(token)


def current_rounding() -> str:
    """What `rounding` was entered with."""
    return _rounding.get()


def matmul(a: Any, b: Any) -> Any:
    """The product of the array API: `... n k` times `... k m`, batches broadcast; vectors lose their axis again."""
    if not (a.ndim and b.ndim) or a.dtype != b.dtype or not planned(a.dtype):
        return _cupys(a, b)
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"a product needs as many columns as rows, not {left.shape[-1]} and {right.shape[-2]}")
    out = _batches(left, right)
    if a.ndim == 1:
        out = out[..., 0, :]
    return out[..., 0] if b.ndim == 1 else out


def product(a: Any, b: Any, out: Any) -> None:
    """out = a b, of two dimensions; `out` has its rows or its columns together."""
    if not multiply(a, b, out):
        out[...] = cupy.matmul(a, b)


def multiply(a: Any, b: Any, out: Any, epilogue: str | None = None, *, vector: Any = None, extra: Any = None) -> bool:
    """out = a b, of two dimensions, with what `epilogue` says. False, and nothing is done, where there is no way to.

    Args:
        a: `n k`, of any strides; so is b.
        b: `k m`.
        out: `n m`, with its rows or its columns together.
        epilogue: with `vector`, "bias" to add it to each row, "sums" to write the sum of b's rows to it; with `extra`,
            an array by rows of the shape of `out`, "gelu" to write a b (and `vector`, if given) there and its gelu to
            `out`, "slope" to multiply a b by gelu's slope at `extra`.
        vector: `m`, contiguous.
        extra: `n m`, contiguous.
    """
    if not planned(a.dtype):
        return False
    (a, of_a), (b, of_b), of_out = _factor(a, ()), _factor(b, ()), _lie(out, ())
    if 0 in out.shape or a.shape[1] == 0:
        if epilogue:
            return False
        out[...] = 0
        return True
    return _run(a, of_a, b, of_b, out, of_out, 1, epilogue, vector, extra)


@functools.cache
def planned(dtype: Any) -> bool:
    """Whether products of this dtype go through cuBLASLt."""
    return np.dtype(dtype).name in cublaslt.TYPES and library() is not None


@functools.cache
def library() -> cublaslt.Library | None:
    """cuBLASLt; warns once where it is missing."""
    found = cublaslt.find()
    if found is None:
        text = f"cuBLASLt was not found, so products are slow, and no step can be recorded: {cublaslt.INSTALL}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return found


def _batches(left, right):
    """The product of matrices or batches of them, as few calls as possible."""
    if left.ndim > 2 and right.ndim == 2:  # one product of many rows, where they are evenly apart
        rows = left.shape[:-1]
        if left.size and _step(rows, left.strides[:-1]) is not None:
            return _batches(left.reshape(-1, left.shape[-1]), right).reshape(*rows, right.shape[1])
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    n, k, m = *left.shape[-2:], right.shape[-1]
    shape = (*batch, n, m)
    if k == 0 or 0 in shape:
        return cupy.zeros(shape, left.dtype)
    out = cupy.empty(shape, left.dtype)
    (left, of_left), (right, of_right) = _factor(left, batch), _factor(right, batch)
    count = math.prod(batch)
    if _run(left, of_left, right, of_right, out, Lie(n, m, m, True, n * m), count):
        return out
    return _cupys(left, right)


def _cupys(a, b):
    """CuPy's own product, matrix by matrix where it has none of batches."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if not batch or a.dtype.name != "bfloat16":
        return cupy.matmul(a, b)
    a, b = (cupy.broadcast_to(x, (*batch, *x.shape[-2:])) if x.ndim > 1 else x for x in (a, b))
    pairs = ((a if a.ndim == 1 else a[at], b if b.ndim == 1 else b[at]) for at in np.ndindex(*batch))
    products = [cupy.matmul(one, other) for one, other in pairs]
    return cupy.stack(products).reshape(*batch, *products[0].shape)


def _factor(x, batch):
    """An array and how it lies; a copy, where it does not lie as a product needs it."""
    lie = _lie(x, batch)
    if lie is None:
        x = cupy.ascontiguousarray(x)
        lie = _lie(x, batch)
    if lie is None:  # only some of the axes of the batch are repeated
        x = cupy.ascontiguousarray(cupy.broadcast_to(x, (*batch, *x.shape[-2:])))
        lie = _lie(x, batch)
    return x, lie


def _lie(x, batch) -> Lie | None:
    """How the matrices of an array lie, where they do so evenly and have one axis without gaps."""
    size = x.itemsize
    *outer, rows, columns = x.shape
    *steps, down, across = [stride // size for stride in x.strides]
    new = len(batch) - len(outer)
    step = _step(batch[new:], [0 if n == 1 else s for n, s in zip(outer, steps)]) if outer else 0
    if step is None or (step and new and math.prod(batch[:new]) > 1):
        return None
    if (across == 1 or columns == 1) and (rows == 1 or down >= columns):
        return Lie(rows, columns, down if rows > 1 else columns, True, step)
    if down == 1 and across >= rows:
        return Lie(rows, columns, across, False, step)
    return None


def _step(lengths, strides) -> int | None:
    """The one stride at which axes are walked through from the last to the first; None where it takes several."""
    step = span = None
    for length, stride in zip(reversed(lengths), reversed(strides)):
        if length == 1:
            continue
        if step is None:
            step, span = stride, stride
        if stride != span or stride < 0:
            return None
        span *= length
    return step or 0


def _run(a, of_a, b, of_b, out, of_out, count, epilogue=None, vector=None, extra=None) -> bool:
    """Enqueue a product on the current stream, on the first use after planning it."""
    swapped = of_out.by_rows
    if swapped:  # outᵀ = bᵀ aᵀ
        a, of_a, b, of_b, of_out = b, of_b.turned(), a, of_a.turned(), of_out.turned()
    addresses = [None if x is None else x.data.ptr for x in (a, b, out, vector, extra)]
    dtype = out.dtype.name
    compute = dtype if dtype == "float64" else _rounding.get() if dtype == "float32" else "float32"
    alignments = tuple(0 if x is None else cublaslt.alignment(x) for x in addresses)
    code = _EPILOGUES.get((epilogue, swapped, vector is None))
    if code is None:
        return False
    kind = Product(of_a, of_b, of_out, count, dtype, compute, code, alignments)
    device = cupy.cuda.runtime.getDevice()
    key = (device, kind)
    if key not in _plans:
        size = _workspace_size(device)
        _plans[key] = library().plan(library().handle(device), kind, size)
    plan = _plans[key]
    if plan is None:
        return False
    stream = cupy.cuda.get_current_stream().ptr
    workspace = _workspace(device, stream) if plan.workspace else (0, 0)
    if not plan.run(*addresses, workspace, stream):
        _plans[key] = None
        return False
    return True


# By name, whether the factors are swapped, and whether there is no vector.
_EPILOGUES = {
    (None, True, True): cublaslt.PLAIN,
    (None, False, True): cublaslt.PLAIN,
    ("bias", True, False): cublaslt.BIAS,
    ("sums", True, False): cublaslt.SUMS_A,  # b is the first factor then
    ("sums", False, False): cublaslt.SUMS_B,
    ("gelu", True, False): cublaslt.GELU_BIAS,
    ("gelu", True, True): cublaslt.GELU,
    ("slope", True, True): cublaslt.GELU_SLOPE,
}


@functools.cache
def _workspace_size(device: int) -> int:
    return cublaslt.workspace_size(int(cupy.cuda.Device(device).compute_capability))


def _workspace(device: int, stream: int) -> tuple[int, int]:
    """Address and size of the memory that algorithms work in; one of each stream, whose products come in turn."""
    memory = _workspaces.get((device, stream))
    if memory is None:
        memory = _workspaces[device, stream] = cupy.cuda.alloc(_workspace_size(device))
    return memory.ptr, _workspace_size(device)
