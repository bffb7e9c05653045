"""AdamW on the device, by the host's numbers and by the device's, against the paper's formula in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backends.on_cupy import DTYPES, LAYOUTS, placed, plant
from tests.emulated import compiler
from tinyformer.training.optimizer import adamw, clip_scale

SETTINGS = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.1}
SIZES = st.sampled_from([0, 1, 3, 4, 5, 127, 1024, 5003])


def state(size, seed=0):
    """Parameters, gradients and running means, as after some steps; the last are squares."""
    arrays = np.random.default_rng(seed).standard_normal((4, size)) * np.array([[1.0], [0.1], [0.05], [0.1]])
    arrays[3] **= 2
    return list(arrays.astype(np.float32))


def expected(arrays, **settings):
    wide = [array.astype(np.float64) for array in arrays]
    adamw(*wide, **SETTINGS, **settings)
    return wide


def on_device(xp, arrays, shift):
    """Flat arrays that begin so many numbers after the beginning of another."""
    return [xp.from_host(np.concatenate([np.ones(shift, array.dtype), array]))[shift:] for array in arrays]


def assert_near(xp, found, right, learning_rate):
    """A step is the learning rate times about 1, and so is its error, times that of float32."""
    for array, wide, scale in zip(found, right, (1.0, None, 0.1, 0.01)):
        if scale:
            tolerance = 1e-6 * (scale + learning_rate)
            np.testing.assert_allclose(xp.to_host(array), wide, rtol=1e-6, atol=tolerance)


@given(
    size=SIZES,
    decayed=st.sampled_from([0.0, 0.4, 1.0]),
    shift=st.sampled_from([0, 1, 4]),
    step=st.sampled_from([1, 2, 1000]),
    scale=st.sampled_from([1.0, 0.3]),
)
def test_numbers_of_the_host(cupy_backend, size, decayed, shift, step, scale):
    arrays = state(size)
    settings = {"learning_rate": 0.01, "decay_end": int(size * decayed), "step": step, "gradient_scale": scale}
    device = on_device(cupy_backend, arrays, shift)
    cupy_backend.updates["adamw"](*device, **SETTINGS, **settings)
    assert_near(cupy_backend, device, expected(arrays, **settings), 0.01)
    np.testing.assert_array_equal(cupy_backend.to_host(device[1]), arrays[1])


def test_double_precision(cupy_backend):
    arrays = [array.astype(np.float64) for array in state(50)]
    settings = {"learning_rate": 0.01, "decay_end": 20, "step": 3, "gradient_scale": 0.5}
    device = on_device(cupy_backend, arrays, 0)
    cupy_backend.updates["adamw"](*device, **SETTINGS, **settings)
    for found, right in zip(device, expected(arrays, **settings)):
        np.testing.assert_allclose(cupy_backend.to_host(found), right, rtol=1e-13, atol=1e-15)


def recorded(
    xp, arrays, working=None, *, shift=0, loss=1.0, kind="float32", clip=0.0, rate=1.0, step=3, decay_end=None
):
    """The state on the device after `judge` and `adamw_recorded`, the outcome, and the working copy."""
    from tinyformer.backends.cupy.adamw import step_numbers

    betas = {"beta1": SETTINGS["beta1"], "beta2": SETTINGS["beta2"]}
    numbers = xp.from_host(step_numbers(learning_rate=0.01, **betas, step=step, clip=clip))
    device = on_device(xp, arrays, shift)
    if working:
        (working,) = on_device(xp, [np.full(arrays[0].size, 7, DTYPES[working])], shift)
    loss = None if loss is None else xp.from_host(np.asarray(loss, kind))
    outcome = xp.updates["judge"](device[1], loss, numbers)
    places = {"decay_end": arrays[0].size // 2 if decay_end is None else decay_end, "rate": rate}
    xp.updates["adamw_recorded"](*device, working, numbers=numbers, outcome=outcome, **SETTINGS, **places)
    return device, xp.to_host(outcome), working


@given(
    size=SIZES,
    shift=st.sampled_from([0, 1, 2, 4]),
    working=st.sampled_from([None, "float32", "bfloat16"]),
    clip=st.sampled_from([0.0, 0.05, 1e6]),
    rate=st.sampled_from([1.0, 0.25]),
)
def test_numbers_of_the_device(cupy_backend, size, shift, working, clip, rate):
    arrays = state(size)
    norm = np.sqrt((arrays[1].astype(np.float64) ** 2).sum())
    device, outcome, copy = recorded(cupy_backend, arrays, working, shift=shift, clip=clip, rate=rate)
    np.testing.assert_allclose(outcome, [norm, clip_scale(norm, clip), 1.0], rtol=1e-6)
    settings = {"learning_rate": 0.01 * rate, "decay_end": size // 2, "step": 3}
    right = expected(arrays, **settings, gradient_scale=clip_scale(norm, clip))
    assert_near(cupy_backend, device, right, 0.01)
    if working:
        rounded = cupy_backend.to_host(device[0]).astype(DTYPES[working]).astype(np.float32)
        np.testing.assert_array_equal(cupy_backend.to_host(copy), rounded)


@pytest.mark.parametrize("moved", range(5))
def test_one_array_that_begins_anywhere(cupy_backend, moved):
    """Others lie where 128-bit loads may take them."""
    from tinyformer.backends.cupy.adamw import step_numbers

    arrays = [*state(127), np.zeros(127, DTYPES["bfloat16"])]
    places = [on_device(cupy_backend, [array], int(i == moved))[0] for i, array in enumerate(arrays)]
    numbers = step_numbers(learning_rate=0.01, beta1=0.9, beta2=0.99, step=3)
    numbers, outcome = (cupy_backend.from_host(x) for x in (numbers, np.array([0.0, 1.0, 1.0], np.float32)))
    cupy_backend.updates["adamw_recorded"](*places, numbers=numbers, outcome=outcome, **SETTINGS, decay_end=50)
    assert_near(cupy_backend, places[:4], expected(arrays[:4], learning_rate=0.01, decay_end=50, step=3), 0.01)
    copy, values = (cupy_backend.to_host(places[i]) for i in (4, 0))
    np.testing.assert_array_equal(copy, values.astype(DTYPES["bfloat16"]).astype(np.float32))


def test_a_copy_is_rounded_to_the_nearest_and_from_the_middle_to_the_even(cupy_backend):
    bits = [0x3F800000, 0x3F807FFF, 0x3F808000, 0x3F808001, 0x3F818000, 0xBF818000, 0x7F7FFFFF, 0x7FFFFFFF, 0x7F800001]
    arrays = [np.array(bits, np.uint32).view(np.float32), *np.zeros((3, len(bits)), np.float32)]
    _, _, copy = recorded(cupy_backend, arrays, "bfloat16", decay_end=0)
    right = [0x3F80, 0x3F80, 0x3F80, 0x3F81, 0x3F82, 0xBF82, 0x7F80]
    found = cupy_backend.to_host(copy)
    np.testing.assert_array_equal(found[:7], (np.array(right, np.uint32) << 16).view(np.float32))
    assert np.isnan(found[7:]).all()


def test_both_ways_give_the_same_bits(cupy_backend):
    arrays = state(1001)
    one, _, _ = recorded(cupy_backend, arrays)
    other = on_device(cupy_backend, arrays, 0)
    cupy_backend.updates["adamw"](*other, **SETTINGS, learning_rate=0.01, decay_end=500, step=3)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(cupy_backend.to_host(a), cupy_backend.to_host(b))


@pytest.mark.parametrize("place", [0, 2000, 4998, 5002])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_gradient_that_is_not_finite_updates_nothing(cupy_backend, bad, place):
    """Nor does one whose square is not."""
    arrays = state(5003)
    arrays[1][place] = bad
    device, outcome, copy = recorded(cupy_backend, arrays, "bfloat16", clip=1.0)
    assert outcome[2] == 0
    assert not np.isfinite(outcome[0])
    for found, before in zip(device, arrays):
        np.testing.assert_array_equal(cupy_backend.to_host(found), before)
    assert (cupy_backend.to_host(copy) == 7).all()


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_loss_that_is_not_finite_updates_nothing(cupy_backend, loss, kind):
    arrays = state(9)
    device, outcome, _ = recorded(cupy_backend, arrays, loss=loss, kind=kind)
    assert outcome[2] == 0
    np.testing.assert_array_equal(cupy_backend.to_host(device[0]), arrays[0])


def test_gradients_may_decide_alone(cupy_backend):
    assert recorded(cupy_backend, state(9), loss=None)[1][2] == 1


def test_the_norm_of_many_numbers(cupy_backend):
    """More than all blocks of the sum take at once, and the same bits whoever comes first."""
    arrays, outcomes = state(1 << 21), []
    numbers = cupy_backend.from_host(np.ones(4, np.float32))
    gradients = cupy_backend.from_host(arrays[1])
    for order in compiler.ORDERS[:2]:
        with compiler.order(order):
            outcomes.append(cupy_backend.to_host(cupy_backend.updates["judge"](gradients, None, numbers)))
    np.testing.assert_array_equal(*outcomes)
    norm = np.sqrt((arrays[1].astype(np.float64) ** 2).sum())
    np.testing.assert_allclose(outcomes[0][0], norm, rtol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 5, 127, 1024])
@pytest.mark.parametrize("shift", [0, 1, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("add", [False, True])
def test_gathering_gradients(cupy_backend, size, shift, dtype, add, layout):
    random = np.random.default_rng(0)
    gradient = random.standard_normal((2, size)).astype(DTYPES[dtype])
    before = random.standard_normal(2 * size).astype(np.float32)
    (out,) = on_device(cupy_backend, [before], shift)
    cupy_backend.updates["gather"](placed(cupy_backend, gradient, layout), out, add=add)
    given = gradient.astype(np.float32).reshape(-1)
    np.testing.assert_array_equal(cupy_backend.to_host(out), before + given if add else given)


def test_whole_numbers_are_no_gradients(cupy_backend):
    with pytest.raises(TypeError, match="float32 or bfloat16"):
        cupy_backend.updates["gather"](cupy_backend.zeros(3, dtype=int), cupy_backend.zeros(3), add=False)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("by.share2 * gradient * gradient", "by.share2 * gradient"),
        ("gradient *= by.scale;", ""),
        ("numbers[0] * rate", "numbers[0]"),
        ("learning_rate, numbers[1], numbers[2],", "learning_rate, numbers[2], numbers[1],"),
        ("sqrtf(second / by.correction2) + by.epsilon", "sqrtf(second / by.correction2 + by.epsilon)"),
        ("i + j < decay_end", "i < decay_end"),
        ("|| outcome[2] == 0.0f", ""),
        ("i = 4 * packs + thread", "i = 4 * packs + thread + 1"),
        ("norm > clip ?", "norm < clip ?"),
        ("rounded.at[j] = from_float<REAL>(p.at[j])", "rounded.at[j] = from_float<REAL>(p.at[0])"),
        ("if (working) working[j] =", "if (false) working[j] ="),
    ],
)
def test_a_planted_bug_is_caught(cupy_backend, monkeypatch, right, wrong):
    from tinyformer.backends.cupy import adamw

    def check():
        test_numbers_of_the_device.hypothesis.inner_test(cupy_backend, 127, 0, "bfloat16", 0.05, 0.25)
        test_a_gradient_that_is_not_finite_updates_nothing(cupy_backend, np.nan, 2000)

    check()
    plant(monkeypatch, adamw, right, wrong)
    with pytest.raises(AssertionError):
        check()
