"""Recorded functions give what the functions give, and lose nothing where they cannot be recorded."""

import numpy as np
import pytest

from tests.emulated import real_device


def calls(count):
    """Inputs that differ in each call, and a state that a function may change."""
    rng = np.random.default_rng(0)
    return [
        {"x": rng.standard_normal((3, 5)).astype(np.float32), "n": np.array([i, 2], np.int64)} for i in range(count)
    ]


@pytest.fixture
def counts(cupy_backend):
    """What the stand-in counts, from now on."""
    if real_device():
        pytest.skip("a device does not count")
    import cupy

    before = dict(cupy.emulated.counts)
    return lambda name: cupy.emulated.counts[name] - before.get(name, 0)


def accumulating(xp):
    """A function that adds up what it is given, with memory that it frees in between, and the state it keeps."""
    state = xp.zeros((3, 5), dtype=xp.float32)

    def function(arrays):
        scaled = arrays["x"] * xp.astype(arrays["n"], xp.float32)[0]
        scaled = xp.exp(scaled * 0.1)  # what was there is free again, and may be used by what comes
        state[...] = state + scaled
        return {"sum": xp.sum(state, axis=0), "scaled": scaled}

    return function, state


def run(xp, function, inputs, **options):
    recorded = xp.recorded(function, **options)
    found = []
    for arrays in inputs:
        outputs = recorded(arrays)
        found.append({name: xp.to_host(array).copy() for name, array in outputs.items()})
    return found


def test_replays_equal_calls_bit_for_bit(cupy_backend):
    xp, ends = cupy_backend, []
    for record in (True, False):
        function, state = accumulating(xp)
        found = run(xp, function, calls(6), record=record)
        ends.append([*(array for step in found for array in step.values()), xp.to_host(state)])
    for ours, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(ours, other)
    expected = sum(np.exp(a["x"].astype(np.float64) * int(a["n"][0]) * 0.1) for a in calls(6))
    np.testing.assert_allclose(ends[0][-1], expected, rtol=1e-5)


def test_each_shape_is_run_once_then_recorded_then_replayed(cupy_backend, counts):
    xp, entered = cupy_backend, []
    function, _ = accumulating(xp)

    def watched(arrays):
        entered.append(len(entered))
        return function(arrays)

    run(xp, watched, calls(5))
    assert len(entered) == 2
    assert counts("graphs") == 4


def test_other_shapes_or_types_have_graphs_of_their_own(cupy_backend, counts):
    xp = cupy_backend
    inputs = [
        {"x": np.full(size, value, dtype), **more}
        for size in (3, 700)
        for dtype in (np.float32, np.int32)
        for more in ({}, {"y": np.zeros(2, np.float32)})
        for value in (1, 2, 3)
    ]
    found = run(xp, lambda arrays: {"twice": arrays["x"] * 2, "count": xp.sum(arrays["x"])}, inputs)
    for arrays, outputs in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(outputs["twice"], arrays["x"] * 2)
        assert outputs["count"] == arrays["x"].sum()
    assert counts("graphs") == 8 * 2


def test_only_the_latest_graphs_are_kept(cupy_backend, counts):
    from tinyformer.backends.cupy import graphs

    xp = cupy_backend
    recorded = xp.recorded(lambda arrays: {"y": arrays["x"] + 1})
    for size in range(1, graphs.MOST + 3):
        for _ in range(2):
            np.testing.assert_array_equal(xp.to_host(recorded({"x": np.arange(size)})["y"]), np.arange(size) + 1)
    assert len(recorded._calls) == graphs.MOST
    before = counts("graphs")
    recorded({"x": np.arange(graphs.MOST + 2)})  # the latest
    assert counts("graphs") == before + 1
    recorded({"x": np.arange(1)})  # gone, and so seen for the first time
    assert counts("graphs") == before + 1


def test_what_cannot_be_recorded_runs_and_warns_once(cupy_backend):
    """A function that waits for the device: a capture that fails has executed nothing, so the state is right."""
    xp, warned = cupy_backend, []
    state = xp.zeros(3, dtype=xp.float32)

    def waits(arrays):
        state[...] = state + arrays["x"]
        largest = float(xp.max(state))
        return {"y": state / largest}

    inputs = [{"x": np.arange(3, dtype=np.float32) + i} for i in range(5)]
    found = run(xp, waits, inputs, warn=warned.append)
    sums = np.cumsum([arrays["x"] for arrays in inputs], axis=0)
    for outputs, total in zip(found, sums, strict=True):
        np.testing.assert_allclose(outputs["y"], total / total.max(), rtol=1e-6)
    (message,) = warned
    assert "cannot be recorded" in message
    assert "\n" not in message


def test_an_error_of_the_function_itself_reaches_the_caller(cupy_backend):
    xp, warned, broken = cupy_backend, [], []

    def function(arrays):
        if broken:
            raise ValueError("broken")
        return {"y": arrays["x"] + 1}

    recorded = xp.recorded(function, warn=warned.append)
    recorded({"x": np.arange(3)})
    broken.append(True)
    with pytest.raises(ValueError, match="broken"):
        recorded({"x": np.arange(3)})
    broken.clear()
    np.testing.assert_array_equal(xp.to_host(recorded({"x": np.arange(3)})["y"]), [1, 2, 3])


def test_inputs_may_be_changed_as_soon_as_a_call_returns(cupy_backend):
    xp = cupy_backend
    recorded, x = xp.recorded(lambda arrays: {"y": arrays["x"] * 1}), np.zeros(4, np.float32)
    for value in range(4):
        x[...] = value
        outputs = recorded({"x": x})
        x[...] = -1
        np.testing.assert_array_equal(xp.to_host(outputs["y"]), value)


def test_nothing_is_copied_to_the_host_but_what_is_asked_for(cupy_backend, counts):
    xp = cupy_backend
    function, _ = accumulating(xp)
    recorded = xp.recorded(function)
    for arrays in calls(4):
        recorded(arrays)
    assert counts("transfers") == counts("synchronisations") == counts("uploads") == 0


def test_memory_of_a_graph_is_given_to_nobody_else(cupy_backend):
    """Arrays that are made between replays do not fall into what a graph works in, nor does one graph's work."""
    xp = cupy_backend
    recorded = xp.recorded(lambda arrays: {"y": xp.sum(xp.exp(arrays["x"] * 0.5) + 1.0, axis=1)})
    inputs = [
        np.random.default_rng(i).standard_normal((4, size)).astype(np.float32) for i in range(4) for size in (5, 6)
    ]
    kept = []
    for x in inputs:
        found = recorded({"x": x})["y"]
        kept.append((xp.full((4, 6), 7.0, dtype=xp.float32), xp.full((4,), 7.0, dtype=xp.float32)))
        np.testing.assert_allclose(xp.to_host(found), (np.exp(x * 0.5) + 1).sum(axis=1), rtol=1e-5)
    assert all((xp.to_host(array) == 7.0).all() for pair in kept for array in pair)


def test_what_a_function_keeps_is_in_nobodys_way(cupy_backend):
    """A table that is made when it is first needed, after another graph was recorded, lies in no memory of that one."""
    xp, tables = cupy_backend, {}

    def function(arrays):
        x = arrays["x"]
        if x.shape not in tables:
            tables[x.shape] = xp.full(x.shape, 7.0, dtype=xp.float32)
        return {"y": xp.exp(xp.exp(x * 0.0) - 1.0) * tables[x.shape]}

    recorded = xp.recorded(function)
    for size in (3, 3, 3, 4, 4, 3, 4, 5, 3, 4, 5, 5, 3):
        found = recorded({"x": np.ones(size, np.float32)})["y"]
        np.testing.assert_array_equal(xp.to_host(found), np.full(size, 7.0))


def test_graphs_give_way_where_memory_is_short(cupy_backend, counts, monkeypatch):
    from tinyformer.backends.cupy import device

    xp = cupy_backend
    for left, replayed, kept in ((1 << 40, 4, 2), (0, 3, 1)):
        monkeypatch.setattr(device, "memory", lambda left=left: (left, 1 << 40, 0))
        recorded, before = xp.recorded(lambda arrays: {"y": arrays["x"] * 2.0}), counts("graphs")
        for size in (3, 3, 3, 4, 4, 3):
            found = recorded({"x": np.ones(size * 1000, np.float32)})["y"]
            np.testing.assert_array_equal(xp.to_host(found), np.full(size * 1000, 2.0))
        assert counts("graphs") - before == replayed
        assert len(recorded._calls) == kept


def test_a_graph_whose_pool_had_to_give_memory_back_is_not_used(cupy_backend, counts, monkeypatch):
    """Kernels that were recorded before may work in what is no longer theirs; the step runs, and is recorded later."""
    import cupy

    refusals = iter([True])

    class Pool(cupy.cuda.MemoryPool):
        """Refused memory once, it frees what it has and goes on, as CuPy's pools do."""

        def __init__(self, allocator):
            super().__init__()
            self._ask = allocator

        def malloc(self, size):
            if next(refusals, False):
                with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
                    self._ask(size)
            return super().malloc(size)

    def refuse(size):
        raise cupy.cuda.runtime.CUDARuntimeError(2)

    xp = cupy_backend
    function, _ = accumulating(xp)
    expected = run(xp, accumulating(xp)[0], calls(5), record=False)
    monkeypatch.setattr(cupy.cuda, "MemoryPool", Pool)
    monkeypatch.setattr(cupy.cuda, "Memory", refuse, raising=False)
    for ours, other in zip(run(xp, function, calls(5)), expected, strict=True):
        np.testing.assert_array_equal(ours["sum"], other["sum"])
    assert counts("graphs") == 2  # the second call is refused and runs; the third begins anew; two are replayed
