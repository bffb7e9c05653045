"""Attention by blocks, as the GPU's kernels do it, against the composed function in float64 on NumPy."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import emulated
from tests.backends.on_cupy import DTYPES, caught, plant, rounded
from tests.emulated import compiler
from tinyformer import Tensor, backends, backward, functional, fused, ops

# Relative to the largest number of an array, or to what its terms may be where their sum happens to vanish: in bfloat16
# the gradient of a score takes the sum of rounded results off.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


@pytest.fixture(autouse=True)
def blocks_only(cupy_backend, monkeypatch):
    """Only the kernels of attention_blocks.py, whatever others would take."""
    from tinyformer.backends.cupy import attention

    monkeypatch.setattr(attention, "WAYS", [attention.attention_blocks])


def misaligned(x: np.ndarray) -> np.ndarray:
    """The same, as a part of something wider, which begins at an odd place."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan, x.dtype)
    wide[..., 1 : x.shape[-1] + 1] = x
    return wide


# How `b h t c` lies in memory: what is put on the device, and how it is taken from there.
LAYOUTS = {
    "heads joined": (lambda x: x.transpose(0, 2, 1, 3), lambda a, c: a.transpose(0, 2, 1, 3)),
    "heads apart": (lambda x: x, lambda a, c: a),
    "in something wider": (misaligned, lambda a, c: a[..., 1 : c + 1]),
    "channels apart": (lambda x: x.swapaxes(2, 3), lambda a, c: a.swapaxes(2, 3)),
    "backwards": (lambda x: x[:, :, ::-1], lambda a, c: a[:, :, ::-1]),
}


@dataclasses.dataclass
class Question:
    """One call of attention, and what to pull back through it."""

    shape: tuple[int, int, int, int, int]  # b h t s c
    dtype: str = "float32"
    layout: str = "heads joined"
    shared: tuple[bool, bool] = (False, False)  # keys, by the batch and by the heads
    hiding: tuple[int, ...] | None = None
    adding: tuple[int, ...] | None = None
    keep: str | None = None  # "drawn", "turned", "undrawn"
    causal: bool = False
    scale: float | None = None
    size: float = 1.0  # of queries
    seed: int = 0

    def __post_init__(self) -> None:
        random, (b, h, t, s, c) = np.random.default_rng(self.seed), self.shape
        rows = tuple(1 if shared else n for shared, n in zip(self.shared, (b, h)))
        shapes = [(b, h, t, c), (*rows, s, c), (*rows, s, c), *([self.adding] if self.adding else [])]
        self.arrays = [rounded(random.standard_normal(shape), self.dtype) for shape in shapes]
        self.arrays[0] = rounded(self.arrays[0] * self.size, self.dtype)
        self.mask = random.random(self.hiding) < 0.7 if self.hiding else None
        self.gradient = rounded(random.standard_normal((b, h, t, c)), self.dtype)
        self.settings = {"causal": self.causal, "scale": self.scale, "dropout_rate": 0.3 if self.keep else 0.0}

    def truths(self, backend: Any) -> Any:
        """What dropout keeps, on NumPy as an array, the second mask that its streams give."""
        if self.keep is None:
            return None
        b, h, t, s, _ = self.shape
        streams = backend.generator(5, self.seed, rows=range(3, 3 + b) if self.seed % 2 else None)
        streams.keep((b, 3), 0.5)
        keep = streams.keep((b, h, t, s), 0.7)
        if self.keep == "undrawn" or backend.name != "cupy":
            return keep
        truths = keep.drawn()
        return truths if self.keep == "drawn" else truths.swapaxes(2, 3).copy().swapaxes(2, 3)

    def expected(self) -> list[np.ndarray]:
        """out and the gradients of query, key, value and bias."""
        query, key, value, *bias = (Tensor(x, requires_grad=True) for x in self.arrays)
        keep = self.truths(backends.get("numpy"))
        inputs = (query, key, value, self.mask, bias[0] if bias else None, keep)
        out = functional.attention(*inputs, **self.settings)
        gradients = backward(out, self.gradient)
        return [out.array, *(gradients[leaf] for leaf in (query, key, value, *bias))]

    def found(self, backend: Any) -> list[np.ndarray]:
        """The same by the kernels, in the dtype that they gave."""
        put, take = LAYOUTS[self.layout]

        def place(x):
            return take(backend.from_host(put(x.astype(DTYPES[self.dtype])).copy()), x.shape[-1])

        query, key, value = (Tensor(place(x), requires_grad=True) for x in self.arrays[:3])
        bias = [Tensor(backend.from_host(x.astype(DTYPES[self.dtype])), requires_grad=True) for x in self.arrays[3:]]
        mask = None if self.mask is None else backend.from_host(self.mask)
        inputs = (query, key, value, mask, bias[0] if bias else None, self.truths(backend))
        out = fused.attention(*inputs, **self.settings)
        assert out.node.name == "attention", "the kernel was not used"
        gradients = backward(out, place(self.gradient))
        assert out.array.transpose(0, 2, 1, 3).flags.c_contiguous
        return [out.array.get(), *(gradients[leaf].get() for leaf in (query, key, value, *bias))]

    def compare(self, backend: Any) -> None:
        _, _, t, s, width = self.shape
        least = max(1.0, width**0.5 * (self.scale or width**-0.5)) * max(1.0, t / s) ** 0.5
        for found, expected in zip(self.found(backend), self.expected(), strict=True):
            assert found.dtype == DTYPES[self.dtype]
            bound = TOLERANCE[self.dtype] * max(np.abs(expected).max(), least)
            np.testing.assert_allclose(found.astype(float), expected, rtol=TOLERANCE[self.dtype], atol=bound)


@st.composite
def questions(draw):

    def pick(*values):
        return draw(st.sampled_from(values))

    b, h, t, c = pick(1, 2, 3), pick(1, 2), pick(1, 3, 64, 65, 130), pick(1, 5, 8, 32, 33, 64)
    s = t + pick(0, 0, 3, 64)
    causal, dtype = pick(True, False), pick(*TOLERANCE)
    s = s if causal else pick(s, 70, 1 if dtype == "float32" else 40)  # of one key, all gradients but one vanish
    return Question(
        (b, h, t, s, c),
        dtype=dtype,
        layout=pick(*LAYOUTS),
        shared=pick((False, False), (False, False), (True, False), (False, True)),
        hiding=pick(None, (b, 1, 1, s), (b, 1, t, s), (1, 1, t, s), (b, h, t, s), (s,)),
        adding=pick(None, (1, h, t, s), (b, h, t, s), (1, 1, 1, s), (b, 1, t, s)),
        keep=pick(None, "drawn", "undrawn"),
        causal=causal,
        scale=pick(None, 1.0),
        seed=draw(st.integers(0, 1 << 20)),
    )


@given(questions())
@settings(max_examples=60)
def test_value_and_gradients(cupy_backend, question):
    question.compare(cupy_backend)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", [65, 96, 128, 129, 200, 256])
def test_wide_heads(cupy_backend, width, dtype):
    """Each width of the kernels, full and not, and lengths beyond each size of their tiles."""
    question = Question((2, 1, 67, 70, width), dtype, hiding=(2, 1, 1, 70), adding=(1, 1, 67, 70), keep="undrawn")
    question.compare(cupy_backend)
    dataclasses.replace(question, causal=True, hiding=None, adding=None).compare(cupy_backend)


def test_one_query_of_many_keys(cupy_backend):
    Question((3, 2, 1, 1000, 16), causal=True).compare(cupy_backend)


@pytest.mark.parametrize("size", [30.0, 1e3])
def test_large_scores(cupy_backend, size):
    """Of which the exponentials are beyond float32, and whose largest ones come late."""
    question = Question((1, 1, 5, 200, 8), size=size, scale=1.0)
    question.arrays[1] = rounded(question.arrays[1] * np.linspace(0.1, 1.0, 200)[:, None], "float32")
    out, *gradients = question.found(cupy_backend)
    expected = question.expected()
    np.testing.assert_allclose(out, expected[0], rtol=1e-3, atol=1e-3)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("causal", [False, True])
def test_small_scores(cupy_backend, causal):
    """So far below 0 that what is beyond the last query or key must not be taken for a score of 0."""
    question = Question((1, 1, 70, 70, 8), scale=1.0, causal=causal)
    for array, level in zip(question.arrays, (-5.0, 5.0)):
        array[...] = rounded(level + array / 16, "float32")
    for found, expected in zip(question.found(cupy_backend), question.expected(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_that_sees_nothing(cupy_backend, causal):
    """Gives zeros, and its own gradient is zero; a bias of -inf hides a key as a mask does."""
    question = Question((2, 2, 66, 66, 8), hiding=(2, 1, 66, 66), adding=(1, 1, 1, 66), causal=causal)
    question.mask[:, :, [0, 20, 65]] = False
    question.mask[1] = False
    for hidden in (0.0, -math.inf):
        question.arrays[3][..., 7] = hidden
        results = question.found(cupy_backend)
        assert all(np.isfinite(x).all() for x in results)
        for out in results[:2]:
            assert not out[:, :, [0, 20, 65]].any()
            assert not out[1].any()
    question.compare(cupy_backend)
    assert not results[4][..., 7].any()


def test_masks_drawn_in_place_are_those_in_memory(cupy_backend):
    question = Question((3, 2, 70, 83, 8), keep="undrawn", causal=True, adding=(1, 2, 1, 83), seed=1)
    undrawn = question.found(cupy_backend)
    for keep in ("drawn", "turned"):
        for found, expected in zip(dataclasses.replace(question, keep=keep).found(cupy_backend), undrawn):
            np.testing.assert_array_equal(found, expected)


def test_the_same_bits_in_every_order(cupy_backend):
    """Of threads and of blocks: no sum depends on who comes first, and no barrier is missing."""
    question = Question((2, 2, 70, 83, 33), adding=(1, 2, 70, 83), hiding=(83,), keep="undrawn")
    results = []
    for turn in compiler.ORDERS:
        with contextlib.nullcontext() if emulated.real_device() else compiler.order(turn):
            results.append([array.tobytes() for array in question.found(cupy_backend)])
    assert results[1:] == results[:1] * 2


@pytest.mark.parametrize("keep", [None, "undrawn"])
@pytest.mark.parametrize("biased", [False, True])
def test_no_scores_in_memory(cupy_backend, keep, biased, monkeypatch):
    """No array has a number for each pair of a query and a key, in forward or backward, but the gradient of a bias."""
    import cupy as library

    sizes, empty = [], library.empty
    monkeypatch.setattr(
        library, "empty", lambda shape, *a, **k: sizes.append(math.prod(shape)) or empty(shape, *a, **k)
    )
    b, h, t, c = 2, 2, 300, 4
    adding = (1, h, t, t) if biased else None
    Question((b, h, t, t, c), keep=keep, causal=True, hiding=(b, 1, 1, t), adding=adding).found(cupy_backend)
    assert max(sizes) == (h * t * t if biased else b * h * t * c)


def test_nothing_waits(cupy_backend):
    """A step with attention can be recorded: neither direction brings a number to the host, or one from there."""
    import cupy as library

    question = Question((2, 2, 5, 5, 4), adding=(1, 1, 1, 5), keep="undrawn")
    inputs = [Tensor(cupy_backend.from_host(x.astype(np.float32)), requires_grad=True) for x in question.arrays]
    keep, gradient = question.truths(cupy_backend), cupy_backend.from_host(question.gradient.astype(np.float32))
    if not hasattr(library, "emulated"):
        pytest.skip("what waits is counted by the stand-in for CuPy")
    before = dict(library.emulated.counts)
    backward(fused.attention(*inputs[:3], None, inputs[3], keep, dropout_rate=0.3), gradient)
    for what in ("transfers", "uploads", "synchronisations"):
        assert library.emulated.counts[what] == before.get(what, 0)


@pytest.mark.parametrize("change", ["float64", "wide", "more queries", "foreign mask"])
def test_what_is_left_to_the_reference(cupy_backend, change):
    """And is right there, too."""
    b, h, t, s, c = (1, 2, 6, 3, 4) if change == "more queries" else (1, 2, 3, 4, 257 if change == "wide" else 4)
    arrays = [np.random.default_rng(i).standard_normal((b, h, n, c)) for i, n in enumerate((t, s, s))]
    dtype = np.float64 if change == "float64" else np.float32
    inputs = [Tensor(cupy_backend.from_host(x.astype(dtype)), requires_grad=True) for x in arrays]
    mask = np.ones((1, s), np.bool_ if change != "foreign mask" else np.int32)
    out = fused.attention(*inputs, cupy_backend.from_host(mask), causal=change == "more queries")
    assert out.node.name != "attention"
    expected = functional.attention(*map(Tensor, arrays), mask.astype(bool), causal=change == "more queries")
    np.testing.assert_allclose(out.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("key", "dtype", "bias", "error"),
    [
        ((2, 2, 3, 4), np.float64, np.float32, TypeError),
        ((2, 2, 3, 4), np.float32, np.float64, TypeError),
        ((3, 2, 3, 4), np.float32, np.float32, ValueError),
    ],
)
def test_what_does_not_fit_is_refused(cupy_backend, key, dtype, bias, error):
    query, key = cupy_backend.zeros((2, 2, 3, 4), dtype=np.float32), cupy_backend.zeros(key, dtype=dtype)
    with pytest.raises(error):
        fused.attention(*map(Tensor, (query, key, key)), None, Tensor(cupy_backend.zeros((3,), dtype=bias)))


@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0)])
def test_no_rows_or_queries(cupy_backend, batch, queries):
    query, key = (Tensor(cupy_backend.zeros((batch, 2, n, 4), dtype=np.float32)) for n in (queries, 3))
    assert fused.attention(query, key, key).shape == query.shape


def test_several_uses_of_one_result(cupy_backend):
    """The gradient is then a sum, and is not written into."""
    question = Question((1, 2, 5, 5, 4))
    inputs = [Tensor(cupy_backend.from_host(x.astype(np.float32)), requires_grad=True) for x in question.arrays]
    out = fused.attention(*inputs)
    gradients = backward(ops.sum(out * 2.0 + out))
    question.gradient = np.full((1, 2, 5, 4), 3.0)
    for leaf, expected in zip(inputs, question.expected()[1:]):
        np.testing.assert_allclose(gradients[leaf].get(), expected, atol=1e-5)


HARD = [
    Question(
        (2, 2, 66, 140, 9), causal=True, hiding=(2, 1, 1, 140), adding=(1, 2, 66, 140), keep="undrawn", seed=1, size=3.0
    ),
    Question((2, 2, 66, 140, 9), adding=(2, 2, 66, 140), hiding=(66, 140)),
]
BUGS = {  # by source: what is there, and what is put in its place
    "_FORWARD": [
        ("peak = fmaxf(largest[i], side_max(peak));", "peak = side_max(peak);"),
        ("total[i] *= correction;", ""),
        ("sum[i][n] *= correction;", ""),
        ("total[i] += p;", "total[i] += exp2f(s[i][0] - shift);"),
        ("query + 1 + keys - queries", "query + 1"),
        ("mask[query * mask_t + key * mask_s]", "mask[query * mask_t]"),
        ("bias += b * bias_b + h * bias_h;", "bias += b * bias_b;"),
        ("? p * scores.factor : 0.0f", "? p : 0.0f"),
        ("start = 4 * start + ", "start = "),
        ("if (philox && streams > 1) philox += 2 * b;", ""),
        ("stop = scores.horizon(min(begin + TILE, queries) - 1)", "stop = scores.horizon(begin)"),
    ],
    "_DOTS": [("+ q) * heads + h) * width", "+ h) * queries + q) * width")],
    "_BACKWARD": [
        ("(at < 0.0f ? 0.0f : product[i][j] * scores.factor)", "product[i][j] * scores.factor"),
        ("accumulate<true>", "accumulate<false>"),
        (
            "put(grad_value + place, width, x, sum_value[i], factor);",
            "put(grad_value + place, width, x, sum_value[i], 1.0f);",
        ),
        ("put(grad_key + place, width, x, sum_key[i], scale);", "put(grad_key + place, width, x, sum_key[i], 1.0f);"),
        ("max(0, key - (keys - queries))", "key"),
        ("scores.first_query(begin) / TILE * TILE", "scores.first_query(begin) / TILE * TILE + TILE"),
        ("exp2f((score - log) * LOG2E) * (slope[i][j] - dot)", "exp2f((score - log) * LOG2E) * slope[i][j]"),
        ("stop = hidden ? b : shared_bias ? batch : b + 1", "stop = hidden ? b : b + 1"),
        ("stop = hidden ? b : ", "stop = hidden ? b : first > begin ? b : "),
    ],
}


@pytest.mark.parametrize(("source", "right", "wrong"), [(name, *bug) for name, bugs in BUGS.items() for bug in bugs])
def test_a_planted_bug_is_caught(source, right, wrong, cupy_backend, monkeypatch):
    from tinyformer.backends.cupy import attention_blocks

    plant(monkeypatch, attention_blocks, right, wrong, source)
    with caught():
        for question in HARD:
            question.compare(cupy_backend)


@pytest.mark.parametrize("question", HARD)
def test_questions_that_find_planted_bugs(question, cupy_backend):
    question.compare(cupy_backend)
