"""cuBLASLt, NVIDIA's library of matrix products, through ctypes.

The library is told what a product is by a descriptor and what each matrix is by a layout, and then names an algorithm.
All of that is a `Plan`, made once for each kind of product; afterwards a product is one call. Beside the product it
does what follows while the numbers are still in registers, its *epilogue*: a bias, a gelu, the sums of a gradient.

The library counts matrices by columns, as Fortran does. Read by columns, an array that lies by rows is its transpose,
so a product of such arrays, C = A B, is asked for as Cᵀ = Bᵀ Aᵀ. (Layouts by rows exist, but epilogues lack them.)

Nothing here needs a GPU before `Library.handle`. Read next: `products.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

INSTALL = "pip install nvidia-cublas (for CUDA 12: nvidia-cublas-cu12)"

# The enumerators of library_types.h, cublas_api.h and cublasLt.h that are used here; those of CUDA 12 and 13 agree.
TYPES = {"float32": 0, "float64": 1, "bfloat16": 14}
COMPUTE = {"float32": 68, "tf32": 77, "float64": 70}  # how factors are rounded, and sums are kept
TRANSPOSE = 1
TRANS_A, TRANS_B, EPILOGUE, VECTOR, EXTRA, EXTRA_LEADING = 3, 4, 7, 8, 11, 12  # attributes of a descriptor
BATCH_COUNT, BATCH_STEP = 5, 6  # attributes of a layout
WORKSPACE, REDUCTIONS, ALIGNMENT_A = 1, 3, 5  # attributes of a preference; the alignments of B, C and D follow
IN_FLOAT = 2  # the parts of a sum, which several blocks compute, are kept and added up as float32
PLAIN = 1
BIAS = 4  # adds the vector to each column of the result
GELU, GELU_BIAS = 160, 164  # tanh's form of it; what it is of is written to the extra matrix
GELU_SLOPE = 192  # times gelu's slope at the extra matrix
SUMS_A, SUMS_B = 256, 512  # writes the first or second factor's sums, over what the product sums over, to the vector
UNSUPPORTED = 15
STATUS = {
    1: "not initialized",
    3: "alloc failed",
    7: "invalid value",
    8: "arch mismatch",
    11: "mapping error",
    13: "execution failed",
    14: "internal error",
    UNSUPPORTED: "not supported",
    16: "license error",
}


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: an algorithm, what memory it needs, and whether it can be had."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


_INT, _LONG, _SIZE, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
_CREATED = ctypes.POINTER(_POINTER)
_SIGNATURES = {
    "Create": (_CREATED,),
    "MatmulDescCreate": (_CREATED, _INT, _INT),
    "MatmulDescSetAttribute": (_POINTER, _INT, _POINTER, _SIZE),
    "MatmulDescGetAttribute": (_POINTER, _INT, _POINTER, _SIZE, ctypes.POINTER(_SIZE)),
    "MatrixLayoutCreate": (_CREATED, _INT, ctypes.c_uint64, ctypes.c_uint64, _LONG),
    "MatrixLayoutSetAttribute": (_POINTER, _INT, _POINTER, _SIZE),
    "MatrixLayoutGetAttribute": (_POINTER, _INT, _POINTER, _SIZE, ctypes.POINTER(_SIZE)),
    "MatmulPreferenceCreate": (_CREATED,),
    "MatmulPreferenceSetAttribute": (_POINTER, _INT, _POINTER, _SIZE),
    "MatmulPreferenceGetAttribute": (_POINTER, _INT, _POINTER, _SIZE, ctypes.POINTER(_SIZE)),
    "MatmulPreferenceDestroy": (_POINTER,),
    "MatmulAlgoGetHeuristic": (*(_POINTER,) * 7, _INT, ctypes.POINTER(_Heuristic), ctypes.POINTER(_INT)),
    "Matmul": (*(_POINTER,) * 14, _SIZE, _POINTER),
}


class Lie(NamedTuple):
    """How a matrix lies in memory, or each of a batch; lengths in elements.

    Attributes:
        rows, columns: its shape.
        leading: from one row, or column, to the next.
        by_rows: whether it is rows that lie together, not columns.
        step: from one matrix of the batch to the next.
    """

    rows: int
    columns: int
    leading: int
    by_rows: bool
    step: int = 0

    def turned(self) -> Lie:
        """How its transpose lies."""
        return Lie(self.columns, self.rows, self.leading, not self.by_rows, self.step)


class Product(NamedTuple):
    """A kind of product, `out = a b` of matrices or batches of them: all that decides how it is computed.

    Attributes:
        a, b, out: how the matrices lie.
        count: matrices of each batch.
        dtype: of the numbers, a key of `TYPES`.
        compute: a key of `COMPUTE`.
        epilogue: one of the constants above; BIAS, the gelus and their slope want a result by columns.
        alignments: what the addresses of a, b, out, the vector and the extra matrix are multiples of, in bytes.
    """

    a: Lie
    b: Lie
    out: Lie
    count: int
    dtype: str
    compute: str
    epilogue: int
    alignments: tuple[int, ...]


def alignment(address: int) -> int:
    """The largest power of two, up to 256, that an address is a multiple of."""
    return (address | 256) & -(address | 256)


class Library:
    """The library at a path, or under a name that the system's loader finds; an OSError where it is not there."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, f"cublasLt{name}")
            function.argtypes, function.restype = arguments, _INT
            setattr(self, name, function)
        self.path = path
        self._handles: dict[int, int] = {}

    def handle(self, device: int) -> int:
        """What products on this device go through. It must be the current one."""
        if device not in self._handles:
            self._handles[device] = self._create(self.Create)
        return self._handles[device]

    def plan(self, handle: int, product: Product, workspace: int) -> Plan | None:
        """The fastest algorithm for a kind of product, by the library's own estimate; None where it has none.

        Args:
            handle: of a device.
            product: the result must lie by columns.
            workspace: bytes of memory that the algorithm may have to work in.
        """
        descriptor, layouts = self.describe(product)
        found, count = _Heuristic(), _INT()
        with self.preference(product, workspace) as preference:
            a, b, out = layouts
            status = self.MatmulAlgoGetHeuristic(
                handle, descriptor, a, b, out, out, preference, 1, ctypes.byref(found), ctypes.byref(count)
            )
        if status or not count.value or found.state:
            return None
        return Plan(self, handle, descriptor, layouts, found, product.dtype)

    def describe(self, product: Product) -> tuple[int, list[int]]:
        """A descriptor, and the layouts of a, b and the result."""
        scale = TYPES["float64" if product.dtype == "float64" else "float32"]
        descriptor = self._create(self.MatmulDescCreate, COMPUTE[product.compute], scale)
        self.set(self.MatmulDescSetAttribute, descriptor, EPILOGUE, ctypes.c_uint32(product.epilogue))
        for attribute, lie in ((TRANS_A, product.a), (TRANS_B, product.b)):
            if lie.by_rows:
                self.set(self.MatmulDescSetAttribute, descriptor, attribute, ctypes.c_int32(TRANSPOSE))
        # The addresses count for their alignment only, until a product is computed.
        *_, vector, extra = product.alignments
        if product.epilogue not in (PLAIN, GELU, GELU_SLOPE):
            self.set(self.MatmulDescSetAttribute, descriptor, VECTOR, _POINTER(vector))
        if product.epilogue in (GELU, GELU_BIAS, GELU_SLOPE):
            self.set(self.MatmulDescSetAttribute, descriptor, EXTRA, _POINTER(extra))
            self.set(self.MatmulDescSetAttribute, descriptor, EXTRA_LEADING, _LONG(product.out.rows))
        return descriptor, [self._layout(lie, product) for lie in (product.a, product.b, product.out)]

    def _layout(self, lie: Lie, product: Product) -> int:
        shape = (lie.columns, lie.rows) if lie.by_rows else (lie.rows, lie.columns)
        layout = self._create(self.MatrixLayoutCreate, TYPES[product.dtype], *shape, lie.leading)
        if product.count > 1:
            self.set(self.MatrixLayoutSetAttribute, layout, BATCH_COUNT, ctypes.c_int32(product.count))
            self.set(self.MatrixLayoutSetAttribute, layout, BATCH_STEP, _LONG(lie.step))
        return layout

    @contextlib.contextmanager
    def preference(self, product: Product, workspace: int) -> Iterator[int]:
        """What the algorithm may use and rely on."""
        a, b, out, *_ = product.alignments
        preference = self._create(self.MatmulPreferenceCreate)
        try:
            self.set(self.MatmulPreferenceSetAttribute, preference, WORKSPACE, ctypes.c_uint64(workspace))
            for i, multiple in enumerate((a, b, out, out)):
                self.set(self.MatmulPreferenceSetAttribute, preference, ALIGNMENT_A + i, ctypes.c_uint32(multiple))
            if product.dtype == "bfloat16":
                self.set(self.MatmulPreferenceSetAttribute, preference, REDUCTIONS, ctypes.c_uint32(IN_FLOAT))
            yield preference
        finally:
            self.MatmulPreferenceDestroy(preference)

    def _create(self, create, *arguments) -> int:
        created = _POINTER()
        check(create(ctypes.byref(created), *arguments), create.__name__)
        return created.value

    def set(self, setter, target: int, attribute: int, value) -> None:
        """Give an attribute of a descriptor, layout or preference a value of exactly its C type."""
        check(setter(target, attribute, ctypes.byref(value), ctypes.sizeof(value)), f"attribute {attribute}")


class Plan:
    """An algorithm for one kind of product.

    Attributes:
        workspace: bytes of memory that it works in.
    """

    def __init__(
        self, library: Library, handle: int, descriptor: int, layouts: list[int], found: _Heuristic, dtype: str
    ) -> None:
        self.workspace = found.workspace
        self._library, self._handle, self._descriptor, self._layouts = library, handle, descriptor, layouts
        self._found, self._algorithm = found, ctypes.addressof(found)
        number = ctypes.c_double if dtype == "float64" else ctypes.c_float
        self._factors = (number * 2)(1.0, 0.0)  # of the product, and of what was there before
        self._one = ctypes.addressof(self._factors)
        self._zero = self._one + ctypes.sizeof(number)
        self._lock = threading.Lock()

    def run(
        self, a: int, b: int, out: int, vector: int | None, extra: int | None, workspace: tuple[int, int], stream: int
    ) -> bool:
        """Enqueue the product on a stream. False, and nothing is done, where it cannot be computed after all.

        Args:
            a, b, out, vector, extra: addresses; None for what the epilogue has no use for.
            workspace: address and bytes of memory that nothing else on the device uses at the time.
            stream: its address.
        """
        if vector is None and extra is None:
            return self._run(a, b, out, workspace, stream)
        with self._lock:  # the descriptor holds these addresses, and workers may share it
            setter = self._library.MatmulDescSetAttribute
            for attribute, address in ((VECTOR, vector), (EXTRA, extra)):
                if address is not None:
                    self._library.set(setter, self._descriptor, attribute, _POINTER(address))
            return self._run(a, b, out, workspace, stream)

    def _run(self, a, b, out, workspace, stream):
        of_a, of_b, of_out = self._layouts
        ways = (self._handle, self._descriptor, self._one, a, of_a, b, of_b, self._zero, out, of_out, out, of_out)
        status = self._library.Matmul(*ways, self._algorithm, *workspace, stream)
        if status != UNSUPPORTED:
            check(status, "product")
        return status != UNSUPPORTED


def check(status: int, what: str) -> None:
    """Raise unless a call of the library went well."""
    if status:
        raise RuntimeError(f"cuBLASLt's {what} failed: {STATUS.get(status, 'unknown error')} (status {status})")


def find() -> Library | None:
    """The library of the installed CUDA, from a Python package or the system; None where there is none."""
    for path in _paths():
        with contextlib.suppress(OSError, AttributeError):  # not there, or of a version that is too old
            return Library(path)
    return None


def _paths() -> Iterator[str]:
    with contextlib.suppress(ImportError, RuntimeError, OSError):  # which its errors are
        from cuda import pathfinder

        yield pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path
    if sys.platform == "win32":
        yield from ("cublasLt64_13.dll", "cublasLt64_12.dll")
    else:
        yield from ("libcublasLt.so.13", "libcublasLt.so.12")


def workspace_size(capability: int) -> int:
    """Bytes to let algorithms have, as cuBLAS's documentation recommends for a compute capability such as 90."""
    return (32 if capability in (90, 100, 103) else 12 if capability >= 120 else 4) << 20
