"""The functions of the module: NumPy's, as far as CuPy has them, with CuPy's settings and CuPy's gaps."""

import inspect
from pathlib import Path

import numpy as np

from . import state
from .array import ndarray
from .calls import BFLOAT16, compute, device_copy, into, raw

# What NumPy 2 has at its top and CuPy 14.2 lacks.
LACKING = frozenset((Path(__file__).parent / "lacking.txt").read_text(encoding="ascii").split())
# What is at its top, but not taken over here: submodules.
UNCOVERED = {"random", "linalg", "fft", "polynomial", "testing", "lib", "exceptions", "typing"}

# Of NumPy's settings, those that CuPy's function has not.
WITHOUT = {"initial", "where", "subok", "mode", "like", "device", "signature", "extobj"}
KEEPS = {"pad": {"mode"}}

# CuPy runs these by cuBLAS or cuRAND, which it refuses inside a capture.
LIBRARY = {"matmul", "dot", "tensordot", "inner", "outer", "vdot", "einsum", "kron"}
# What they give decides about shapes, so that the host waits for it.
WAITING = {
    *("nonzero", "flatnonzero", "argwhere", "extract", "compress", "unique", "unique_all", "unique_counts"),
    *("unique_inverse", "unique_values", "bincount", "histogram", "trim_zeros", "isin", "in1d", "setdiff1d"),
}
# Written into what comes first.
WRITING = {"copyto", "put", "place", "putmask", "fill_diagonal", "put_along_axis"}
# Elementwise kernels that have no version for bfloat16, and take it as float32.
SINGLE = {"where", "clip", "logical_not", "logical_xor", "divmod", "nan_to_num", "interp", "angle"}
# Reductions of bfloat16 add up in float32, and round once.
ADDING = {"sum", "prod", "mean", "cumsum", "cumprod", "matmul", "dot", "tensordot", "einsum", "std", "var", "inner"}
# NumPy's functions that take no arrays, or only ask for their types.
PLAIN = {"isdtype", "broadcast_shapes", "can_cast", "issubdtype", "iinfo", "finfo", "dtype", "isscalar", "iterable"}
CREATING = {
    "zeros",
    "ones",
    "full",
    "arange",
    "eye",
    "identity",
    "linspace",
    "logspace",
    "tri",
    "indices",
    "fromfunction",
}


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray):
        same = dtype is None or a.dtype == np.dtype(dtype)
        return a if same and not copy else a.astype(dtype or a.dtype)
    if isinstance(a, list | tuple) and _has_arrays(a):
        stacked = compute(np.stack, [asarray(part) for part in a])
        return stacked if dtype is None else stacked.astype(dtype)
    host = np.asarray(a)
    if host.dtype.kind not in "biufc" and host.dtype != BFLOAT16:
        raise ValueError(f"Unsupported dtype {host.dtype}")
    return device_copy(host, dtype)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    made = asarray(obj, dtype, copy=copy)
    return made.reshape((1,) * max(ndmin - made.ndim, 0) + made.shape)


def _has_arrays(a):
    return any(isinstance(part, ndarray) or (isinstance(part, list | tuple) and _has_arrays(part)) for part in a)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a, order=order)


def ascontiguousarray(a, dtype=None):
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous and a.ndim else compute(np.array, a, order="C", ndmin=1, copy=True)


def asfortranarray(a, dtype=None):
    a = asarray(a, dtype)
    return a if a.flags.f_contiguous else compute(np.array, a, order="F", copy=True)


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype, order=order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    model = np.empty_like(raw(prototype), dtype, order, shape=shape)
    return ndarray(model.shape, model.dtype, strides=model.strides if model.size else None)


def astype(x, dtype, /, *, copy=True):
    return x.astype(dtype, copy=copy)


def get_array_module(*args):
    from . import module

    return module() if any(isinstance(arg, ndarray) for arg in args) else np


def where(condition, x=None, y=None):
    if x is None and y is None:
        return _function("nonzero")(condition)
    return compute(np.where, condition, *_in_single((x, y)))


def take(a, indices, axis=None, out=None):
    if isinstance(indices, list):
        raise TypeError(f"Unsupported type {type(indices)}")
    return compute(lambda *given: np.take(*given, axis=axis, mode="wrap"), a, indices)  # on a device nobody looks


def take_along_axis(a, indices, axis):
    return compute(lambda x, i: np.take_along_axis(x, i % max(x.shape[axis], 1), axis), a, indices)


def result_type(*args):
    return np.result_type(*(arg.dtype if isinstance(arg, ndarray) else arg for arg in args))


def may_share_memory(a, b, max_work=None):
    return np.may_share_memory(raw(a), raw(b))


def shares_memory(a, b, max_work=None):
    return np.shares_memory(raw(a), raw(b))


def ndim(a):
    return a.ndim if isinstance(a, ndarray) else np.ndim(a)


shape = None
size = None


def _in_single(values):
    def single(x):
        return x.astype(np.float32) if isinstance(x, ndarray) and x.dtype == BFLOAT16 else x

    return tuple(single(x) for x in values)


def _is_half(args):
    return BFLOAT16 is not None and any(isinstance(arg, ndarray) and arg.dtype == BFLOAT16 for arg in args)


def _function(name):
    """NumPy's function of that name, for emulated arrays."""
    function = getattr(np, name)

    def call(*args, **settings):
        if wrong := WITHOUT.intersection(settings) - KEEPS.get(name, set()):
            raise TypeError(f"{name}() got an unexpected keyword argument {min(wrong)!r}")
        if name in LIBRARY and any(isinstance(arg, ndarray) for arg in args):
            _check_library(name, args)
        if name in WAITING:
            state.transfer()
        if name in WRITING:
            values = tuple(args[1:])
            state.enqueue(_writing(function, args[0], values, settings))
            return None
        out = settings.pop("out", None)
        if isinstance(function, np.ufunc) and len(args) > function.nin:
            args, out = args[: function.nin], args[function.nin]
        if out is not None:
            out = out[0] if isinstance(out, tuple) else out
            if not isinstance(out, ndarray):
                raise TypeError("return arrays must be of ArrayType")
            return into(_computing(name, function, args), out, *args, **settings)
        return compute(_computing(name, function, args), *args, **settings)

    call.__name__ = name
    return call


def _computing(name, function, args):
    """The function with CuPy's rules for bfloat16."""
    flat = [part for arg in args for part in (arg if isinstance(arg, list | tuple) else [arg])]
    if not _is_half(flat):
        return function
    if name in SINGLE:
        return lambda *given, **settings: function(*map(_widened, given), **settings)
    if name in ADDING:

        def adding(*given, **settings):
            dtype = settings.pop("dtype", None)
            return np.asarray(function(*map(_widened, given), **settings)).astype(dtype or BFLOAT16)

        return adding
    return function


def _widened(x):
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == BFLOAT16 else x


def _writing(function, target, values, settings):
    from .calls import detached

    target, values = detached(raw(target)), detached(raw(values))
    return lambda: function(target, *values, **settings)


def _check_library(name, args):
    state.forbid("a product by cuBLAS")
    arrays = [arg for arg in args if isinstance(arg, ndarray)]
    if _is_half(arrays) and name in ("matmul", "tensordot", "einsum") and max(x.ndim for x in arrays) > 2:
        raise TypeError("no product of more than two dimensions in bfloat16")


def lookup(name):
    """The attribute of that name, as CuPy has it."""
    if name in LACKING or name in UNCOVERED or name.startswith("_") or not hasattr(np, name):
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    value = getattr(np, name)
    if name in PLAIN or inspect.isclass(value) or not callable(value):
        return value
    return _function(name)


OURS = {
    name: value
    for name, value in list(globals().items())
    if inspect.isfunction(value) and value.__module__ == __name__ and not name.startswith("_") and name != "lookup"
}
