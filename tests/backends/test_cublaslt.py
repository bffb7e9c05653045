"""The binding of cuBLASLt against the library itself, which describes products without a GPU, and its header.

Skipped where the library is not installed (`pip install nvidia-cublas`, and cuda-pathfinder to find it).
"""

import contextlib
import ctypes
import re
from pathlib import Path

import pytest

from tinyformer.backends.cupy import cublaslt
from tinyformer.backends.cupy.cublaslt import Lie, Product

INT, LONG, UNSIGNED, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64, ctypes.c_void_p


@pytest.fixture(scope="module")
def library():
    for path in cublaslt._paths():
        with contextlib.suppress(OSError):
            return cublaslt.Library(path)
    pytest.skip("cuBLASLt is not installed")


def read(getter, target, attribute, kind):
    value, written = kind(), ctypes.c_size_t()
    status = getter(target, attribute, ctypes.byref(value), ctypes.sizeof(value), ctypes.byref(written))
    cublaslt.check(status, "reading")
    assert written.value == ctypes.sizeof(value)
    return value.value


PRODUCT = Product(
    *(Lie(8, 5, 11, False, 55), Lie(5, 6, 7, True, 35), Lie(8, 6, 8, False, 48)),
    *(3, "bfloat16", "float32", cublaslt.GELU_BIAS, (256, 16, 2, 32, 64)),
)


def test_what_the_library_understands_of_a_product(library):
    descriptor, layouts = library.describe(PRODUCT)
    attributes = {0: (INT, 68), 1: (INT, 0), 3: (INT, 0), 4: (INT, 1), 7: (INT, 164)}
    attributes |= {8: (POINTER, 32), 11: (POINTER, 64), 12: (LONG, 8)}
    for attribute, (kind, expected) in attributes.items():
        assert read(library.MatmulDescGetAttribute, descriptor, attribute, kind) == expected
    # type, order, rows, columns, leading dimension, count, step
    expected = [(14, 0, 8, 5, 11, 3, 55), (14, 0, 6, 5, 7, 3, 35), (14, 0, 8, 6, 8, 3, 48)]
    kinds = (INT, INT, UNSIGNED, UNSIGNED, LONG, INT, LONG)
    for layout, numbers in zip(layouts, expected, strict=True):
        found = [read(library.MatrixLayoutGetAttribute, layout, i, kind) for i, kind in enumerate(kinds)]
        assert tuple(found) == numbers


@pytest.mark.parametrize(
    ("dtype", "compute", "codes"),
    [("float32", "float32", (68, 0)), ("float32", "tf32", (77, 0)), ("float64", "float64", (70, 1))],
)
def test_how_sums_are_kept(library, dtype, compute, codes):
    product = PRODUCT._replace(dtype=dtype, compute=compute, epilogue=cublaslt.PLAIN, count=1)
    descriptor, layouts = library.describe(product)
    assert tuple(read(library.MatmulDescGetAttribute, descriptor, i, INT) for i in (0, 1)) == codes
    assert read(library.MatmulDescGetAttribute, descriptor, cublaslt.VECTOR, POINTER) is None
    assert read(library.MatrixLayoutGetAttribute, layouts[0], cublaslt.BATCH_COUNT, INT) == 1


def test_what_algorithms_may_rely_on(library):
    with library.preference(PRODUCT, 32 << 20) as preference:
        get = library.MatmulPreferenceGetAttribute
        assert read(get, preference, cublaslt.WORKSPACE, UNSIGNED) == 32 << 20
        found = [read(get, preference, cublaslt.ALIGNMENT_A + i, INT) for i in range(4)]
        assert found == [256, 16, 2, 2]
        assert read(get, preference, cublaslt.REDUCTIONS, INT) == cublaslt.IN_FLOAT


def test_a_value_of_a_wrong_type_is_refused(library):
    descriptor, _ = library.describe(PRODUCT)
    with pytest.raises(RuntimeError, match=r"attribute 8 failed: invalid value \(status 7\)"):
        library.set(library.MatmulDescSetAttribute, descriptor, cublaslt.VECTOR, ctypes.c_int32(1))


def test_enumerators_are_those_of_the_header(library):
    header = Path(library.path).parent.parent / "include" / "cublasLt.h"
    if not header.exists():
        pytest.skip("the library is here without its header")
    text = header.read_text() + header.with_name("cublas_api.h").read_text()
    names = {
        "CUBLASLT_MATMUL_DESC_TRANSA": cublaslt.TRANS_A,
        "CUBLASLT_MATMUL_DESC_TRANSB": cublaslt.TRANS_B,
        "CUBLASLT_MATMUL_DESC_EPILOGUE": cublaslt.EPILOGUE,
        "CUBLASLT_MATMUL_DESC_BIAS_POINTER": cublaslt.VECTOR,
        "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER": cublaslt.EXTRA,
        "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD": cublaslt.EXTRA_LEADING,
        "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT": cublaslt.BATCH_COUNT,
        "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET": cublaslt.BATCH_STEP,
        "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": cublaslt.WORKSPACE,
        "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK": cublaslt.REDUCTIONS,
        "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE": cublaslt.IN_FLOAT,
        "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES": cublaslt.ALIGNMENT_A,
        "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES": cublaslt.ALIGNMENT_A + 3,
        "CUBLASLT_EPILOGUE_DEFAULT": cublaslt.PLAIN,
        "CUBLASLT_EPILOGUE_BIAS": cublaslt.BIAS,
        "CUBLASLT_EPILOGUE_BGRADA": cublaslt.SUMS_A,
        "CUBLASLT_EPILOGUE_BGRADB": cublaslt.SUMS_B,
        "CUBLAS_COMPUTE_32F": cublaslt.COMPUTE["float32"],
        "CUBLAS_COMPUTE_32F_FAST_TF32": cublaslt.COMPUTE["tf32"],
        "CUBLAS_COMPUTE_64F": cublaslt.COMPUTE["float64"],
        "CUBLAS_OP_T": cublaslt.TRANSPOSE,
    }
    for name, value in names.items():
        assert re.findall(rf"\b{name} = (\d+)\b", text) == [str(value)], name
    for value, name in cublaslt.STATUS.items():
        (found,) = re.findall(rf"CUBLAS_STATUS_(\w+) = {value}\b", text)
        assert found.lower().replace("_", " ") == name
    assert ctypes.sizeof(cublaslt._Heuristic) == 96
