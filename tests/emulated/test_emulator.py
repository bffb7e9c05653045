"""The emulator of CUDA kernels: its results, and that it stops what a GPU would not do, or not the same way again."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulated import compiler
from tests.emulated.compiler import ORDERS, EmulationError, compile
from tinyformer.backends.cupy.sources import text

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(not shutil.which(compiler.COMPILER), reason=f"there is no {compiler.COMPILER}"),
]

SUMS = """
extern "C" __global__ void __launch_bounds__(256, 2) sums(const REAL* x, float* out, int n) {
    __shared__ float scratch[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += to_float(x[(long long)blockIdx.x * n + i]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
"""


def module(body, *options):
    return compile(text("common.cuh") + body, options or ("-DREAL=float", "--std=c++17"))


def run(body, block, *arguments, grid=1, shared=0, name="f"):
    """Launch the one kernel `f` of a source."""
    compile(f'extern "C" __global__ void {body}').function(name)(grid, block, arguments, shared)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [32, 64, 256])
def test_sums_of_a_block(order, threads):
    x = np.random.default_rng(0).standard_normal((5, 1000)).astype(np.float32)
    out = np.full(5, np.nan, np.float32)
    with compiler.order(order, seed=3):
        module(SUMS).function("sums")(5, threads, (x, out, np.int32(1000)))
    np.testing.assert_allclose(out, x.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-4)


def test_the_type_of_numbers_is_a_definition():
    x = np.array([[1.5, 2.0, -4.0]], np.float32)
    bits, out = (x.view(np.uint32) >> 16).astype(np.uint16), np.zeros(1, np.float32)
    module(SUMS, "-DREAL=bfloat16").function("sums")(1, 32, (bits, out, np.int32(3)))
    assert out == -0.5


def test_threads_know_their_places():
    out = np.zeros((2, 3, 4, 2, 5, 3), np.int32)
    body = """f(int* out) {
        int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1000 * block + thread;
    }"""
    run(body, (3, 5, 2), out, grid=(4, 3, 2))
    np.testing.assert_array_equal(out.reshape(24, 30), 1000 * np.arange(24)[:, None] + np.arange(30))


@pytest.mark.parametrize("width", [32, 16, 4])
def test_shuffles(width):
    lanes, out = np.arange(32), np.zeros((4, 32), np.int64)
    body = """f(long long* out, int width) {
        int lane = threadIdx.x;
        long long x = 1000000000000ll * (lane + 1);
        out[lane] = __shfl_sync(0xffffffffu, x, lane * 3, width);
        out[32 + lane] = __shfl_xor_sync(0xffffffffu, x, 3, width);
        out[64 + lane] = __shfl_up_sync(0xffffffffu, x, 2, width);
        out[96 + lane] = __shfl_down_sync(0xffffffffu, x, 2, width);
    }"""
    run(body, 32, out, np.int32(width))
    first = lanes // width * width
    up, down = np.where(lanes - 2 < first, lanes, lanes - 2), np.where(lanes + 2 >= first + width, lanes, lanes + 2)
    np.testing.assert_array_equal(out // 10**12 - 1, [first + lanes * 3 % width, lanes ^ 3, up, down])


def test_votes_and_lanes_that_meet_in_groups():
    out = np.zeros((3, 32), np.uint32)
    body = """f(unsigned* out) {
        int lane = threadIdx.x;
        out[lane] = __ballot_sync(0xffffffffu, lane % 3 == 0);
        unsigned group = lane < 8 ? 0xffu : 0xffffff00u;
        out[32 + lane] = __all_sync(group, lane < 8) + 2 * __any_sync(group, lane == 31);
        out[64 + lane] = __syncthreads_or(lane == 5) + 2 * __syncthreads_and(lane > 0);
        out[64 + lane] += 4 * __syncthreads_count(lane > 1);
    }"""
    run(body, 32, out)
    assert (out[0] == sum(1 << lane for lane in range(0, 32, 3))).all()
    assert (out[1] == np.where(np.arange(32) < 8, 1, 2)).all()
    assert (out[2] == 1 + 4 * 30).all()


def test_lanes_that_others_wait_for_meet_elsewhere_first():
    out = np.zeros(12, np.int32)
    body = """f(int* out) {
        int lane = threadIdx.x, x = 0;
        for (int i = 0; lane >= 8 && i < 5; i++) __syncwarp(0xf00u);
        if (lane < 4) __syncwarp(0xfu);
        if (lane >= 4) x = __shfl_sync(0xff0u, 10 + lane, 8);
        if (lane < 8) x += 100 * __shfl_sync(0xffu, 20 + lane, 5);
        out[lane] = x;
    }"""
    for order in ORDERS:
        with compiler.order(order):
            run(body, 12, out)
        assert out.tolist() == [2500] * 4 + [2518] * 4 + [18] * 4


def test_shared_memory_starts_as_nan():
    out = np.zeros((4, 2), np.float32)
    body = """f(float* out, int write) {
        extern __shared__ __align__(16) float dynamic[];
        __shared__ float fixed[1];
        out[2 * blockIdx.x] = dynamic[0], out[2 * blockIdx.x + 1] = fixed[0];
        dynamic[0] = fixed[0] = 1.0f;
    }"""
    run(body, 1, out, np.int32(1), grid=4, shared=4)
    assert np.isnan(out).all()


def test_atomics():
    out = np.zeros(4, np.uint64)
    body = """f(unsigned long long* out) {
        atomicAdd(out, 3);
        atomicMax(out + 1, threadIdx.x + blockIdx.x);
        unsigned long long seen = out[2], assumed;
        do seen = atomicCAS(out + 2, assumed = seen, seen + 2); while (seen != assumed);
        atomicExch(out + 3, 7);
    }"""
    run(body, 100, out, grid=10)
    assert out.tolist() == [3000, 99 + 9, 2000, 7]


WORDS = st.integers(0, 2**64 - 1)


@given(WORDS, WORDS)
def test_integers(x, y):
    out = np.zeros(10, np.uint64)
    body = """f(unsigned long long* out, unsigned long long x, unsigned long long y) {
        unsigned a = (unsigned)x, b = (unsigned)y;
        out[0] = __umul64hi(x, y), out[1] = __umulhi(a, b), out[2] = __popcll(x), out[3] = __clz(a);
        out[4] = __brev(a), out[5] = __ffs(a), out[6] = __funnelshift_l(a, b, 5), out[7] = __byte_perm(a, b, 0x7531);
        out[8] = (unsigned)__mulhi((int)a, (int)b), out[9] = min(a, b);
    }"""
    run(body, 1, out, np.uint64(x), np.uint64(y))
    a, b = x % 2**32, y % 2**32
    signed = [n - 2**32 * (n >= 2**31) for n in (a, b)]
    four = (y % 2**32 << 32 | a).to_bytes(8, "little")[1::2]
    assert out.tolist() == [
        *(x * y >> 64, a * b >> 32, x.bit_count(), 32 - a.bit_length(), int(f"{a:032b}"[::-1], 2)),
        *((a & -a).bit_length(), (b << 32 | a) << 5 >> 32 & 0xFFFFFFFF, int.from_bytes(four, "little")),
        *((signed[0] * signed[1] >> 32) % 2**32, min(a, b)),
    ]


@pytest.mark.parametrize(
    ("argument", "given"), [(np.int64(3), "i8"), (np.float32(3), "f4"), (3, "i8"), (np.uint64(3), "i8"), (None, "i8")]
)
def test_arguments_of_the_wrong_size_or_kind(argument, given):
    with pytest.raises(EmulationError, match=f"argument 1 is {given} where the parameter is i4"):
        run("f(float* x, int n) {}", 1, np.zeros(1, np.float32), argument)


def test_launches_that_a_gpu_refuses():
    x = np.zeros((1, 4), np.float32)
    for arguments in [(x,), (x, x, x, x)]:
        with pytest.raises(EmulationError, match="arguments for 3 parameters"):
            module(SUMS).function("sums")(1, 32, arguments)
    for grid, block, shared, message in [
        (1, 1056, 0, "a block of"),
        (1, 512, 0, "it may have 256"),
        (1, (1, 1, 128), 0, "a block of"),
        (0, 32, 0, "a grid of"),
        ((1, 70000), 32, 0, "a grid of"),
        (1, 32, 228 << 10, "bytes of shared memory"),
    ]:
        with pytest.raises(EmulationError, match=message):
            module(SUMS).function("sums")(grid, block, (x, x, np.int32(1)), shared)
    with pytest.raises(EmulationError, match="no kernel sum"):
        module(SUMS).function("sum")
    with pytest.raises(EmulationError, match=r"kernels.cu:1:.*nonsense"):
        compile("nonsense")
    with pytest.raises(EmulationError, match="option"):
        compile("", ("--fancy",))


# Each is correct on its own but for one thing; the message says which, where, and by whom.
WRONG = {
    "if (threadIdx.x < 5) __syncthreads();": r"thread \(0, 0, 0\).*__syncthreads.* 5 threads.* 27 have ended",
    "if (threadIdx.x < 5) __syncwarp(); else __syncthreads();": "for ever at __syncwarp",
    "if (threadIdx.x < 5) __shfl_xor_sync(~0u, 1, 1); else __ballot_sync(~0u, 1);": "lanes of a warp diverge",
    "if (threadIdx.x < 5) __syncthreads(); else __syncthreads_or(1);": "threads of a block diverge",
    "if (threadIdx.x < 5) __shfl_sync(0x1fu, 1, 9);": r"lane \d reads lane 9",
    "__shfl_sync(2u, 1, 1);": "lane 0 is not in its own mask",
    "if (threadIdx.x == 7) __trap();": r"thread \(7, 0, 0\): __trap",
    "assert(threadIdx.x < 31);": r"thread \(31, 0, 0\): assertion failed.*threadIdx.x < 31",
    "x[n + threadIdx.x] = 1;": r"thread \(3, 0, 0\): writes 4 bytes.*beyond argument 0",
    "memcpy(x, x + n, 16);": "reads 16 bytes outside its arrays, up to 4 bytes beyond argument 0",
    "x[0] = x[-1 - n];": "reads 4 bytes outside its arrays, up to 120 bytes before argument 0",
    "extern __shared__ float s[]; s[threadIdx.x + 3] = 1;": r"writes byte 131 of 128",
    "__shared__ float s[9]; x[0] = s[n];": "index 29 is outside its array",
    "*(float4*)(x + n - 26) = make_float4(0, 0, 0, 0);": "is not a multiple of 16",
    "x[n % (int)threadIdx.x] = 0;": "division by zero",
    "x[n / 40] = 1 << (n + threadIdx.x);": r"thread \(3, 0, 0\): shifts by 32 bits",
    # Of 272 kB, so that its beginning lies in the guard below a stack of 256 kB, and not in what is mapped below that.
    "float y[17 << 12]; for (int i = 0; i < 17 << 12; i++) y[i * n % 7] = x[0]; x[0] = y[n];": "beyond the stack",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_kernels_stop_with_a_message(line):
    x = np.zeros(32, np.float32)
    message = rf"^f, block \(0, 0, 0\), .*{WRONG[line]}"
    with compiler.order("forward"), pytest.raises(EmulationError, match=message):
        run(f"f(float* x, int n) {{ {line} }}", 32, x, np.int32(29), shared=128)
    run("f(float* x) { x[threadIdx.x] = 1; __syncthreads(); }", 32, x)  # and the next kernel runs
    assert x.sum() == 32


def test_the_message_shows_the_line():
    with pytest.raises(EmulationError, match=r"\n  3: x\[40\] = 2;"):
        run("f(float* x) {\n  x[1] = 2;\n  x[40] = 2;\n}", 1, np.zeros(32, np.float32))


def test_addresses_of_unknown_arrays_are_not_checked():
    x = np.zeros(8, np.float32)
    run("f(float* x) { x[5] = 1; }", 1, np.uint64(x[:2].ctypes.data))
    assert x[5] == 1
    with pytest.raises(EmulationError, match="illegal address"):
        run("f(float* x) { x[5] = 1; }", 1, np.uint64(64))


REVERSED = """f(float* x) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    BARRIER
    x[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}"""


@pytest.mark.parametrize(
    ("threads", "barrier"), [(64, "__syncwarp();"), (64, ""), (32, ""), (32, "__shfl_sync(0xffffffffu, 1, 0);")]
)
def test_a_missing_barrier_is_a_race(threads, barrier):
    x = np.arange(threads, dtype=np.float32)
    for order in ORDERS:
        with compiler.order(order), pytest.raises(EmulationError, match=r"byte \d+ of shared memory, which thread \("):
            run(REVERSED.replace("BARRIER", barrier), threads, x.copy())
    sufficient = "__syncwarp();" if threads == 32 else "__syncthreads();"
    for order in ORDERS:  # three times
        with compiler.order(order):
            run(REVERSED.replace("BARRIER", sufficient), threads, x)
    assert x.tolist() == list(range(threads - 1, -1, -1))


def test_a_buffer_that_is_written_again_too_early_is_a_race():
    body = """f(float* x) {
        __shared__ float s[1];
        for (int i = 0; i < 2; i++) {
            if (threadIdx.x == 0) s[0] = i;
            __syncthreads();
            x[threadIdx.x] += s[0];
            BARRIER
        }
    }"""
    run(body.replace("BARRIER", "__syncthreads();"), 64, np.zeros(64, np.float32))
    with pytest.raises(EmulationError, match="byte 0 of shared memory, which"):
        run(body.replace("BARRIER", ""), 64, np.zeros(64, np.float32))


def test_orders_differ_where_threads_depend_on_them():
    body = "f(int* x) { x[1 + blockIdx.x * 8 + threadIdx.x] = x[0]++; }"  # through global memory, which is not watched
    seen = {}
    for order, seed in [*((order, 0) for order in ORDERS), ("shuffled", 1), ("shuffled", 0)]:
        x = np.zeros(65, np.int32)
        with compiler.order(order, seed):
            run(body, 8, x, grid=8)
        seen.setdefault((order, seed), []).append(x[1:].tolist())
    assert seen["forward", 0] == [list(range(64))]
    assert seen["reverse", 0] == [list(range(63, -1, -1))]
    first, again = seen["shuffled", 0]
    assert first == again != seen["shuffled", 1][0]
    assert sorted(first) == list(range(64))
    runs = []
    for _ in range(4):
        x = np.zeros(65, np.int32)
        run(body, 8, x, grid=8)
        runs.append(x.tolist())
    assert all(runs[i] != runs[i + 1] for i in range(3))  # one after another, too
    with pytest.raises(ValueError, match="sideways"), compiler.order("sideways"):
        pass


def test_an_operation_of_a_warp_in_one_piece():
    body = """f(float* x) {
        float mine = x[threadIdx.x];
        emulated::together("sort", 0xffffffffu, mine, [](float** lanes) {
            for (int i = 0; i < 32; i++)
                for (int j = 0; j < i; j++)
                    if (*lanes[j] > *lanes[i]) { float t = *lanes[i]; *lanes[i] = *lanes[j], *lanes[j] = t; }
        });
        x[threadIdx.x] = mine;
    }"""
    x = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    expected = sorted(x.tolist())
    run(body, 32, x)
    assert x.tolist() == expected


def test_kernels_in_one_process_share_nothing():
    body = "f(int* x) {{ __shared__ int s[{}]; s[{}] = {}; x[0] = s[{}]; }}"
    for n in (1, 2, 3):
        x = np.zeros(1, np.int32)
        run(body.format(n, n - 1, n, n - 1), 1, x)
        assert x == n
