"""Look-ups on the device and their gradient, against plain loops; indices that are no rows."""

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES, LAYOUTS, TOLERANCE, assert_close, placed, plant
from tests.emulated import compiler
from tinyformer import Tensor, backward, functional, ops

INTEGERS = [np.int32, np.int64, np.int16]
KINDS = ["even", "same", "ends", "often", "sorted"]


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def indices_of(kind, rows, n):
    """Spread evenly, all the same, the two ends, a few very often, or in order."""
    random = np.random.default_rng(n)
    return {
        "even": lambda: random.integers(0, rows, n),
        "same": lambda: np.full(n, rows - 1),
        "ends": lambda: random.choice([0, rows - 1], n),
        "often": lambda: np.minimum(random.geometric(0.3, n) - 1, rows - 1),
        "sorted": lambda: np.arange(n) % rows,
    }[kind]()


def scatter(xp, rows, axes, n, kind, dtype, integers=np.int64, layout="plain"):
    """What is found, and what a plain loop in double precision finds."""
    indices, values = indices_of(kind, rows, n).astype(integers), drawn(n, *axes).astype(DTYPES[dtype])
    expected = np.zeros((rows, *axes))
    for index, value in zip(indices, values.astype(np.float64)):
        expected[index] += value
    found = xp.scatter_add((rows, *axes), xp.from_host(indices), placed(xp, values, layout))
    assert found.dtype == DTYPES[dtype]
    return xp.to_host(found), expected


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 17, 256, 300, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_scatter_add(cupy_backend, rows, kind):
    """Also of so many positions as fill some blocks exactly."""
    for n in (0, 1, 3, 64, 65, 128, 700, 1024):
        assert_close(*scatter(cupy_backend, rows, (3,), n, kind, "float32"), TOLERANCE["float32"])


@pytest.mark.parametrize("axes", [(), (1,), (2, 4), (24,), (264,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("integers", INTEGERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scatter_add_of_kinds_of_arrays(cupy_backend, axes, dtype, integers, layout):
    arguments = cupy_backend, 300, axes, 130, "often", dtype, integers, layout
    assert_close(*scatter(*arguments), TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["even", "ends", "often"])
def test_scatter_add_of_several_tiles(cupy_backend, kind):
    """More positions than a block sorts, in more rows than two passes of the sorting tell apart."""
    found, expected = scatter(cupy_backend, 60000, (4,), 5000, kind, "float32")
    assert_close(found, expected, 4e-6)


def test_a_row_is_added_up_in_the_order_of_its_positions(cupy_backend):
    """The chunks of sorted positions, each in float32 from the first on, and then their sums."""
    indices, values = indices_of("often", 7, 300), drawn(300).astype(np.float32)
    order, totals = np.argsort(indices, kind="stable"), {}
    for begin in range(0, len(order), 64):
        chunk = order[begin : begin + 64]
        for row in np.unique(indices[chunk]):
            part = np.float32(0)
            for position in chunk[indices[chunk] == row]:
                part += values[position]
            totals[row] = totals[row] + part if row in totals else part
    found = cupy_backend.to_host(cupy_backend.scatter_add((7,), *map(cupy_backend.from_host, (indices, values))))
    np.testing.assert_array_equal(found, [totals.get(row, np.float32(0)) for row in range(7)])


@pytest.mark.parametrize("kind", ["even", "often"])
def test_the_same_bits_whoever_comes_first(cupy_backend, kind):
    runs = []
    for order in compiler.ORDERS:
        with compiler.order(order, seed=5):
            runs.append(scatter(cupy_backend, 40, (20,), 2500, kind, "float32")[0])
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


def test_scatter_add_of_many_small_numbers_in_bfloat16(cupy_backend):
    """Ten thousand ones: a sum in bfloat16 would stop at 256."""
    ones = cupy_backend.from_host(np.ones((10000, 1), DTYPES["bfloat16"]))
    found = cupy_backend.scatter_add((2, 1), cupy_backend.from_host(np.zeros(10000, np.int64)), ones)
    assert cupy_backend.to_host(found).ravel().tolist() == [9984.0, 0.0]  # the nearest that bfloat16 has


def test_double_precision_and_whole_numbers_are_left_to_the_contract(cupy_backend):
    indices, values = indices_of("often", 5, 30), drawn(30, 3)
    expected = np.zeros((5, 3))
    np.add.at(expected, indices, values)
    found = cupy_backend.scatter_add((5, 3), *map(cupy_backend.from_host, (indices, values)))
    np.testing.assert_allclose(cupy_backend.to_host(found), expected, atol=1e-13)


@pytest.mark.parametrize("axes", [(), (1,), (3,), (2, 4), (24,), (200,)], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (5, 3), (40,), (0,)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "bool", "bfloat16"])
def test_take(cupy_backend, axes, shape, dtype):
    for rows, integers in zip((1, 7, 300), INTEGERS):
        table = (10 * drawn(rows, *axes)).astype(DTYPES.get(dtype, dtype))
        indices = np.random.default_rng(1).integers(0, rows, shape).astype(integers)
        found = cupy_backend.take(cupy_backend.from_host(table), cupy_backend.from_host(indices), axis=0)
        assert found.dtype == table.dtype
        np.testing.assert_array_equal(cupy_backend.to_host(found), table[indices].astype(found.dtype))


def test_take_from_a_view(cupy_backend):
    table = drawn(9, 16).astype(np.float32)
    for device, host in (
        (cupy_backend.from_host(table).T, table.T),
        (cupy_backend.from_host(table)[:, 1:], table[:, 1:]),
        (cupy_backend.from_host(table).reshape(-1)[1:129].reshape(8, 16), table.reshape(-1)[1:129].reshape(8, 16)),
    ):
        found = cupy_backend.take(device, cupy_backend.from_host(np.array([3, 0, 3])), axis=0)
        np.testing.assert_array_equal(cupy_backend.to_host(found), host[[3, 0, 3]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_embedding_and_its_gradient(cupy_backend, dtype):
    weight, ids = drawn(50, 24).astype(DTYPES[dtype]), indices_of("often", 50, 90).reshape(2, 45)
    cotangent = drawn(2, 45, 24, seed=3).astype(DTYPES[dtype])
    leaf = Tensor(cupy_backend.from_host(weight), requires_grad=True)
    out = functional.embedding(leaf, cupy_backend.from_host(ids))
    np.testing.assert_array_equal(out.numpy(), weight[ids].astype(np.float32))
    expected = np.zeros((50, 24))
    np.add.at(expected, ids, cotangent.astype(np.float64))
    gradient = backward(out, cupy_backend.from_host(cotangent))[leaf]
    assert_close(cupy_backend.to_host(gradient), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("integers", [np.int32, np.int64, np.int8])
@pytest.mark.parametrize(("wrong", "low", "high"), [([0, 7, -1], -1, 7), ([3, 9], 3, 9), ([-5], -5, 5)])
def test_a_wrong_index_is_told_when_the_host_waits(cupy_backend, integers, wrong, low, high):
    table = Tensor(cupy_backend.from_host(drawn(8, 4).astype(np.float32)))
    many = np.concatenate([np.full(1500, 5), wrong, np.full(1500, 5)]).astype(integers)  # each thread sees several
    out = ops.take(table, cupy_backend.from_host(many))
    with pytest.raises(IndexError, match=f"^indices run from {low} to {high}, and must lie in 0 to 7$"):
        out.numpy()
    assert out.numpy().shape == (len(many), 4)  # told once


def test_the_first_fault_is_the_one_that_is_told(cupy_backend):
    for wrong in (9, 20):
        cupy_backend.check_indices(cupy_backend.from_host(np.array([0, wrong])), 8, "numbers")
    with pytest.raises(IndexError, match="numbers run from 0 to 9, "):
        cupy_backend.to_host(cupy_backend.zeros(1))


def test_right_indices_are_no_fault(cupy_backend):
    for indices in ([0, 7], [7], [3, 3, 3]):
        cupy_backend.check_indices(cupy_backend.from_host(np.array(indices)), 8, "numbers")
    cupy_backend.check_indices(cupy_backend.from_host(np.zeros(0, int)), 0, "numbers")
    cupy_backend.to_host(cupy_backend.zeros(1))
    with pytest.raises(TypeError, match="numbers must be integers"):
        cupy_backend.check_indices(cupy_backend.from_host(np.zeros(2)), 8, "numbers")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if (i < tile) earlier += count;", "earlier += count;"),
        ("earlier + warp_before(sum)", "warp_before(sum)"),
        ("counts[digit * SORTERS + threadIdx.x]++", "counts[digit * SORTERS + threadIdx.x]"),
        ("indices ? first + i : positions[first + i]", "first + i"),
        ("(began_before ? 0 : width) + j", "j"),
        ("if (!began_before && ends)", "if (ends)"),
        ("if (next < end) key = keys[next];", ""),
        ("next <= last / CHUNK", "next < last / CHUNK"),
        ("float sum = parts[(2LL * chunk + 1) * width + channel];", "float sum = 0.0f;"),
        ("__shfl_up_sync(ALL, sum, offset);\n        if (lane >= offset)", "__shfl_up_sync(ALL, sum, offset);"),
    ],
)
def test_a_planted_bug_is_caught(cupy_backend, monkeypatch, right, wrong):
    from tinyformer.backends.cupy import lookup

    arguments = cupy_backend, 300, (24,), 2500, "often", "float32"
    assert_close(*scatter(*arguments), 4e-6)
    plant(monkeypatch, lookup, right, wrong)
    with pytest.raises((AssertionError, compiler.EmulationError)):
        assert_close(*scatter(*arguments), 4e-6)


def test_a_recorded_look_up(cupy_backend):
    """Taking, checking and adding up wait for nothing, so that they are replayed with other numbers."""

    def work(arrays):
        weight = Tensor(arrays["weight"], requires_grad=True)
        out = functional.embedding(weight, arrays["ids"])
        return {"out": out.array, "gradient": backward(out, arrays["cotangent"])[weight]}

    said = []
    run = cupy_backend.recorded(work, warn=said.append)
    for seed in range(4):
        random = np.random.default_rng(seed)
        weight, cotangent = (random.standard_normal(s).astype(np.float32) for s in ((40, 8), (2, 700, 8)))
        ids, expected = random.integers(0, 40, (2, 700)), np.zeros((40, 8))
        np.add.at(expected, ids, cotangent.astype(np.float64))
        found = run({"weight": weight, "ids": ids, "cotangent": cotangent})
        np.testing.assert_array_equal(cupy_backend.to_host(found["out"]), weight[ids])
        assert_close(cupy_backend.to_host(found["gradient"]), expected, 4e-6)
    assert not said
    run({"weight": weight, "ids": ids + 1, "cotangent": cotangent})
    with pytest.raises(IndexError, match="indices run from 1 to 40"):
        cupy_backend.to_host(found["out"])
