"""Arrays of the emulated devices: NumPy's arrays that NumPy's functions cannot reach by accident."""

import numpy as np

from . import memory, state
from .calls import compute, detached, device_copy, index, raw, update

_HOST = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)


def wrapped(host, pointer):
    """An array around a NumPy array whose memory starts in that of a device."""
    array = object.__new__(ndarray)
    array._host, array._pointer = host, pointer
    return array


class ndarray:
    """As `cupy.ndarray`. `_host` is a NumPy array on memory that a pool of the device gave."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._pointer = memory.alloc(size) if memptr is None else memptr
        buffer = np.frombuffer(self._pointer._lease, np.uint8)[self._pointer._offset :]
        self._host = np.ndarray(shape, dtype, buffer, 0, strides, order if strides is None else None)
        if memptr is None and dtype.kind == "b":
            buffer[:size] = 1  # rubbish, but still a truth value

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: Flags(self._host.flags))
    device = property(lambda self: Device(self._pointer.device_id))
    T = property(lambda self: self._view(self._host.T))
    mT = property(lambda self: self._view(self._host.mT))
    real = property(lambda self: self._view(self._host.real))
    flat = property(lambda self: self.ravel())

    @shape.setter
    def shape(self, shape):
        self._host.shape = shape

    @property
    def base(self):
        return None if self._host.ctypes.data == self._pointer.ptr else self

    @property
    def data(self):
        return self._pointer + (self._host.ctypes.data - self._pointer.ptr)

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "data": (self._host.ctypes.data, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "stream": state.stream().ptr or 1,
            "version": 3,
        }

    def _view(self, host):
        return wrapped(host, self._pointer)

    # To the host and from it

    def get(self, stream=None, order="C", out=None, blocking=True):
        state.transfer()
        if out is not None:
            out[...] = self._host
            return out
        return np.array(self._host, order=order)

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        state.counts["uploads"] += 1
        if not (arr.flags.c_contiguous and memory.is_pinned(arr.ctypes.data, arr.nbytes)):
            state.forbid("a copy from memory that is not pinned")
        target, source = detached(self._host), detached(arr)
        state.enqueue(lambda: np.copyto(target, source), stream)

    def item(self, *args):
        state.transfer()
        return self._host.item(*args)

    def tolist(self):
        return self.get().tolist()

    def tobytes(self, order="C"):
        return self.get().tobytes(order)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __complex__(self):
        return complex(self.get())

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, how):
        return format(self.get(), how)

    def __reduce__(self):
        return device_copy, (self.get(),)

    def __array__(self, dtype=None, copy=None):
        raise TypeError(_HOST)

    def __array_ufunc__(self, ufunc, method, *inputs, **settings):
        from . import __getattr__ as named

        if method != "__call__":
            return NotImplemented
        return named(ufunc.__name__)(*inputs, **settings)

    def __array_function__(self, function, types, args, settings):
        from . import __getattr__ as named

        try:
            return named(function.__name__)(*args, **settings)
        except AttributeError:
            return NotImplemented

    # Places

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        return index(self, key)

    def __setitem__(self, key, value):
        update(self, key, value)

    def fill(self, value):
        self[...] = value

    def put(self, indices, values):
        self.reshape(-1)[indices] = values

    def reshape(self, *shape, order="C"):
        return compute(np.reshape, self, shape[0] if len(shape) == 1 else shape, order=order)

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        return self._view(self._host.transpose(axes))

    def swapaxes(self, axis1, axis2):
        return self._view(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return self._view(self._host.squeeze(axis))

    def diagonal(self, offset=0, axis1=0, axis2=1):
        return self._view(self._host.diagonal(offset, axis1, axis2))

    def view(self, dtype=None):
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def ravel(self, order="C"):
        return compute(np.ravel, self, order=order)

    def flatten(self, order="C"):
        return self.copy().ravel(order)

    def copy(self, order="C"):
        return compute(np.array, self, copy=True, order=order)

    __copy__ = copy

    def __deepcopy__(self, memo):
        return self.copy()

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return compute(np.ndarray.astype, self, dtype, order=order, casting=casting or "unsafe")

    def dot(self, b, out=None):
        from . import __getattr__ as named

        return named("dot")(self, b, out=out)

    def _in_place(self, ufunc, other):
        out, other = detached(self._host), detached(raw(other))
        state.enqueue(lambda: np.copyto(out, _quiet(ufunc, out, other), casting="same_kind"))
        return self


def _quiet(function, *arrays):
    with np.errstate(all="ignore"):
        return function(*arrays)


class Flags:
    """What CuPy tells of an array's layout."""

    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata
        self.forc, self.fnc = self.c_contiguous or self.f_contiguous, self.f_contiguous and not self.c_contiguous

    def __getitem__(self, name):
        return getattr(self, name.lower())


class Device:
    """A device by its number; current inside a `with`."""

    def __init__(self, device=None):
        self.id = state.device() if device is None else int(device)
        if not 0 <= self.id < state.switches["devices"]:
            raise state.CUDARuntimeError(101)
        self._before = []

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return self.id

    def __int__(self):
        return self.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        self._before.append(state.device())
        state.set_device(self.id)
        return self

    def __exit__(self, *error):
        state.set_device(self._before.pop())

    def use(self):
        state.set_device(self.id)

    def synchronize(self):
        state.forbid("synchronisation")
        state.counts["synchronisations"] += 1

    compute_capability = "90"
    mem_info = property(lambda self: (memory.CAPACITY, memory.CAPACITY))
    attributes = property(lambda self: {"MultiProcessorCount": 4, "MaxSharedMemoryPerBlockOptin": 232448})


_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "pow": np.power,
    "mod": np.remainder,
}
_BINARY |= {"floordiv": np.floor_divide, "matmul": np.matmul, "lshift": np.left_shift, "rshift": np.right_shift}
_BINARY |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "mod": np.remainder}
_COMPARING = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_METHODS = (
    *("sum", "prod", "max", "min", "mean", "std", "var", "any", "all", "argmax", "argmin", "cumsum", "cumprod", "clip"),
    *("round", "repeat", "take", "nonzero", "argsort", "conj", "trace", "searchsorted"),
)


def _operators():
    """The operators and reductions of the class, each the function of that name in this package."""

    def binary(name, ufunc):
        def forward(self, other):
            return _called(ufunc, self, other)

        def backward(self, other):
            return _called(ufunc, other, self)

        def in_place(self, other):
            return self._in_place(ufunc, other)

        setattr(ndarray, f"__{name}__", forward)
        setattr(ndarray, f"__r{name}__", backward)
        if name not in ("divmod", "matmul"):
            setattr(ndarray, f"__i{name}__", in_place)

    for name, ufunc in _BINARY.items():
        binary(name, ufunc)
    for name, ufunc in _COMPARING.items():
        setattr(ndarray, f"__{name}__", lambda self, other, f=ufunc: _compared(f, self, other))
    for name, ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}.items():
        setattr(ndarray, f"__{name}__", lambda self, f=ufunc: _called(f, self))
    for name in _METHODS:
        setattr(ndarray, name, lambda self, *args, f=name, **settings: _called(f, self, *args, **settings))


def _called(function, *args, **settings):
    from . import __getattr__ as named

    name = function if isinstance(function, str) else function.__name__
    for arg in args:
        if not isinstance(arg, ndarray | int | float | complex | np.generic | tuple | list | type(None) | np.ndarray):
            return NotImplemented
    return named(name)(*args, **settings)


def _compared(ufunc, self, other):
    return NotImplemented if other is None or isinstance(other, str) else _called(ufunc, self, other)


_operators()
