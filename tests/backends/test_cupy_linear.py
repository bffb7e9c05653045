"""The linear map of the CuPy backend against the composed function on NumPy in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import emulated
from tests.emulated import compiler
from tests.emulated import cublaslt as stand_in
from tinyformer import Tensor, backward, functional, fused, ops
from tinyformer.backends.cupy import cublaslt

on_cupy = pytest.importorskip("tests.backends.on_cupy")

TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


@pytest.fixture
def xp(cupy_backend):
    return cupy_backend


@pytest.fixture(autouse=True)
def _no_mistakes(xp):
    yield
    if not emulated.real_device():
        assert stand_in.emulation().counts()["mistakes"] == 0


def kernels():
    from tinyformer.backends.cupy import linear

    return linear


def drawn(random, dtype, *shape):
    """Numbers that the dtype holds exactly, in double precision."""
    return random.standard_normal(shape).astype(dtype).astype(float)


def compare(xp, function, reference, arrays, dtype, *, turned=()):
    """Value and every gradient of a function on the device, with some inputs turned in memory, and of its reference."""
    random = np.random.default_rng(0)
    leaves = [Tensor(x, requires_grad=True) for x in arrays]
    expected = reference(*leaves)
    cotangent = drawn(random, dtype, *expected.shape)
    gradients = backward(ops.sum(expected * Tensor(cotangent)))
    ours = []
    for i, x in enumerate(arrays):
        x = x.astype(dtype)
        x = xp.from_host(np.ascontiguousarray(x.T)).T if i in turned else xp.from_host(x)
        ours.append(Tensor(x, requires_grad=True))
    out = function(*ours)
    found = backward(out, xp.from_host(cotangent.astype(dtype)))
    pairs = [(out.array, expected.array), *((found[a], gradients[b]) for a, b in zip(ours, leaves))]
    for device, exact in pairs:
        assert device.dtype.name == dtype
        bound = TOLERANCE[dtype] * max(1.0, np.abs(exact).max(initial=0.0))
        np.testing.assert_allclose(device.get().astype(float), exact, atol=bound)
    return [device.get() for device, _ in pairs]


@given(data=st.data())
@settings(max_examples=30)
def test_values_and_gradients(xp, data):
    dtype = data.draw(st.sampled_from(sorted(TOLERANCE)))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    *axes, d, f = (data.draw(st.integers(1, 9)) for _ in range(data.draw(st.integers(2, 4))))
    arrays = [drawn(random, dtype, *axes, d), drawn(random, dtype, d, f)]
    if data.draw(st.booleans()):
        arrays.append(drawn(random, dtype, f))
    turned = [i for i in (0, 1) if data.draw(st.booleans())]
    refused = data.draw(st.sampled_from((0, cublaslt.BIAS, cublaslt.SUMS_A | cublaslt.SUMS_B)))
    with stand_in.refusing(refused):
        once, again = (compare(xp, fused.linear, functional.linear, arrays, dtype, turned=turned) for _ in range(2))
    for a, b in zip(once, again):
        np.testing.assert_array_equal(a, b)


def test_the_kernel_runs_where_it_is_supported(xp):
    x, weight = (Tensor(xp.from_host(np.ones((2, 2), "float32")), requires_grad=True) for _ in range(2))
    assert fused.linear(x, weight).node.name == "linear"
    x, weight = (Tensor(xp.from_host(np.ones((2, 2))), requires_grad=True) for _ in range(2))
    assert fused.linear(x, weight).node.name == "reshape"


@pytest.mark.parametrize("turned", [False, True])
def test_the_gradient_of_a_turned_weight_lies_as_the_weight(xp, turned):
    x, table = (Tensor(xp.from_host(np.ones(shape, np.float32)), requires_grad=True) for shape in ((2, 3), (5, 3)))
    weight = table.T if turned else Tensor(xp.ascontiguousarray(table.array.T), requires_grad=True)
    bias = Tensor(xp.from_host(np.ones(5, np.float32)), requires_grad=True)
    gradients = backward(ops.sum(fused.linear(x, weight, bias)))
    assert gradients[table if turned else weight].flags.c_contiguous


@pytest.mark.parametrize("turned", [False, True])
def test_a_bias_and_its_gradient_come_with_products(xp, turned):
    x, weight, table, bias = (
        Tensor(xp.from_host(np.ones(n, np.float32)), requires_grad=True) for n in ((2, 3), (3, 5), (5, 3), 5)
    )
    before = stand_in.emulation().counts()["products"]
    backward(ops.sum(fused.linear(x, table.T if turned else weight, bias)))
    assert stand_in.emulation().counts()["products"] == before + 3


def test_a_bias_with_gaps(xp):
    random = np.random.default_rng(8)
    x, weight, wide = (xp.from_host(random.standard_normal(n, np.float32)) for n in ((3, 4), (4, 5), 10))
    found = kernels().affine(x, weight, wide[::2]).get()
    np.testing.assert_allclose(found, x.get() @ weight.get() + wide.get()[::2], atol=1e-5)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(0, 3, 2), (3, 0, 2), (3, 2, 0)])
def test_nothing(xp, rows, inputs, outputs):
    arrays = [np.ones((rows, inputs)), np.ones((inputs, outputs)), np.ones(outputs)]
    if not inputs:  # which has no one shape to go back to
        x, weight, bias = (xp.from_host(x.astype("float32")) for x in arrays)
        np.testing.assert_array_equal(kernels().affine(x, weight, bias).get(), np.ones((rows, outputs)))
        return
    compare(xp, fused.linear, functional.linear, arrays, "float32")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (3, 7), (8, 128), (9, 129), (257, 264), (300, 1), (1, 600), (2000, 40), (20000, 8)]
)
def test_sums_of_columns(xp, rows, columns, dtype):
    """Alone, as where no product forms them: also of views that begin anywhere, and beyond one block and part."""
    wide = drawn(np.random.default_rng(5), dtype, rows, columns + 1)
    for x in (xp.from_host(wide[:, :columns].astype(dtype)), xp.from_host(wide.astype(dtype)).reshape(-1)[1:]):
        x = x[: rows * columns].reshape(rows, columns)
        results = []
        for order in ("forward", "reverse", "shuffled"):
            out = xp.empty((columns,), dtype=x.dtype)
            with compiler.order(order, 7):
                kernels().column_sums(x, out)
            results.append(out.get())
        exact = x.get().astype(float).sum(axis=0)
        bound = TOLERANCE[dtype] * max(1.0, np.abs(exact).max())
        np.testing.assert_allclose(results[0].astype(float), exact, atol=bound)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


def test_a_recorded_linear_map(xp):
    """Forward and backward, with the sums in the product and without: replayed, they give the eager bits."""
    cupy = emulated.install()
    random = np.random.default_rng(6)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in ((40, 16), (16, 24), (24,))]
    g = xp.from_host(random.standard_normal((40, 24)).astype(np.float32))
    ours = kernels()
    stream = cupy.cuda.Stream(non_blocking=True)

    def step():
        out, saved = ours.linear.forward(xp, *inputs)
        return [out, *ours.linear.backward(xp, saved, g)]

    for refused in (0, cublaslt.BIAS | cublaslt.SUMS_A | cublaslt.SUMS_B):
        with stand_in.refusing(refused), stream:
            inputs = [xp.from_host(x) for x in arrays]
            eager = [x.get() for x in step()]
            stream.begin_capture()
            results = step()
            graph = stream.end_capture()
            for x in results:  # whose memory held the same numbers already
                x[...] = 0
            graph.launch(stream)
            for a, b in zip(eager, results, strict=True):
                np.testing.assert_array_equal(a, b.get())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(rows + gridDim.y - 1) / gridDim.y", "rows / gridDim.y"),
        ("bool packed = columns % SIZE == 0 && aligned(x)", "bool packed = aligned(x)"),
        ("line < LINES; line++", "line < LINES - 1; line++"),
        ("part < parts; part++", "part < 1; part++"),
    ],
)
def test_planted_bugs_of_sums(xp, monkeypatch, right, wrong):
    if emulated.real_device():
        pytest.skip("a device may not notice what a bug reads")
    on_cupy.plant(monkeypatch, kernels(), right, wrong)
    with on_cupy.caught():
        for rows, columns in ((257, 264), (300, 130)):
            test_sums_of_columns(xp, rows, columns, "float32")
