"""Attention by tensor cores against the composed function in float64 on NumPy.

Read before: `test_cupy_mma.py`, `test_cupy_attention.py`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.on_cupy import DTYPES, plant
from tests.backends.test_cupy_attention import LAYOUTS, Question
from tests.emulated import compiler

# Relative to the largest number of an array, or to what its terms may be where their sum happens to vanish.
TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}
WIDTHS = {"float32": (4, 8, 20, 32, 48, 64), "bfloat16": (8, 32, 40, 64, 96, 128)}


@pytest.fixture(autouse=True)
def tensor_cores_only(cupy_backend, monkeypatch):
    """Only these kernels, and products of float32 by them, too."""
    from tinyformer.backends.cupy import attention

    monkeypatch.setattr(attention, "WAYS", [attention.attention_mma])
    with cupy_backend.rounding("tf32"):
        yield


def compare(question, backend):
    """As Question.compare, at the tolerances of rounded products."""
    _, _, t, s, width = question.shape
    slope = 1.5 * width**0.5  # of a score: the product of a gradient and a value
    terms = slope * max(1.0, t / s) ** 0.5 * (question.scale or width**-0.5)
    for found, expected, least in zip(question.found(backend), question.expected(), (1.0, *[terms] * 3, slope)):
        assert found.dtype == DTYPES[question.dtype]
        bound = TOLERANCE[question.dtype] * max(np.abs(expected).max(), least)
        np.testing.assert_allclose(found.astype(float), expected, rtol=0, atol=bound)


@st.composite
def questions(draw):
    def pick(*values):
        return draw(st.sampled_from(values))

    dtype = pick(*TOLERANCE)
    b, h, t = pick(1, 2), pick(1, 2), pick(1, 3, 64, 65, 130)
    s = t + pick(0, 0, 3, 64)
    causal = pick(True, False)
    s = s if causal else pick(s, 70, 40)
    return Question(
        (b, h, t, s, pick(*WIDTHS[dtype])),
        dtype=dtype,
        layout=pick(*LAYOUTS),
        shared=pick((False, False), (False, False), (True, False), (False, True)),
        hiding=pick(None, (b, 1, 1, s), (b, 1, t, s), (1, 1, t, s), (b, h, t, s), (s,), (b, 1, t, 1)),
        adding=pick(None, None, (1, h, t, s), (b, h, t, s), (1, 1, 1, s), (b, 1, t, s)),
        keep=pick(None, "drawn", "undrawn"),
        causal=causal,
        scale=pick(None, 0.2),
        seed=draw(st.integers(0, 1 << 20)),
    )


@given(questions())
@settings(max_examples=60)
def test_value_and_gradients(cupy_backend, question):
    compare(question, cupy_backend)


HARD = [
    Question((2, 2, 130, 197, 64), "bfloat16", causal=True, hiding=(2, 1, 1, 197), keep="undrawn", seed=1),
    Question((2, 2, 70, 83, 32), "float32", causal=True, adding=(1, 2, 70, 83), hiding=(2, 1, 70, 83), keep="undrawn"),
    Question((1, 2, 200, 140, 64), "float32", keep="drawn"),
    Question((2, 1, 65, 70, 96), "bfloat16", adding=(2, 1, 65, 70), scale=0.3, seed=3),
]


@pytest.mark.parametrize("question", HARD)
def test_several_tiles_with_everything(question, cupy_backend):
    compare(question, cupy_backend)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_errors_are_those_of_rounding(dtype, cupy_backend):
    assert_only_rounded(Question((2, 2, 192, 192, 64), dtype, causal=True, seed=5), cupy_backend)


def assert_only_rounded(question, backend):
    """Errors are a few times what rounding the inputs costs in exact arithmetic, or in bfloat16 the results."""
    found, expected = question.found(backend), question.expected()
    coarser = dataclasses.replace(question)
    coarser.arrays = [coarse(x) for x in question.arrays]
    coarser.gradient = coarse(question.gradient)
    for one, right, other in zip(found, expected, coarser.expected(), strict=True):
        unit = rms(other - right) if question.dtype == "float32" else 2.0**-9 * rms(right)
        assert rms(one.astype(float) - right) < 2.5 * unit
        # Rounding is to nearest, and errors have no side: cut-off bits would make everything a bit smaller.
        slope = (one.astype(float) * right).sum() / (right * right).sum()
        assert abs(slope - 1) < 2e-4


def coarse(x):
    """The nearest numbers with 10 bits of mantissa."""
    return np.ldexp(np.rint(np.ldexp(np.frexp(x)[0], 11)), np.frexp(x)[1] - 11)


def rms(x):
    return np.sqrt(np.square(x, dtype=float).mean())


@pytest.mark.parametrize("size", [30.0, 1e3])
def test_large_scores(size, cupy_backend):
    """Of which the exponentials are beyond float32, and whose largest ones come late."""
    question = Question((1, 1, 5, 200, 8), size=size, scale=1.0)
    question.arrays = [coarse(x) for x in question.arrays]  # so that the scores themselves are exact
    question.arrays[1] = coarse(question.arrays[1] * np.linspace(0.1, 1.0, 200)[:, None])
    out, *gradients = question.found(cupy_backend)
    np.testing.assert_allclose(out, question.expected()[0], rtol=0, atol=1e-2)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("causal", [False, True])
def test_a_query_that_sees_nothing(causal, dtype, cupy_backend):
    """Gives zeros, and its own gradient is zero; a bias of -inf hides a key as a mask does."""
    question = Question((2, 2, 66, 66, 8), dtype, hiding=(2, 1, 66, 66), adding=(1, 1, 1, 66), causal=causal)
    question.mask[:, :, [0, 20, 65]] = False
    question.mask[1] = False
    for hidden in (0.0, -math.inf):
        question.arrays[3][..., 7] = hidden
        results = question.found(cupy_backend)
        assert all(np.isfinite(x).all() for x in results)
        for out in results[:2]:
            assert not out[:, :, [0, 20, 65]].any()
            assert not out[1].any()
    compare(question, cupy_backend)
    assert not results[4][..., 7].any()


def test_what_is_no_number_stays_none(cupy_backend):
    for dtype in TOLERANCE:
        question = Question((1, 1, 70, 70, 8), dtype)
        question.arrays[1][0, 0, 66, 3] = math.nan
        assert np.isnan(question.found(cupy_backend)[0].astype(float)).all()


def test_masks_drawn_in_place_are_those_in_memory(cupy_backend):
    for seed in (0, 1):  # one stream for all rows, and one for each
        question = Question((3, 2, 70, 83, 8), keep="undrawn", causal=True, seed=seed)
        for drawn, undrawn in zip(
            *(dataclasses.replace(question, keep=k).found(cupy_backend) for k in ("drawn", "undrawn"))
        ):
            np.testing.assert_array_equal(drawn, undrawn)


@pytest.mark.parametrize("question", HARD[:2])
def test_the_same_bits_in_every_order(question, cupy_backend, monkeypatch):
    """Of threads and of blocks, whether copies come at once or as late as they may: no wait or barrier is missing."""
    from tinyformer.backends.cupy import attention_mma, launch

    results = [question.found(cupy_backend)]
    for order in ("reverse", "shuffled"):
        with compiler.order(order, 1):
            results.append(question.found(cupy_backend))
    for name in ("_FORWARD", "_BACKWARD"):
        source = getattr(attention_mma, name)
        monkeypatch.setattr(attention_mma, name, launch.Source(source._name, ("-DEAGER",)))
    for order in compiler.ORDERS:
        with compiler.order(order, 2):
            results.append(question.found(cupy_backend))
    for arrays in zip(*results):
        for other in arrays[1:]:
            np.testing.assert_array_equal(arrays[0], other)


def test_backward_of_the_other_kernels(cupy_backend):
    """What is kept of each query is the same: either backward goes with either forward."""
    from tinyformer.backends.cupy import attention, attention_blocks, attention_mma

    question = HARD[1]
    for first, second in ((attention_mma, attention_blocks), (attention_blocks, attention_mma)):
        attention.WAYS[:] = [Mixed(first, second)]
        compare(question, cupy_backend)


@dataclasses.dataclass
class Mixed:
    """Forward of one kind, backward of the other."""

    first: object
    second: object

    def takes(self, scores):
        return True

    def forward(self, scores):
        return self.first.forward(scores)

    def backward(self, scores, *arrays):
        if scores.bits is None:
            self.second.forward(scores)  # which makes the bits
        return self.second.backward(scores, *arrays)


@pytest.mark.parametrize("question", HARD[:2])
def test_nothing_waits(question, cupy_backend):
    """A step can be recorded: beyond what the question itself moves, nothing comes to the host or from it."""
    import cupy

    if not hasattr(cupy, "emulated"):
        pytest.skip("what waits is counted by the stand-in for CuPy")
    from tinyformer.backends.cupy import attention

    counts = []
    for way in (attention.attention_mma, attention.attention_blocks):  # whose own test counts from the first call
        attention.WAYS[:] = [way]
        before = dict(cupy.emulated.counts)
        question.found(cupy_backend)
        whats = ("transfers", "uploads", "synchronisations")
        counts.append([cupy.emulated.counts[what] - before.get(what, 0) for what in whats])
    assert counts[0] == counts[1]


def test_what_it_takes(cupy_backend):
    from tinyformer.backends.cupy import attention_mma
    from tinyformer.backends.cupy.scores import Scores

    def takes(dtype, width, rounding="tf32"):
        x = cupy_backend.from_host(np.zeros((1, 1, 2, width), DTYPES[dtype]))
        with cupy_backend.rounding(rounding):
            return attention_mma.takes(Scores(x, x, x, None, None, None, causal=True, scale=None, dropout_rate=0.0))

    assert all(takes(dtype, width) for dtype, widths in WIDTHS.items() for width in widths)
    assert takes("bfloat16", 64, "float32")
    assert not takes("float32", 64, "float32")
    assert not any(takes("float32", width) for width in (1, 6, 68, 128))
    assert not any(takes("bfloat16", width) for width in (4, 12, 136))


DROPPING, BIASED, UNEVEN, WIDE = HARD
ROUNDED = Question((2, 1, 64, 64, 64), seed=5)
BUGS = [  # source, what is right, what is not, and who notices
    ("_FORWARD", "        copies.wait();\n        if (tile == 0) settle", "        if (tile == 0) settle", DROPPING),
    ("_FORWARD", "__syncthreads();  // this tile is there", "// this tile is there", DROPPING),
    ("_FORWARD", "visited + (tile + 1) % 2 * (2 * TILE * ROW)", "visited", DROPPING),
    ("_FORWARD", "weights[m][k][i % 2 * 2 + i / 2]", "weights[m][k][i]", UNEVEN),
    ("_FORWARD", "weights[m][k + i / 2][i % 2 * 2]", "weights[m][k + i % 2][i / 2 * 2]", WIDE),
    ("_FORWARD", "lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2", "lane % 16, chunk + lane / 16", WIDE),
    ("_FORWARD", "chunk * PER < width);", "chunk * PER <= width);", WIDE),
    ("_FORWARD", "sum[m][n][i] *= correction", "sum[m][n][i] *= 1.0f", UNEVEN),
    ("_FORWARD", "scores.horizon(query) - word * TILE : 0", "scores.horizon(query) + 1 - word * TILE : 0", DROPPING),
    ("_FORWARD", "(word + words) * TILE <= scores.horizon(query)", "word * TILE <= scores.horizon(query)", UNEVEN),
    ("_FORWARD", "if (retained) replace(x", "if (false) replace(x", DROPPING),
    ("_FORWARD", "+= to_float(scores.bias[q * scores.bias_t", "+= to_float(scores.bias[r * scores.bias_s", BIASED),
    ("_BACKWARD", "if (tile == first) settle", "if (tile < first) settle", ROUNDED),
    ("_BACKWARD", "* bits.scores.factor - numbers.dot", "- numbers.dot", DROPPING),
    ("_BACKWARD", "            drop(p);\n", "", UNEVEN),
    ("_BACKWARD", "mine % TILE, seen", "0, seen", BIASED),
    ("_BACKWARD", "first = scores.first_query(begin) / TILE", "first = scores.first_query(begin) / TILE + 1", DROPPING),
    ("_BACKWARD", "words(column_of(n, i)) >> (place + row_of(0))", "words(column_of(n, i)) >> place", DROPPING),
    ("_BACKWARD", "q = TURNED ? c : r, k = TURNED ? r : c;", "q = r, k = c;", BIASED),
    ("_BACKWARD", "b = shared_bias ? 0 : head / heads, stop", "b = shared_bias ? 1 : head / heads, stop", BIASED),
    ("_BACKWARD", "number + q, q < queries", "number + q, q <= queries", UNEVEN),
    ("_BITS", "half * WARP + lane;", "lane;", DROPPING),
    ("_BITS", "sixteen << (16 * n - first)", "sixteen << (first - 16 * n)", DROPPING),
]


@pytest.mark.parametrize(("source", "right", "wrong", "question"), BUGS)
def test_a_planted_bug_is_caught(source, right, wrong, question, cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import attention_mma

    plant(monkeypatch, attention_mma, right, wrong, source)
    check = assert_only_rounded if question is ROUNDED else compare
    with pytest.raises((AssertionError, RuntimeError), match=r"Not equal|assert|thread \("):  # or the emulator stops
        check(question, cupy_backend)


def test_the_question_that_finds_numbers_cut_off(cupy_backend):
    assert_only_rounded(ROUNDED, cupy_backend)
