"""Products of few rows and of many, in both layouts of a weight, alone and shared by threads: against sums by hand."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

from tinyformer import backends
from tinyformer.backends.numpy import products
from tinyformer.backends.numpy.products import product

NUMPY = backends.get("numpy")
ROWS = [0, 1, 2, 3, 4, 7, 16, 17, 130]


def arrays(rows, inputs, outputs, layout, dtype=np.float64):
    rng = np.random.default_rng([rows, inputs, outputs])
    weight = rng.standard_normal((inputs, outputs)).astype(dtype)
    if layout == "columns":
        weight = np.ascontiguousarray(weight.T).T
    return rng.standard_normal((rows, inputs)).astype(dtype), weight


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_way_to_multiply_is_the_product(layout, threads):
    for count in ROWS:
        for inputs, outputs in [(5, 3), (64, 1301), (300, 2000)]:  # the last is worth sharing from 4 rows on
            rows, weight = arrays(count, inputs, outputs, layout)
            with NUMPY.sharing(threads):
                found = product(rows, weight)
            assert found.shape == (count, outputs)
            assert found.flags.c_contiguous
            np.testing.assert_allclose(found, np.einsum("nd,df->nf", rows, weight), atol=1e-11)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_single_precision_and_other_types(layout):
    for count in ROWS:
        rows, weight = arrays(count, 40, 70, layout, np.float32)
        found = product(rows, weight)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, rows.astype(float) @ weight.astype(float), atol=2e-5)
        mixed = product(rows, weight.astype(float))
        assert mixed.dtype == np.float64
        np.testing.assert_allclose(mixed, rows.astype(float) @ weight.astype(float), atol=1e-12)


def test_one_row_is_the_same_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(products, "_LONG", 1)
    rows, weight = arrays(1, 200, 301, "columns", np.float32)
    alone = product(rows, weight)
    np.testing.assert_allclose(alone, rows.astype(float) @ weight.astype(float), atol=1e-4)
    for threads in (2, 3):
        with NUMPY.sharing(threads):
            np.testing.assert_array_equal(product(rows, weight), alone)


@pytest.mark.parametrize("count", [1, 2, 5, 130])
@pytest.mark.parametrize("worth", [False, True])
def test_products_that_are_worth_it_are_cut_over_the_threads_and_only_inside(monkeypatch, count, worth):
    at_work = set()

    def told(multiply):
        def tell(*arrays, **settings):
            at_work.add(threading.get_ident())
            return multiply(*arrays, **settings)

        return tell

    for limit in ("_WORTH", "_LONG"):
        monkeypatch.setattr(products, limit, 1 if worth else 1 << 40)
    for name in ("matmul", "vecdot"):
        monkeypatch.setattr(np, name, told(getattr(np, name)))
    rows, weight = arrays(count, 30, 40, "columns")
    with NUMPY.sharing(2):
        product(rows, weight)
    assert len(at_work - {threading.get_ident()}) == worth
    at_work.clear()
    product(rows, weight)
    assert at_work <= {threading.get_ident()}


@pytest.mark.parametrize("count", [5, 130])
def test_shared_products_repeat_bit_for_bit(count):
    rows, weight = arrays(count, 300, 2000, "columns", np.float32)
    with NUMPY.sharing(2):
        first = product(rows, weight)
        for _ in range(3):
            np.testing.assert_array_equal(product(rows, weight), first)


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_sharing_leaves_blas_as_it_was_also_after_an_error():
    def multiply(rows, weight):
        with NUMPY.sharing(2):
            assert blas_threads() == [1]
            product(rows, weight)

    rows, weight = arrays(130, 300, 2000, "rows")
    with threadpoolctl.threadpool_limits(2, "blas"):
        with pytest.raises(ValueError, match="mismatch"):
            multiply(rows[:, 1:], weight)
        assert blas_threads() == [2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_starts_threads_of_its_own():
    code = (
        "import os, signal, warnings; warnings.simplefilter('ignore'); import numpy as np; "
        "from tinyformer.backends.numpy import products; products._WORTH = 1\n"
        "def total():\n"
        "    with products.sharing(2):\n"
        "        return products.product(np.ones((5, 30)), np.ones((30, 40))).sum()\n"
        "total(); child = os.fork(); signal.alarm(0 if child else 10)\n"
        "raise SystemExit(os.waitpid(child, 0)[1] if child else total() != 6000)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
