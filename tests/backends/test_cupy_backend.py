"""CuPy as a backend: who waits for the device and who does not, what is told too late, types, and no mixing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import emulated
from tinyformer import Tensor, backends, backward, functional, ops

BFLOAT16_STEP = 2.0**-8  # of the last digit, relative to the number, at most


@pytest.fixture
def xp(cupy_backend):
    return cupy_backend


@pytest.fixture
def counts(xp):
    """What the emulated CuPy counted in this test; a real one counts nothing."""
    if emulated.real_device():
        pytest.skip("a device counts no transfers")
    found = emulated.install().emulated.counts
    found.clear()
    return found


def half(xp, values):
    return xp.from_host(np.asarray(values, np.float32), xp.bfloat16)


# Transfers


def test_arrays_go_to_the_device_and_back(xp):
    for values in (np.arange(6).reshape(2, 3), np.float32(2.5), [[1.0, 2.0]], 3, np.zeros((0, 2)), np.array([True])):
        found = xp.to_host(xp.from_host(values))
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.asarray(values).dtype
        np.testing.assert_array_equal(found, values)
    assert xp.from_host([1, 2], xp.float32).dtype == np.float32


def test_views_arrive_as_they_are(xp):
    x = np.arange(24.0).reshape(2, 3, 4)
    there = xp.from_host(x)
    for view in (lambda a: a[:, ::2, 1:], lambda a: a.T, lambda a: a[1]):
        np.testing.assert_array_equal(xp.to_host(view(there)), view(x))
        np.testing.assert_array_equal(xp.to_host(xp.from_host(view(x))), view(x))
    assert xp.to_host(there.T).flags.f_contiguous, "a layout is kept"


def test_an_array_of_the_device_is_not_copied(xp, counts):
    x = xp.zeros((2, 3), dtype=xp.float32)
    assert xp.from_host(x) is x
    assert xp.from_host(x, xp.float32) is x
    assert xp.from_host(x, xp.float64).dtype == np.float64
    assert not counts["uploads"]
    assert not counts["transfers"]


def test_what_is_on_the_host_stays_there(xp):
    x = np.ones(3)
    assert xp.to_host(x) is x


def test_bfloat16_arrives_as_float32(xp):
    x = half(xp, [1.0, 1.0 + 2.0**-9, -3.14])
    found = xp.to_host(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1.0, 1.0, -3.140625], np.float32))


def test_a_step_of_the_composed_functions_does_not_wait(xp, counts):
    """Only who asks for a number does, and the indices are checked all the same."""
    rng = np.random.default_rng(0)
    table, weight = (Tensor(xp.from_host(rng.standard_normal(s)), requires_grad=True) for s in ((7, 4), (4, 7)))
    ids, targets = (xp.from_host(rng.integers(0, 7, (2, 3))) for _ in range(2))
    counts.clear()
    x = functional.gelu(functional.embedding(table, ids) @ weight, approximate=False)
    loss = functional.cross_entropy(x, targets, total=6.0)  # a total that has to be found may be 0, and is looked at
    gradients = backward(loss)
    assert not counts["transfers"] + counts["uploads"] + counts["synchronisations"]
    assert math.isfinite(loss.item())
    assert counts["transfers"] == 1
    assert gradients[table].shape == (7, 4)


# Faults


@pytest.mark.parametrize(("indices", "low", "high"), [([0, 5], 0, 5), ([-1, 4], -1, 4), ([7, -2, 1], -2, 7)])
def test_a_wrong_index_is_told_where_the_host_waits(xp, indices, low, high):
    table = Tensor(xp.from_host(np.eye(5)))
    rows = ops.take(table, xp.from_host(np.array(indices)))
    with pytest.raises(IndexError, match=f"^indices run from {low} to {high}, and must lie in 0 to 4$"):
        rows.numpy()
    assert rows.numpy().shape == (len(indices), 5), "it is told once"


def test_a_wrong_index_has_the_words_of_other_backends(xp):
    def told(backend):
        backend.check_indices(backend.from_host(np.array([3, 9])), 6, "targets")
        backend.to_host(backend.zeros(()))

    for backend in (backends.get("numpy"), xp):
        with pytest.raises(IndexError, match=r"^targets run from 3 to 9, and must lie in 0 to 5$"):
            told(backend)


def test_the_first_fault_of_each_kind_is_told(xp):
    for what, index in [("words", 8), ("words", 9), ("targets", 7)]:
        xp.check_indices(xp.from_host(np.array([index])), 5, what)
    told = []
    for _ in range(2):
        with pytest.raises(IndexError) as caught:
            xp.to_host(xp.zeros(()))
        told.append(str(caught.value).split(",")[0])
    assert sorted(told) == ["targets run from 7 to 7", "words run from 8 to 8"]


def test_indices_that_are_no_integers_are_told_at_once(xp):
    for wrong in (np.ones(2), np.ones(2, bool)):
        with pytest.raises(TypeError, match=f"indices must be integers, and these are {wrong.dtype}"):
            xp.check_indices(xp.from_host(wrong), 5, "indices")


def test_no_index_is_no_fault(xp):
    xp.check_indices(xp.zeros((0, 3), dtype=xp.int64), 5, "indices")
    xp.check_indices(xp.from_host(np.array([0, 4], np.int16)), 5, "indices")
    xp.to_host(xp.zeros(()))


def test_a_fault_in_a_recorded_look_up(xp):
    """The kernel that is replayed tells of what the indices are then."""
    cuda = emulated.install().cuda
    table, indices = xp.from_host(np.eye(4)), xp.from_host(np.array([0, 3]))
    stream = cuda.Stream(non_blocking=True)
    cuda.runtime.deviceSynchronize()
    with stream:
        for capture in (False, True):  # once for the compilation, which cannot be recorded
            if capture:
                stream.begin_capture()
            xp.check_indices(indices, 4, "indices")
            rows = xp.take(table, indices, axis=0)
        graph = stream.end_capture()
        graph.launch(stream)
        np.testing.assert_array_equal(xp.to_host(rows), np.eye(4)[[0, 3]])
        indices += 2
        graph.launch(stream)
        with pytest.raises(IndexError, match="indices run from 2 to 5"):
            xp.to_host(rows)


# Whose arrays are whose


def test_its_arrays_do_not_mix_with_others(xp):
    here, there = np.ones(3), xp.from_host(np.ones(3))
    assert backends.of(there) is xp
    for mix in (lambda: here + there, lambda: there * here, lambda: there @ here, lambda: np.asarray(there)):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(TypeError, match="tensors of one backend, found cupy and numpy"):
        ops.add(Tensor(here), Tensor(there))
    assert Tensor(there).array is there


def test_it_is_loaded_once_and_named(xp):
    assert backends.get("cupy") is xp
    assert repr(xp) == "<backend cupy>"


def test_what_the_device_is(xp):
    facts = xp.description()
    assert set(facts) == {"device", "compute capability", "driver", "runtime", "cupy"}
    assert all(isinstance(value, str) and value for value in facts.values())
    free, total, used = xp.memory()
    x = xp.zeros(1 << 20, dtype=xp.float32)
    assert 0 < free <= total
    assert xp.memory()[2] >= used + x.nbytes


# What CuPy lacks


@given(data=st.data())
def test_unstack_and_vecdot(xp, data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    a, b = np.random.default_rng(0).standard_normal((2, *shape))
    for found, expected in zip(xp.unstack(xp.from_host(a), axis=axis), np.moveaxis(a, axis, 0), strict=True):
        np.testing.assert_array_equal(xp.to_host(found), expected)
    found = xp.to_host(xp.vecdot(xp.from_host(a), xp.from_host(b), axis=axis))
    np.testing.assert_allclose(found, np.vecdot(a, b, axis=axis), atol=1e-14)


# bfloat16


def test_bfloat16_is_a_real_number(xp):
    x = half(xp, [1.0])
    for kind, expected in {
        "real floating": True,
        "numeric": True,
        "integral": False,
        ("bool", "real floating"): True,
        ("bool", "integral"): False,
        xp.bfloat16: True,
        xp.float32: False,
    }.items():
        assert xp.isdtype(x.dtype, kind) is expected
    assert xp.isdtype(np.dtype(np.float32), "real floating")
    assert xp.is_floating(x)
    assert not xp.is_floating(xp.from_host([1]))
    assert Tensor(x, requires_grad=True).requires_grad


def test_sums_of_bfloat16_lose_no_terms(xp):
    """Added up in bfloat16, ten thousand ones are 256."""
    ones = half(xp, np.ones(10_000))
    assert float(xp.sum(ones)) == 9984.0  # the nearest that there is to 10000
    assert float(xp.mean(ones)) == 1.0
    assert float(xp.vecdot(ones, ones)) == 9984.0
    assert float(xp.sum(ones, dtype=xp.float32)) == 10_000.0
    for result in (xp.sum(ones), xp.mean(ones), xp.vecdot(ones, ones), xp.max(ones)):
        assert result.dtype == xp.bfloat16
        assert result.shape == ()


@pytest.mark.parametrize("axis", [None, 0, (0, -1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_and_means_of_bfloat16(xp, axis, keepdims):
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    there = half(xp, x)
    x = xp.to_host(there)
    for name in ("sum", "mean", "max"):
        found = getattr(xp, name)(there, axis=axis, keepdims=keepdims)
        expected = getattr(np, name)(x.astype(float), axis=axis, keepdims=keepdims)
        assert found.dtype == xp.bfloat16
        np.testing.assert_allclose(xp.to_host(found), expected, rtol=BFLOAT16_STEP, atol=1e-6)


def test_choices_keep_bfloat16(xp):
    """CuPy itself would choose in float32."""
    x, truths = half(xp, [-2.0, 0.5, 3.0]), xp.from_host(np.array([True, False, True]))
    for chosen, expected in [
        (xp.where(truths, x, xp.zeros_like(x)), [-2.0, 0.0, 3.0]),
        (xp.where(truths, x, 1.5), [-2.0, 1.5, 3.0]),
        (xp.clip(x, -1.0, 1.0), [-1.0, 0.5, 1.0]),
    ]:
        assert chosen.dtype == xp.bfloat16
        np.testing.assert_array_equal(xp.to_host(chosen), expected)
    assert xp.where(truths, x, xp.astype(x, xp.float32)).dtype == np.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_erf_keeps_its_type(xp, dtype):
    points = np.linspace(-4, 4, 101)
    x = xp.from_host(points, getattr(xp, dtype))
    found = xp.erf(x)
    assert found.dtype == x.dtype
    exact = [math.erf(float(value)) for value in xp.to_host(x)]
    tolerance = {"bfloat16": BFLOAT16_STEP, "float16": 2.0**-10, "float32": 1e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(xp.to_host(found), exact, rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 0.3,
        lambda x: x + 0.5,
        lambda x: 1.0 - x,
        lambda x: x / 3.0,
        lambda x: x**2,
        lambda x: (x * x + 0.1) ** 0.5,
        functional.relu,
        functional.silu,
        functional.gelu,
        lambda x: functional.gelu(x, approximate=False),
        functional.softmax,
        functional.log_softmax,
        functional.mean,
        lambda x: functional.layer_norm(x, x[0]),
        lambda x: functional.rms_norm(x, x[1]),
        lambda x: ops.maximum(x, x * 0.5),
        lambda x: ops.max(x, axis=0),
        lambda x: ops.sqrt(x * x + 1.0),
        lambda x: ops.absolute(x),
        lambda x: ops.sin(x) + ops.cos(x),
    ],
)
def test_composed_functions_keep_bfloat16(xp, function):
    """Value and gradient, near those in float64; the engine refuses a gradient of another type."""
    values = xp.to_host(half(xp, np.random.default_rng(0).uniform(-2, 2, (3, 8))))
    results = []
    for dtype in (xp.float64, xp.bfloat16):
        x = Tensor(xp.from_host(values, dtype), requires_grad=True)
        out = function(x)
        assert out.dtype == dtype
        results.append([out.numpy(), xp.to_host(backward(ops.sum(out * out))[x])])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05 * max(1.0, np.abs(expected).max()))
