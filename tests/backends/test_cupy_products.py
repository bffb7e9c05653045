"""Products of the CuPy backend in every layout, against NumPy's in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import emulated
from tests.emulated import cublaslt as stand_in
from tinyformer.backends.cupy import cublaslt

ml_dtypes = pytest.importorskip("ml_dtypes")

TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 8e-3}


@pytest.fixture
def xp(cupy_backend):
    return cupy_backend


@pytest.fixture(autouse=True)
def _no_mistakes(xp):
    """What the library would refuse is not hidden by another way to the result."""
    yield
    if not emulated.real_device():
        assert stand_in.emulation().counts()["mistakes"] == 0


def products():
    from tinyformer.backends.cupy import products

    return products


def cupy():
    return emulated.install()


def lying(x, kind):
    """The array on the device, its last axes or its batch as views may lie."""
    x = cupy().asarray(x)
    if kind == "turned":
        return cupy().ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    if kind == "heads" and x.ndim > 2:  # as of "b t h c", seen as "b h t c"
        return cupy().ascontiguousarray(x.swapaxes(-3, -2)).swapaxes(-3, -2)
    if kind in ("part", "gaps"):
        wide = cupy().zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
        view = wide[..., 1 : x.shape[-1] + 1] if kind == "part" else wide[..., 1::2]
        view[...] = x
        return view
    if kind == "repeated":
        return cupy().broadcast_to(x[..., :1, :], x.shape)
    if kind == "repeated columns":
        return cupy().broadcast_to(cupy().ascontiguousarray(x[..., :1]), x.shape)
    if kind == "backwards":
        return x[..., ::-1, :]
    if kind == "last batch first":
        return x[::-1]
    return x


KINDS = ("rows", "turned", "heads", "part", "gaps", "repeated", "repeated columns", "backwards", "last batch first")


def close(found, a, b, dtype):
    expected = np.matmul(a.get().astype(float), b.get().astype(float))
    assert found.dtype == a.dtype
    assert found.shape == expected.shape
    bound = TOLERANCE[dtype] * max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found.get().astype(float), expected, atol=bound)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_each_layout(kind, dtype):
    random = np.random.default_rng(7)
    batches = [((), ()), ((3,), ()), ((2, 3), (2, 3)), ((), (3,)), ((3,), (2, 3)), ((2, 1), (2, 3))]
    for first, second in [((*batch, 4, 6), (*other, 6, 5)) for batch, other in batches]:
        a, b = random.standard_normal(first).astype(dtype), random.standard_normal(second).astype(dtype)
        for other in KINDS:
            factors = lying(a, kind), lying(b, other)
            close(products().matmul(*factors), *factors, dtype)


@given(data=st.data())
@settings(max_examples=60)
def test_every_layout_and_batch(data):
    dtype = data.draw(st.sampled_from(sorted(TOLERANCE)))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, k, m = (data.draw(st.integers(1, 9)) for _ in range(3))
    full = tuple(data.draw(st.integers(1, 3)) for _ in range(data.draw(st.integers(0, 3))))
    factors = []
    for shape in ((n, k), (k, m)):
        batch = tuple(data.draw(st.sampled_from((size, size, 1))) for size in full)
        batch = batch[data.draw(st.integers(0, len(batch))) :]
        values = random.standard_normal((*batch, *shape)).astype(dtype)
        factors.append(lying(values, data.draw(st.sampled_from(KINDS))))
    close(products().matmul(*factors), *factors, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_vectors(dtype):
    random = np.random.default_rng(1)
    for first, second in [((5,), (5,)), ((5,), (5, 3)), ((4, 5), (5,)), ((2, 4, 5), (5,)), ((5,), (2, 5, 3))]:
        a, b = (cupy().asarray(random.standard_normal(shape).astype(dtype)) for shape in (first, second))
        close(products().matmul(a, b), a, b, dtype)


@pytest.mark.parametrize(
    "shapes", [((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 2)), ((4, 2, 0), (0, 3))]
)
def test_nothing(shapes):
    a, b = (cupy().zeros(shape, np.float32) for shape in shapes)
    close(products().matmul(a, b), a, b, "float32")


def test_shapes_that_do_not_fit():
    a = cupy().zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="as many columns as rows, not 3 and 2"):
        products().matmul(a, a)
    with pytest.raises(ValueError, match="broadcast"):
        products().matmul(cupy().zeros((2, 3, 4), np.float32), cupy().zeros((3, 4, 2), np.float32))


def rounded(x):
    """float32 with 10 bits after the leading one, to nearest."""
    bits = x.view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~np.uint32(0x1FFF)).view(np.float32)


def test_tf32(xp):
    random = np.random.default_rng(2)
    a, b = random.standard_normal((2, 128, 128)).astype(np.float32)  # worth a tensor core's while
    ours = products()
    with xp.rounding("tf32"):
        assert ours.current_rounding() == "tf32"
        found = xp.matmul(cupy().asarray(a), cupy().asarray(b)).get()
    exact = a.astype(float) @ b.astype(float)
    assert 1e-3 < np.abs(found - exact).max() < 0.1
    if not emulated.real_device():
        np.testing.assert_allclose(found, rounded(a).astype(float) @ rounded(b).astype(float), atol=1e-4)
    assert ours.current_rounding() == "float32"
    found = xp.matmul(cupy().asarray(a), cupy().asarray(b)).get()
    np.testing.assert_allclose(found, exact, atol=1e-4)
    with pytest.raises(ValueError, match="float32 or tf32, not to float16"), xp.rounding("float16"):
        pass


def test_a_kind_of_product_is_planned_once(xp):
    a, b = (cupy().asarray(np.ones((37, 37), np.float32)) for _ in range(2))
    products()._plans.clear()
    before = stand_in.emulation().counts()
    assert products().library().handle(0) == products().library().handle(0)
    for _ in range(3):
        xp.matmul(a, b)
        xp.matmul(a, b.T)
    made = {name: count - before[name] for name, count in stand_in.emulation().counts().items()}
    assert made == {"descriptors": 2, "layouts": 6, "heuristics": 2, "products": 6, "mistakes": 0}


def test_the_memory_that_algorithms_work_in_is_kept(xp):
    arrays = [cupy().asarray(np.ones((n, n), np.float32)) for n in range(1, 9)]  # some of which ask for it
    for a in arrays:
        xp.matmul(a, a)
    before = dict(products()._workspaces)
    for a in arrays:
        xp.matmul(a, a)
    assert before or emulated.real_device()
    assert all(products()._workspaces[key] is memory for key, memory in before.items())


def test_a_recorded_product(xp):
    """It is not computed while it is recorded, and computed anew, and to the same bits, at each replay."""
    random = np.random.default_rng(3)
    a, b = (cupy().asarray(random.standard_normal((6, 70)).astype(np.float32)) for _ in range(2))
    stream = cupy().cuda.Stream(non_blocking=True)
    with stream:
        eager = xp.matmul(a, b.T).get()
        planned = dict(products()._plans)
        stream.begin_capture()
        out = xp.matmul(a, b.T)
        graph = stream.end_capture()
        assert products()._plans == planned
        out[...] = 0  # as the memory of the eager product, its numbers in it, may have been given to this one
        graph.launch(stream)
        np.testing.assert_array_equal(out.get(), eager)
        a[...] = a * 2
        graph.launch(stream)
        np.testing.assert_array_equal(out.get(), eager * 2)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_the_library(monkeypatch, dtype):
    ours = products()
    monkeypatch.setattr(cublaslt, "find", lambda: None)
    for cached in (ours.planned, ours.library):
        cached.cache_clear()
    random = np.random.default_rng(4)
    a = cupy().asarray(random.standard_normal((2, 1, 3, 4)).astype(dtype))
    b = cupy().asarray(random.standard_normal((5, 4, 6)).astype(dtype))
    try:
        with pytest.warns(RuntimeWarning, match="pip install nvidia-cublas"):
            close(ours.matmul(a, b), a, b, dtype)
        close(ours.matmul(a[0, 0, 0], b), a[0, 0, 0], b, dtype)
        close(ours.matmul(a, b[0, :, 0]), a, b[0, :, 0], dtype)
        assert ours.multiply(a[0, 0], b[0], cupy().zeros((3, 6), dtype)) is False
    finally:
        for cached in (ours.planned, ours.library):
            cached.cache_clear()


def test_products_that_it_has_no_algorithm_for(xp):
    ours = products()
    a = cupy().asarray(np.arange(12.0, dtype=np.float32).reshape(3, 4))
    with stand_in.refusing(cublaslt.PLAIN):
        close(xp.matmul(a, a.T), a, a.T, "float32")
        out = cupy().zeros((3, 3), np.float32)
        ours.product(a, a.T, out)
        close(out, a, a.T, "float32")


@pytest.mark.parametrize(("count", "state"), [(0, 0), (1, cublaslt.UNSUPPORTED)])
def test_answers_without_an_algorithm(xp, monkeypatch, count, state):
    def answer(*arguments):
        found, number = arguments[-2:]
        found._obj.state, number._obj.value = state, count
        return 0

    a = cupy().asarray(np.arange(12.0, dtype=np.float32).reshape(3, 4))
    with stand_in.refusing(0):  # plans made before, or here
        monkeypatch.setattr(products().library(), "MatmulAlgoGetHeuristic", answer)
        close(xp.matmul(a, a.T), a, a.T, "float32")


def test_an_algorithm_that_turns_out_not_to_be_one(xp, monkeypatch):
    """The library may say so when it is to run it; it is not asked again."""
    ours, asked = products(), []
    a = cupy().asarray(np.arange(12.0, dtype=np.float32).reshape(3, 4))
    monkeypatch.setattr(ours.library(), "Matmul", lambda *arguments: asked.append(1) or cublaslt.UNSUPPORTED)
    ours._plans.clear()
    for _ in range(2):
        close(xp.matmul(a, a.T), a, a.T, "float32")
    ours._plans.clear()
    assert asked == [1]


def test_numbers_of_two_types(xp):
    a, b = (cupy().asarray(np.ones((3, 3), dtype)) for dtype in ("float32", "float64"))
    assert xp.matmul(a, b).dtype == np.float64
    np.testing.assert_array_equal(xp.matmul(a, b).get(), np.full((3, 3), 3.0))


@pytest.mark.parametrize("dtype", ["int32", "float16"])
def test_other_numbers(xp, dtype):
    a = cupy().asarray(np.arange(12).reshape(3, 4).astype(dtype))
    np.testing.assert_array_equal(xp.matmul(a, a.T).get(), a.get() @ a.get().T)


def test_an_error_of_the_library_names_it():
    with pytest.raises(RuntimeError, match=r"cuBLASLt's product failed: execution failed \(status 13\)"):
        cublaslt.check(13, "product")
