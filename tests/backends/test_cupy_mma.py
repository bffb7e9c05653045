"""Instructions of tensor cores and of copies, against what the PTX manual says of them.

They run on the CPU as the C++ that stands beside them in `mma.cuh`, so what these tests hold is that text, and the
layouts that kernels build on; on a device the same tests hold the instructions themselves.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.backends.on_cupy import DTYPES

LANES = np.arange(32)
GROUP, PLACE = LANES // 4, LANES % 4  # groupID and threadID_in_group of the manual

INSTRUCTIONS = """
extern "C" __global__ void products(const unsigned* a, const unsigned* b, float* c, int tf32) {
    unsigned left[4];
    float sum[4];
    for (int i = 0; i < 4; i++) left[i] = a[threadIdx.x * 4 + i], sum[i] = c[threadIdx.x * 4 + i];
    if (tf32)
        multiply_tf32(sum, left, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
    else
        multiply_bfloat16(sum, left, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
    for (int i = 0; i < 4; i++) c[threadIdx.x * 4 + i] = sum[i];
}

extern "C" __global__ void matrices(const unsigned* from, const int* rows, unsigned* to, int turned) {
    __shared__ __align__(16) unsigned char tile[1024];
    for (int i = threadIdx.x; i < 256; i += 32) reinterpret_cast<unsigned*>(tile)[i] = from[i];
    __syncwarp();
    unsigned x[4];
    if (turned)
        load_turned(x, tile + rows[threadIdx.x] * 16);
    else
        load_matrices(x, tile + rows[threadIdx.x] * 16);
    for (int i = 0; i < 4; i++) to[threadIdx.x * 4 + i] = x[i];
}

extern "C" __global__ void rounded(const float* x, unsigned* pairs, unsigned* words, float* powers, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        pairs[i] = pair_of(x[i], -x[i]);
        words[i] = as_tf32(x[i]);
        powers[i] = power_of_two(x[i]);
    }
}

extern "C" __global__ void copied(const float* from, float* to, int inside) {
    __shared__ __align__(16) float tile[256];
    Copies copies;
    copies.add<16>(tile + 4 * threadIdx.x, from + 4 * threadIdx.x, (int)threadIdx.x < inside);
    copies.add<4>(tile + 128 + threadIdx.x, from + 128 + threadIdx.x, (int)threadIdx.x < inside);
    copies.wait();
    __syncthreads();
    for (int i = threadIdx.x; i < 160; i += 32) to[i] = tile[(i + 4) % 160];
}
"""


@pytest.fixture
def instruction(cupy_backend):
    """Launches a kernel of `INSTRUCTIONS` with one warp, and gives back its arrays."""
    import cupy

    from tinyformer.backends.cupy.sources import text

    def launch(name, *arguments, options=("-DREAL=float",), header="mma.cuh", code=INSTRUCTIONS):
        module = cupy.RawModule(code=text(header) + code, options=("--std=c++17", *options))
        placed = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in arguments]
        module.get_function(name)((1,), (32,), tuple(placed))
        return [x.get() for x in placed if hasattr(x, "get")]

    return launch


def words(x):
    """The bits of numbers, as pairs of bfloat16 or as they are."""
    return np.ascontiguousarray(x).view(np.uint32)


def test_products_of_bfloat16(instruction):
    """Matrix fragments of mma.m16n8k16 with floating point types of 16 bits."""
    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 16), (16, 8), (16, 8)))
    a, b = a.astype(DTYPES["bfloat16"]), b.astype(DTYPES["bfloat16"])
    i = np.arange(8)
    row = GROUP[:, None] + np.where((i < 2) | ((i >= 4) & (i < 6)), 0, 8)
    column = PLACE[:, None] * 2 + (i & 1) + np.where(i < 4, 0, 8)
    j, k = np.arange(4), np.arange(4)
    b_row, b_column = PLACE[:, None] * 2 + (j & 1) + np.where(j < 2, 0, 8), np.repeat(GROUP[:, None], 4, 1)
    c_row, c_column = GROUP[:, None] + np.where(k < 2, 0, 8), PLACE[:, None] * 2 + (k & 1)
    arrays = words(a[row, column]), words(b[b_row, b_column]), c[c_row, c_column]
    *_, found = instruction("products", *arrays, np.int32(0))
    expected = a.astype(float) @ b.astype(float) + c
    np.testing.assert_allclose(found, expected[c_row, c_column], rtol=1e-5, atol=1e-5)


def test_products_of_tf32(instruction):
    """Matrix fragments of mma.m16n8k8 with type .tf32; bits beyond TF32's are not looked at."""
    random = np.random.default_rng(1)
    a, b, c = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
    row, column = GROUP[:, None] + [0, 8, 0, 8], PLACE[:, None] + [0, 0, 4, 4]
    b_row, b_column = PLACE[:, None] + [0, 4], np.repeat(GROUP[:, None], 2, 1)
    k = np.arange(4)
    c_row, c_column = GROUP[:, None] + np.where(k < 2, 0, 8), PLACE[:, None] * 2 + (k & 1)
    arrays = words(a[row, column]), words(b[b_row, b_column]), c[c_row, c_column]
    *_, found = instruction("products", *arrays, np.int32(1))
    cut = [(words(x) & np.uint32(0xFFFFE000)).view(np.float32).astype(float) for x in (a, b)]
    np.testing.assert_allclose(found, (cut[0] @ cut[1] + c)[c_row, c_column], rtol=1e-5, atol=1e-5)


def test_matrices_from_shared_memory(instruction):
    """ldmatrix: row r of matrix n is where lane 8 n + r points. A lane gets a word of a row, turned, of a column."""
    random = np.random.default_rng(2)
    chunks, rows = random.integers(0, 1 << 32, (64, 4), np.uint32), random.permutation(64)[:32].astype(np.int32)
    blank = np.zeros((32, 4), np.uint32)
    *_, found = instruction("matrices", chunks, rows, blank, np.int32(0))
    matrices = chunks[rows].reshape(4, 8, 4)
    np.testing.assert_array_equal(found, matrices[:, GROUP, PLACE].T)
    *_, found = instruction("matrices", chunks, rows, blank, np.int32(1))
    turned = np.ascontiguousarray(matrices.view(np.uint16).swapaxes(1, 2)).view(np.uint32)
    np.testing.assert_array_equal(found, turned[:, GROUP, PLACE].T)


def test_rounding(instruction):
    """To nearest: for bfloat16 ties to even, for TF32 away from zero. What is not finite stays so."""
    tie = np.float32(1) + np.float32(2**-8) * np.arange(8, dtype=np.float32)
    ties = np.float32(1) + np.float32(2**-11) * np.arange(64, dtype=np.float32)
    drawn = np.random.default_rng(3).standard_normal(100).astype(np.float32) * 50
    x = np.concatenate([tie, ties, drawn, -ties, np.float32([0, math.inf, -math.inf, math.nan])])
    blank = np.zeros(len(x), np.uint32)
    _, pairs, tf32, powers = instruction("rounded", x, blank, blank, blank.view(np.float32), np.int32(len(x)))
    expected = words(np.stack([x, -x], 1).astype(DTYPES["bfloat16"]))[:, 0]
    np.testing.assert_array_equal(pairs[:-1], expected[:-1])
    mantissa, exponent = np.frexp(np.abs(x[:-3]).astype(float))
    away = np.ldexp(np.floor(np.ldexp(mantissa, 11) + 0.5), exponent - 11)
    np.testing.assert_array_equal(tf32.view(np.float32)[:-3], np.copysign(away, x[:-3]))
    np.testing.assert_array_equal(tf32.view(np.float32)[-3:-1], x[-3:-1])
    assert np.isnan(tf32[-1:].view(np.float32)).all()
    assert np.isnan(powers[-1])
    with np.errstate(over="ignore"):
        expected = np.exp2(x[:-1].astype(float)).astype(np.float32)
    np.testing.assert_allclose(powers[:-1], expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("options", [("-DREAL=float",), ("-DREAL=float", "-DEAGER")])
def test_copies_under_way(instruction, options):
    x = np.arange(1, 161, dtype=np.float32)
    _, found = instruction("copied", x, np.zeros_like(x), np.int32(20), options=options)
    x[80:128] = x[148:] = 0
    np.testing.assert_array_equal(found, np.roll(x, -4))


PLACES = """
extern "C" __global__ void places(int* at, int rows) {
    for (int i = threadIdx.x; i < rows * CHUNKS; i += blockDim.x) at[i] = chunk_at(i / CHUNKS, i % CHUNKS);
}
"""


@pytest.mark.parametrize("real", ["float", "bfloat16"])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_all_banks_work_at_once(width, real, instruction):
    """What lanes read together lies in 32 different words modulo 128 bytes: 8 rows of a matrix, or a TF32 operand."""
    chunks, rows = width * (4 if real == "float" else 2) // 16, 64
    options = (f"-DREAL={real}", f"-DWIDTH={width}", "-DSTRIPS=1")
    blank = np.zeros((rows, chunks), np.int32)
    (at,) = instruction("places", blank, np.int32(rows), options=options, header="mma_tiles.cuh", code=PLACES)
    np.testing.assert_array_equal(np.sort(at.ravel()), 16 * np.arange(rows * chunks))
    banks = np.sort(at.reshape(-1, 8, chunks) % 128 // 16, axis=1)
    assert (banks == np.arange(8)[:, None]).all()
    if real == "float":  # rows 2 place, channels `group`, of the right side in `weigh`
        for row in range(0, rows, 8):
            for i in range(2):
                words = at[row + 2 * PLACE + i, GROUP // 4] // 4 + GROUP % 4
                assert len(set(words % 32)) == 32
