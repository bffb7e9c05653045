// Tiles of rows in shared memory, and their products by tensor cores.
//
// All three kernels of attention are made of two products. One meets rows with rows: queries with keys, channel by
// channel. Its results stay in registers, and are at once the left side of the other, which weighs rows: the sum of
// values, say, times their weights. That works because what a lane has of a result (layout C in mma.cuh) is what it
// must bring as a left side (layout A); for bfloat16 exactly so, of two results beside each other. For TF32 a lane has
// the columns 2 place and 2 place + 1, and would have to bring `place` and `place + 4`; but the order in which a sum is
// taken is free, and so it brings those that it has, and the rows of the right side are taken in the same order.
//
// A warp has STRIPS times 16 rows of the left side. What it reads of the right side it uses for all of them.
//
// Read before: mma.cuh. Read next: attention_mma.cu.

#pragma once

#include "mma.cuh"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / WARP;
constexpr int TILE = 64;                    // rows of the right side that come at a time, and keys in a word of bits
constexpr int BLOCK = WARPS * 16 * STRIPS;  // rows of the left side
constexpr int PER = 16 / sizeof(REAL);      // numbers in a chunk of 16 bytes
constexpr int CHUNKS = WIDTH / PER;         // of a row
constexpr int ROW = 16 * CHUNKS;            // bytes of a row
constexpr float LOG2E = 1.4426950408889634f;
static_assert(WIDTH == 32 || WIDTH == 64 || WIDTH == 128, "rows of 4, 8, 16 or 32 chunks");

// Where a chunk of a row lies in a tile. Neighbouring rows have their chunks in another order, so that a column of
// chunks in 8 rows lies in 8 different places modulo 128 bytes, and all banks of the memory work at once.
__device__ __forceinline__ int chunk_at(int row, int chunk) {
    int turn = CHUNKS == 4 ? row / 2 % 4 : row % 8;
    return row * ROW + (chunk ^ turn) * 16;
}

// The rows of one head of one row of the batch; they begin at multiples of 16 bytes.
struct Rows {
    const REAL* at;
    long long stride;
    int count, width;

    __device__ __forceinline__ Rows(const REAL* all, long long b_stride, long long h_stride, long long stride, int b,
                                    int h, int count, int width)
        : at(all + b * b_stride + h * h_stride), stride(stride), count(count), width(width) {}

    // Asks for N rows from the given one; beyond the last row and channel come zeros.
    template <int N> __device__ __forceinline__ void fetch(Copies& copies, unsigned char* tile, int first) const {
        int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        const REAL* from = at + (first + row) * stride + chunk * PER;
#pragma unroll 1  // unrolled, it would keep a dozen addresses in registers that the products need
        for (; row < N; row += THREADS / CHUNKS, from += THREADS / CHUNKS * stride)
            copies.add<16>(tile + chunk_at(row, chunk), from, first + row < count && chunk * PER < width);
    }
};

// Rounds, where numbers are to be multiplied as TF32, those that this thread itself asked for and has waited for.
template <int N> __device__ __forceinline__ void settle(unsigned char* tile) {
    if constexpr (sizeof(REAL) == 4) {
#pragma unroll 1
        for (int row = threadIdx.x / CHUNKS; row < N; row += THREADS / CHUNKS) {
            uint4* chunk = reinterpret_cast<uint4*>(tile + chunk_at(row, threadIdx.x % CHUNKS));
            uint4 x = *chunk;
            x.x = as_tf32(__uint_as_float(x.x)), x.y = as_tf32(__uint_as_float(x.y));
            x.z = as_tf32(__uint_as_float(x.z)), x.w = as_tf32(__uint_as_float(x.w));
            *chunk = x;
        }
    }
}

template <int N> __device__ __forceinline__ void clear(float (&x)[STRIPS][N][4]) {
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[m][n][i] = 0.0f;
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    if constexpr (sizeof(REAL) == 4)
        multiply_tf32(c, a, b0, b1);
    else
        multiply_bfloat16(c, a, b0, b1);
}

// out[m][n] = the products of rows left + 16 m ... of one tile and rows right + 8 n ... of another, by 16 and by 8.
template <int N>
__device__ __forceinline__ void meet(float (&out)[STRIPS][N][4], const unsigned char* lefts, int left,
                                     const unsigned char* rights, int right) {
    int lane = threadIdx.x % WARP;
    clear(out);
#pragma unroll 2  // all of 16 steps take more registers than they save time
    for (int chunk = 0; chunk < CHUNKS; chunk += 2) {
        unsigned a[STRIPS][4], b[4];
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
            load_matrices(a[m], lefts + chunk_at(left + 16 * m + lane % 16, chunk + lane / 16));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices(b, rights + chunk_at(right + 8 * n + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                multiply(out[m][n], a[m], b[0], b[1]);
                multiply(out[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// sum[m][n] += weights[m] times rows `right` ... of a tile, of which n counts the channels by 8.
template <int N>
__device__ __forceinline__ void weigh(float (&sum)[STRIPS][WIDTH / 8][4], const float (&weights)[STRIPS][N][4],
                                      const unsigned char* rights, int right) {
    int lane = threadIdx.x % WARP;
    if constexpr (sizeof(REAL) == 2) {
#pragma unroll
        for (int k = 0; k < N; k += 2) {
            unsigned a[STRIPS][4], b[4];
#pragma unroll
            for (int m = 0; m < STRIPS; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    a[m][i] = pair_of(weights[m][k + i / 2][i % 2 * 2], weights[m][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n += 2) {
                load_turned(b, rights + chunk_at(right + 8 * k + lane % 16, n + lane / 16));
#pragma unroll
                for (int m = 0; m < STRIPS; m++) {
                    multiply(sum[m][n], a[m], b[0], b[1]);
                    multiply(sum[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    } else {
#pragma unroll
        for (int k = 0; k < N; k++) {
            unsigned a[STRIPS][4];
#pragma unroll
            for (int m = 0; m < STRIPS; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) a[m][i] = as_tf32(weights[m][k][i % 2 * 2 + i / 2]);
            int row = right + 8 * k + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                unsigned b[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const unsigned char* chunk = rights + chunk_at(row + i, 2 * n + lane / 16);
                    b[i] = reinterpret_cast<const unsigned*>(chunk)[lane / 4 % 4];
                }
#pragma unroll
                for (int m = 0; m < STRIPS; m++) multiply(sum[m][n], a[m], b[0], b[1]);
            }
        }
    }
}

// Stores this thread's numbers of the rows first + 16 m ... that exist, each row times a factor.
__device__ __forceinline__ void put(REAL* out, long long stride, int first, int count, int width,
                                    const float (&x)[STRIPS][WIDTH / 8][4], const float (&factor)[STRIPS][2]) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + 16 * m + 8 * half + lane / 4;
            if (row >= count) continue;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                int channel = 8 * n + lane % 4 * 2;
                float one = x[m][n][2 * half] * factor[m][half], two = x[m][n][2 * half + 1] * factor[m][half];
                REAL* to = out + row * stride + channel;
                if (channel >= width) continue;
                if constexpr (sizeof(REAL) == 2)
                    *reinterpret_cast<unsigned*>(to) = pair_of(one, two);
                else
                    *reinterpret_cast<float2*>(to) = make_float2(one, two);
            }
        }
}
