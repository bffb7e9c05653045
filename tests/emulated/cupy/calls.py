"""How NumPy's functions are called on emulated arrays: strictly, and recorded where a stream is being captured."""

import ctypes

import numpy as np

from . import memory, state

try:
    import ml_dtypes

    BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    BFLOAT16 = None


def raw(x):
    """The NumPy array behind an emulated one; numbers as they are. Anything else is what CuPy refuses."""
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    pointer = getattr(x, "_pointer", None)
    if pointer is None:
        if isinstance(x, tuple | list):
            return type(x)(raw(part) for part in x)
        return x
    if pointer.device_id != state.device():
        raise ValueError(
            "Array device must be same as the current device: "
            f"array device = {pointer.device_id} while current = {state.device()}"
        )
    return x._host


def detached(x):
    """The same places as NumPy arrays that keep no memory alive, as recorded work names places by their addresses."""
    if isinstance(x, tuple | list):
        return type(x)(detached(part) for part in x)
    if not isinstance(x, np.ndarray):
        return x
    if not x.size:
        return np.empty(x.shape, x.dtype)
    low, high = np.lib.array_utils.byte_bounds(x)
    places = (ctypes.c_char * (high - low)).from_address(low)
    return np.ndarray(x.shape, x.dtype, places, x.ctypes.data - low, x.strides)


def _pointers(x):
    """Every emulated array within arguments."""
    if isinstance(x, tuple | list):
        return [found for part in x for found in _pointers(part)]
    return [x] if hasattr(x, "_pointer") else []


def device_copy(host, dtype=None, order="C"):
    """A NumPy array copied to the device; its memory is not pinned, so the copy cannot be recorded."""
    state.forbid("a copy from memory that is not pinned")
    state.counts["uploads"] += 1
    return _fresh(np.asarray(host, dtype))


def _fresh(host):
    """An emulated array with the contents and the layout of a NumPy array."""
    from .array import ndarray

    dense = np.empty_like(host, subok=False)
    array = ndarray(host.shape, host.dtype, strides=dense.strides if host.size else None)
    if state.capturing():
        return array
    array._host[...] = host
    return array


def compute(function, *args, **settings):
    """What NumPy's function gives for these arguments, as emulated arrays; views stay views."""
    inputs = _pointers(args)
    hosts, options = raw(args), {name: raw(value) for name, value in settings.items()}
    with np.errstate(all="ignore"):
        result = function(*hosts, **options)
    if not state.capturing():
        return _given(result, inputs)
    outs = _given(result, inputs)
    if _holds_new(result, inputs):
        targets = [detached(out._host) for out in (outs if isinstance(outs, tuple | list) else [outs])]
        hosts, options = detached(hosts), {name: detached(value) for name, value in options.items()}

        def work():
            with np.errstate(all="ignore"):
                again = function(*hosts, **options)
            for target, value in zip(targets, again if isinstance(again, tuple | list) else [again], strict=True):
                np.copyto(target, value)

        state.enqueue(work)
    return outs


def _holds_new(result, inputs):
    parts = result if isinstance(result, tuple | list) else [result]
    arrays = [part for part in parts if isinstance(part, np.ndarray | np.generic)]
    return bool(arrays) and any(_shared(part, inputs) is None for part in arrays)


def _shared(host, inputs):
    if isinstance(host, np.ndarray):
        for x in inputs:
            if np.may_share_memory(host, x._host) and host.size:
                return x
    return None


def _given(result, inputs):
    from .array import wrapped

    if isinstance(result, tuple | list):
        parts = [_given(part, inputs) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    source = _shared(result, inputs)
    return _fresh(result) if source is None else wrapped(result, source._pointer)


def into(function, out, *args, **settings):
    """The same into an array that exists."""
    hosts, options, target = detached(raw(args)), {n: detached(raw(v)) for n, v in settings.items()}, raw(out)
    target = detached(target)

    def work():
        with np.errstate(all="ignore"):
            np.copyto(target, function(*hosts, **options), casting="same_kind")

    state.enqueue(work)
    return out


# Indices


def _key(array, key):
    """An index as NumPy takes it; integers beyond an axis wrap, as on the device, where nobody looks."""
    parts = key if isinstance(key, tuple) else (key,)
    used = sum(_axes(part) for part in parts)
    axis, made = 0, []
    for part in parts:
        if part is ...:
            axis += array.ndim - used
        if isinstance(part, np.ndarray):
            raise TypeError("an index that lies on the host would be copied to the device each time")
        if hasattr(part, "_pointer"):
            host = raw(part)
            if host.dtype.kind not in "biu":
                raise IndexError("arrays used as indices must be of integer or boolean type")
            made.append((host, array.shape[axis] if host.dtype != bool else None))
        else:
            made.append((part, None))
        axis += _axes(part)
    return made


def _axes(part):
    if part is None or part is ...:
        return 0
    return part.ndim if hasattr(part, "_pointer") and part.dtype == bool else 1


def _wrapped_key(key):
    return tuple(part if size is None else part % max(size, 1) for part, size in key)


def index(array, key):
    """array[key]."""
    made = _key(array, key)
    if any(isinstance(part, np.ndarray) and part.dtype == bool for part, _ in made):
        state.transfer()  # how many there are decides about a shape
    parts = [part for part, _ in made]
    if not any(isinstance(part, np.ndarray) for part in parts):
        raw(array)
        view = array._host[(*parts, ...)] if ... not in parts else array._host[tuple(parts)]
        return array._view(view)
    sizes = [size for _, size in made]
    arrays = [part for part in key if hasattr(part, "_pointer")] if isinstance(key, tuple) else [key]

    def look_up(host, *indices):
        indices = iter(indices)
        full = [(next(indices) if isinstance(part, np.ndarray) else part, size) for part, size in zip(parts, sizes)]
        return host[_wrapped_key(full)]

    return compute(look_up, array, *arrays)


def update(array, key, value):
    """array[key] = value."""
    made = [(detached(part), size) for part, size in _key(array, key)]
    target, value = detached(raw(array)), detached(raw(value))

    def work():
        target[_wrapped_key(made)] = value

    state.enqueue(work)


__all__ = ["BFLOAT16", "compute", "detached", "device_copy", "index", "into", "memory", "raw", "update"]
