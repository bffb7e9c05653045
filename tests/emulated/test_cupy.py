"""The stand-in for CuPy: as strict as CuPy, and its streams, graphs and memory as on a device."""

import ml_dtypes
import numpy as np
import pytest

from tests import emulated

HALF = ml_dtypes.bfloat16


@pytest.fixture
def cupy():
    if emulated.real_device():
        pytest.skip("there is a real device")
    module = emulated.install()
    with emulated.available():
        yield module


@pytest.fixture
def recorded(cupy):
    """Record a function on a stream of its own: `recorded(function) -> graph, what it returned`."""

    def record(function):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            stream.begin_capture()
            try:
                result = function()
            finally:
                graph = stream.end_capture()
        return graph, result

    return record


# Strictness


@pytest.mark.parametrize(
    "mix",
    [
        lambda cp, x, y: x + y,
        lambda cp, x, y: y * x,
        lambda cp, x, y: x @ y,
        lambda cp, x, y: x < y,
        lambda cp, x, y: cp.exp(y),
        lambda cp, x, y: cp.concat([x, y]),
        lambda cp, x, y: cp.where(x > 0, x, y),
        lambda cp, x, y: np.add(x, y),
        lambda cp, x, y: x.__setitem__(..., y),
        lambda cp, x, y: x.__iadd__(y),
        lambda cp, x, y: x[y.astype(int)],
        lambda cp, x, y: cp.add(x, x, out=y),
    ],
)
def test_arrays_of_numpy_do_not_mix_with_its_own(cupy, mix):
    with pytest.raises(TypeError):
        mix(cupy, cupy.ones(3), np.ones(3))


def test_numbers_mix_with_its_arrays(cupy):
    x = cupy.arange(3, dtype=np.float32)
    for found, dtype in [(x * 2, "f4"), (2.5 - x, "f4"), (np.float32(2) * x, "f4"), (x * np.float64(2), "f8")]:
        assert type(found) is cupy.ndarray
        assert found.dtype == dtype
    np.testing.assert_array_equal((2.5 - x).get(), [2.5, 1.5, 0.5])


def test_numpy_does_not_convert_its_arrays(cupy):
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        np.asarray(cupy.ones(3))
    assert not hasattr(cupy.ones(3), "__array_namespace__")
    assert type(np.exp(cupy.ones(3))) is cupy.ndarray


@pytest.mark.parametrize("name", ["unstack", "vecdot", "errstate", "asmatrix", "no_such_thing", "random"])
def test_what_cupy_lacks_is_absent(cupy, name):
    assert not hasattr(cupy, name)


def test_reductions_give_arrays(cupy):
    x = cupy.ones((2, 3))
    for found in (x.sum(), cupy.max(x), x[0, 1], cupy.all(x > 0), cupy.argmax(x)):
        assert type(found) is cupy.ndarray
        assert found.shape == ()
    with pytest.raises(TypeError, match="initial"):
        cupy.sum(x, initial=0.0)


def test_an_index_beyond_the_end_is_not_noticed(cupy):
    x = cupy.arange(5)
    np.testing.assert_array_equal(x[cupy.asarray([0, 7, -1])].get(), [0, 2, 4])
    np.testing.assert_array_equal(cupy.take(x, cupy.asarray([6])).get(), [1])


def test_types_that_bfloat16_becomes(cupy):
    x = cupy.ones((2, 3), HALF)
    for found, dtype in [(x + x, HALF), (x * 2, HALF), (x * 2.0, np.float32), (cupy.where(x > 0, x, x), np.float32)]:
        assert found.dtype == dtype
    assert float(cupy.ones(10_000, HALF).sum()) == 9984.0
    assert (x @ x.T).dtype == HALF
    with pytest.raises(TypeError):
        x[None] @ x.T


def test_new_memory_is_rubbish(cupy):
    assert np.isnan(cupy.empty(4, np.float32).get()).all()
    assert cupy.empty(4, bool).get().all()


def test_what_goes_to_the_host_is_counted(cupy):
    x, counts = cupy.ones(3), cupy.emulated.counts
    ways = [float, int, bool, repr, cupy.asnumpy, lambda a: a.item(), lambda a: a.get(), lambda a: a.tolist()]
    for way in ways:
        counts.clear()
        way(x.sum())
        assert counts["transfers"] == 1
    counts.clear()
    for quiet in (
        lambda: x[1:],
        lambda: x.sum(),
        lambda: x.T.reshape(-1),
        lambda: cupy.where(x > 0, x, 0.0),
        lambda: len(x),
    ):
        quiet()
    assert not counts["transfers"]
    _ = x[x > 0]
    assert counts["transfers"] == 1, "how many there are decides about the shape"


def test_devices_are_kept_apart(cupy):
    x = cupy.ones(3)
    with cupy.cuda.Device(1):
        y = cupy.ones(3)
        assert y.device == cupy.cuda.Device(1)
        with pytest.raises(ValueError, match="array device = 0 while current = 1"):
            x + 1
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        x + y
    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.Device(2)


def test_memory_is_used_again(cupy):
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.ones(1000)
        place = x.data.ptr
        view = x[10:]
        del x
        assert cupy.ones(1000).data.ptr != place, "a view keeps it"
        del view
        y = cupy.ones(1000)
        assert place in {y.data.ptr, cupy.ones(1000).data.ptr}
    assert pool.used_bytes() == 8192
    assert pool.total_bytes() == 2 * 8192
    del y
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


# Recording


def test_recorded_work_is_done_at_launch(cupy, recorded):
    x, total = cupy.arange(4.0), cupy.zeros(4)

    def work():
        y = cupy.exp(x) * 2.0
        y += 1.0
        y[1:][0] = 5.0
        total[...] = total + y
        return y

    graph, y = recorded(work)
    assert np.isnan(y.get()).all(), "nothing was computed"
    np.testing.assert_array_equal(total.get(), 0.0)
    for launches in (1, 2):
        graph.launch()
        expected = np.exp(np.arange(4.0)) * 2 + 1
        expected[1] = 5.0
        np.testing.assert_allclose(y.get(), expected)
        np.testing.assert_allclose(total.get(), launches * expected)
    x[...] = 0.0
    graph.launch()
    np.testing.assert_allclose(y.get(), [3, 5, 3, 3])


def test_a_graph_whose_memory_went_to_others_shows(cupy, recorded):
    """As on a device, unless its memory comes from a pool that nobody else uses."""
    x = cupy.full(1000, 3.0)
    graph, out = recorded(lambda: (x * 2.0) + 1.0)
    others = [cupy.full(1000, 7.0) for _ in range(20)]
    graph.launch()
    assert any((other.get() != 7.0).any() for other in others)
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        graph, out = recorded(lambda: (x * 2.0) + 1.0)
    others = [cupy.full(1000, 7.0) for _ in range(20)]
    graph.launch()
    assert not any((other.get() != 7.0).any() for other in others)
    np.testing.assert_array_equal(out.get(), 7.0)


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda cp, x: float(x.sum()),
        lambda cp, x: x.get(),
        lambda cp, x: bool(x[0, 0]),
        lambda cp, x: x @ x,
        lambda cp, x: cp.asarray(np.ones(3)),
        lambda cp, x: cp.asarray([1.0, 2.0]),
        lambda cp, x: x[x > 0],
        lambda cp, x: cp.nonzero(x),
        lambda cp, x: cp.cuda.runtime.deviceSynchronize(),
        lambda cp, x: cp.cuda.get_current_stream().synchronize(),
        lambda cp, x: x.set(np.ones((2, 2))),
    ],
)
def test_what_cannot_be_recorded_raises_and_ends_the_recording(cupy, forbidden):
    x = cupy.ones((2, 2))
    with cupy.cuda.Stream() as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            forbidden(cupy, x)
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
    assert float(x.sum()) == 4.0


def test_pinned_memory_is_read_at_launch(cupy, recorded):
    pinned = cupy.cuda.alloc_pinned_memory(16)
    numbers, x = np.frombuffer(pinned, np.float64, 2), cupy.zeros(2)
    numbers[...] = 1.0
    graph, _ = recorded(lambda: x.data.copy_from_host_async(pinned.ptr, 16))
    numbers[...] = 2.0
    graph.launch()
    np.testing.assert_array_equal(x.get(), 2.0)
