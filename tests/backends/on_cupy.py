"""Comparing CuPy's kernels with the functions that define them, in float64 on NumPy.

Read before: `tests/cases.py`, which does the same with drawn cases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests import emulated
from tests.emulated import compiler
from tinyformer import Tensor, backends, backward, fused

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) * scale


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest numbers of that dtype, in float64."""
    return array.astype(DTYPES[dtype]).astype(np.float64)


def misaligned(backend: Any, array: np.ndarray) -> Any:
    """On the device, contiguous, and beginning one element after a multiple of 16 bytes."""
    longer = np.concatenate([np.zeros(1, array.dtype), array.ravel()])
    return backend.reshape(backend.from_host(longer)[1:], array.shape)


def results(
    backend: Any, name: str, build: Callable, arrays: list[np.ndarray], dtype: str, place: Callable | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Value and gradients by the kernel, and in float64 by its reference, all as float64.

    Args:
        name: of the kernel.
        build: `build(function, to) -> function of Tensors`; `to` takes what has no gradient to the backend.
        arrays: at which to compare, after rounding to `dtype`.
        place: `place(backend, array)` puts an array on the device; default `from_host`.
    """
    dispatch, both, cotangent = fused.registry[name], [], None
    sides = (backends.get("numpy"), dispatch.__wrapped__, np.float64), (backend, dispatch, DTYPES[dtype])
    for side, function, precision in sides:
        put = place if place and side is backend else lambda side, array: side.from_host(array)
        leaves = [Tensor(put(side, rounded(x, dtype).astype(precision)), requires_grad=True) for x in arrays]
        out = build(function, side.from_host)(*leaves)
        if side is backend:
            assert out.node.name == name, "the kernel was not used"
        if cotangent is None:
            cotangent = rounded(drawn(*out.shape, seed=1), dtype)
        kind = np.float32 if name == "cross_entropy" and side is backend else precision  # a loss is never bfloat16
        gradients = backward(out, side.from_host(cotangent.astype(kind)))
        assert out.dtype == kind
        assert all(gradients[leaf].dtype == precision for leaf in leaves)
        found = [out.numpy(), *(side.to_host(gradients[leaf]) for leaf in leaves)]
        both.append([array.astype(np.float64) for array in found])
    return both[1], both[0]


def compare(*arguments: Any, tolerance: dict[str, float], **settings: Any) -> None:
    """The kernel's results are the reference's, within a tolerance for each dtype, relative to the largest number."""
    dtype = arguments[4] if len(arguments) > 4 else settings["dtype"]
    for found, expected in zip(*results(*arguments, **settings), strict=True):
        bound = tolerance[dtype] * max(np.abs(expected).max(), 1e-30)
        np.testing.assert_allclose(found, expected, rtol=tolerance[dtype], atol=bound)


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
    """Put a bug into the CUDA source of a kernel's module: one text, which occurs once, in the place of another."""
    from tinyformer.backends.cupy import launch

    read, name = launch.text, getattr(module, source)._name
    assert read(name).count(right) == 1, f"{name} no longer contains {right!r} once"
    monkeypatch.setattr(launch, "text", lambda name: read(name).replace(right, wrong))
    monkeypatch.setattr(module, source, launch.Source(name))


def caught() -> pytest.RaisesExc:
    """Inside, a comparison fails, or the emulator stops a kernel for what it does with memory."""
    return pytest.raises((AssertionError, RuntimeError), match=r"Not equal to tolerance|outside its arrays|multiple of")
