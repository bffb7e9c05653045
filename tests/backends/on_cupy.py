"""Comparing CuPy's kernels with the functions that define them, in float64 on NumPy.

Read before: `tests/cases.py`, which does the same with drawn cases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests import emulated
from tests.emulated import compiler
from tinyformer import Tensor, backends, backward, fused

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
# Of a number, and of the largest of its array: what operations in float32 cost, and for bfloat16 one rounding more.
TOLERANCE = {"float32": (2e-6, 2e-6), "bfloat16": (2.0**-8, 1e-5)}
LAYOUTS = ("plain", "misaligned", "turned")


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) * scale


def one_misaligned(count: int) -> list[tuple[str, ...]]:
    """Layouts of so many arrays, of which each in turn, and no other, lies where 128-bit loads are refused."""
    return [tuple("misaligned" if i == j else "plain" for j in range(count)) for i in range(count)]


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest numbers of that dtype, in float64."""
    return array.astype(DTYPES[dtype]).astype(np.float64)


def placed(backend: Any, array: np.ndarray, layout: str = "plain") -> Any:
    """On the device: as it is, from a place that 128-bit loads refuse, or with its axes turned in memory."""
    if layout == "misaligned":
        longer = np.concatenate([np.zeros(1, array.dtype), array.ravel()])
        return backend.reshape(backend.from_host(longer)[1:], array.shape)
    if layout == "turned":
        return backend.from_host(np.ascontiguousarray(array.T)).T
    return backend.from_host(array)


def results(
    backend: Any,
    name: str,
    build: Callable,
    arrays: list[np.ndarray],
    dtype: str,
    layout: str | Sequence[str] = "plain",
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Value and gradients by the kernel, and in float64 by its reference, all as float64.

    Args:
        name: of the kernel.
        build: `build(function, to) -> function of Tensors`; `to` takes what has no gradient to the backend.
        arrays: at which to compare, after rounding to `dtype`.
        layout: of the arrays on the device and of the gradient that comes in: one for all, or one for each.
    """
    dispatch, both, cotangent = fused.registry[name], [], None
    layouts = [layout] * (len(arrays) + 1) if isinstance(layout, str) else layout
    sides = (backends.get("numpy"), dispatch.__wrapped__, np.float64), (backend, dispatch, DTYPES[dtype])
    for side, function, precision in sides:
        lie = layouts if side is backend else ["plain"] * len(layouts)
        given = [rounded(x, dtype).astype(precision) for x in arrays]
        leaves = [Tensor(placed(side, x, how), requires_grad=True) for x, how in zip(given, lie)]
        out = build(function, side.from_host)(*leaves)
        if side is backend:
            assert out.node.name == name, "the kernel was not used"
        if cotangent is None:
            cotangent = rounded(drawn(*out.shape, seed=1), dtype)
        kind = np.float32 if name == "cross_entropy" and side is backend else precision  # a loss is never bfloat16
        gradients = backward(out, placed(side, cotangent.astype(kind), lie[-1]))
        assert out.dtype == kind
        assert all(gradients[leaf].dtype == precision for leaf in leaves)
        found = [out.numpy(), *(side.to_host(gradients[leaf]) for leaf in leaves)]
        both.append([array.astype(np.float64) for array in found])
    return both[1], both[0]


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float | tuple[float, float]) -> None:
    """Within a tolerance relative to each number, or to the largest; a single one is for both."""
    relative, absolute = tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=relative, atol=absolute * largest)


def compare(
    backend: Any, name: str, build: Callable, arrays: list[np.ndarray], dtype: str, tolerance: dict = TOLERANCE, **more
) -> None:
    """The kernel's results are the reference's, within the tolerance of the dtype; `more` is for `results`."""
    for found, expected in zip(*results(backend, name, build, arrays, dtype, **more), strict=True):
        assert_close(found, expected, tolerance[dtype])


def assert_repeatable(backend: Any, *arguments: Any) -> None:
    """The kernel's results are the same bits every time; emulated threads take turns in another order each time."""
    runs = []
    for turn in ("forward", "reverse", "shuffled"):
        with contextlib.nullcontext() if emulated.real_device() else compiler.order(turn):
            runs.append([array.tobytes() for array in results(backend, *arguments)[0]])
    assert all(run == runs[0] for run in runs)


@contextlib.contextmanager
def unwaited() -> Iterator[None]:
    """Inside, the host neither waits for the device nor sends it anything, as far as the emulator sees."""
    if emulated.real_device():
        yield
        return
    counts = emulated.install().emulated.counts
    before = {name: counts[name] for name in ("synchronisations", "transfers", "uploads")}
    yield
    assert {name: counts[name] for name in before} == before


def plant(monkeypatch: pytest.MonkeyPatch, module: ModuleType, right: str, wrong: str, source: str = "_SOURCE") -> None:
    """Put a bug into the CUDA source of a kernel's module: one text, which occurs once, in the place of another.

    Not on a real device, which a bug that touches memory of nobody ends for the whole process.
    """
    if emulated.real_device():
        pytest.skip("bugs are planted on the emulated device alone")
    from tinyformer.backends.cupy import launch

    read, name = launch.text, getattr(module, source)._name
    assert read(name).count(right) == 1, f"{name} no longer contains {right!r} once"
    monkeypatch.setattr(launch, "text", lambda name: read(name).replace(right, wrong))
    monkeypatch.setattr(module, source, launch.Source(name))


def caught() -> pytest.RaisesExc:
    """Inside, a comparison fails, or the emulator stops a kernel for what it does with memory."""
    return pytest.raises((AssertionError, RuntimeError), match=r"Not equal to tolerance|outside its arrays|multiple of")
