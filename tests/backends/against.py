"""Kernels of a device against the composed functions of NumPy, in double precision, on the same rounded numbers."""

import ml_dtypes
import numpy as np

from tinyformer import Tensor, backward, functional, fused
from tinyformer.tensor import no_grad

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
# Of a number and of the largest of its array: what one rounding costs, and what some operations in float32 do.
TOLERANCES = {"float32": (1e-6, 1e-6), "bfloat16": (2.0**-8, 1e-5)}
LAYOUTS = ("plain", "misaligned", "turned")


def placed(xp, array, layout="plain"):
    """An array on the device: as it is, from a place that 128-bit loads refuse, or with its axes turned in memory."""
    if layout == "misaligned":
        padded = np.concatenate([array.reshape(-1)[:1], array.reshape(-1)])
        return xp.from_host(padded)[1:].reshape(array.shape)
    if layout == "turned":
        return xp.from_host(np.ascontiguousarray(array.T)).T
    return xp.from_host(array)


def assert_close(found, expected, dtype, factor=1.0):
    relative, absolute = (factor * tolerance for tolerance in TOLERANCES[dtype])
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=relative, atol=absolute * largest)


def compare(xp, name, arrays, dtype, constants=(), *, layout="plain", factor=1.0, **settings):
    """Value and gradients of a kernel, each at the tolerance of its dtype, and the same bits in a second run.

    Args:
        xp: the device's backend.
        name: of the kernel.
        arrays: on the host, differentiated.
        dtype: "float32" or "bfloat16".
        constants: pairs of what follows the arrays, for NumPy and for the device.
        layout: of all inputs on the device, and of the gradient that comes in.
        factor: on the tolerances.
        settings: of the function.
    """
    rounded = [array.astype(DTYPES[dtype]) for array in arrays]
    leaves = [Tensor(array.astype(np.float64), requires_grad=True) for array in rounded]
    expected = getattr(functional, name)(*leaves, *(host for host, _ in constants), **settings)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(DTYPES[dtype])
    gradients = backward(expected, cotangent.astype(np.float64))
    expected = [expected.array, *(gradients[leaf] for leaf in leaves)]

    runs = []
    for _ in range(2):
        inputs = [Tensor(placed(xp, array, layout), requires_grad=True) for array in rounded]
        out = fused.registry[name](*inputs, *(device for _, device in constants), **settings)
        assert out.node.name == name, "the composed function ran"
        gradients = backward(out, placed(xp, cotangent, layout))
        arrays = [out.array, *(gradients[leaf] for leaf in inputs)]
        assert all(array.dtype == DTYPES[dtype] for array in arrays)
        runs.append([xp.to_host(array) for array in arrays])
    for first, second, right in zip(*runs, expected):
        np.testing.assert_array_equal(first, second)
        assert_close(first, right, dtype, factor)


def value(xp, name, *inputs, **settings):
    """A kernel's result on the host, for arrays of the host as they are."""
    with no_grad():
        return fused.registry[name](*(Tensor(xp.from_host(x)) for x in inputs), **settings).numpy()
