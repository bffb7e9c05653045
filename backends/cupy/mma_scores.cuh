// The weights of a tile, in the registers where tensor cores left the products: hidden, shifted and dropped by bits.
//
// Read before: scores.cuh, mma_tiles.cuh. Read next: attention_mma.cu.

#pragma once

#include "mma_tiles.cuh"
#include "scores.cuh"

// What a kernel is told of the bits that attention_bits.cu made: null where nothing is masked or dropped.
#define BITS_PARAMETERS                                                                                            \
    const unsigned long long *shown, long long shown_b, long long shown_h, long long shown_t,                      \
        const unsigned long long *retained

// The bits of one head, and what of the scores it does not need them for.
struct Bits {
    const unsigned long long *shown, *retained;  // null where there are none
    long long shown_t, retained_t;
    Scores scores;

    __device__ __forceinline__ Bits(const unsigned long long* shown, long long shown_b, long long shown_h,
                                    long long shown_t, const unsigned long long* retained, const Scores& scores, int b,
                                    int h)
        : shown(shown ? shown + b * shown_b + h * shown_h : nullptr),
          shown_t(shown_t),
          retained_t((scores.keys + TILE - 1) / TILE),
          retained(retained),
          scores(scores) {
        if (retained) this->retained += ((long long)b * scores.heads + h) * scores.queries * retained_t;
    }

    // Whether all these queries see all keys of these words.
    __device__ __forceinline__ bool all(int query, int queries, int word, int words) const {
        return !shown && query + queries <= scores.queries && (word + words) * TILE <= scores.horizon(query);
    }

    // Which of the 64 keys of a word a query sees.
    __device__ __forceinline__ unsigned long long seen(int query, int word) const {
        int count = query < scores.queries ? scores.horizon(query) - word * TILE : 0;
        if (count <= 0) return 0;
        unsigned long long bits = shown ? shown[query * shown_t + word] : ~0ull;
        return count < TILE ? bits & ((1ull << count) - 1) : bits;
    }

    // Of which of them it keeps the weights; asked only about those that it sees.
    __device__ __forceinline__ unsigned long long kept(int query, int word) const {
        return retained && query < scores.queries && word < retained_t ? retained[query * retained_t + word] : ~0ull;
    }
};

// The place of number i of column block n of a lane's results, within its strip: see layout C in mma.cuh.
__device__ __forceinline__ int row_of(int i) { return threadIdx.x % WARP / 4 + i / 2 * 8; }
__device__ __forceinline__ int column_of(int n, int i) { return 8 * n + threadIdx.x % 4 * 2 + i % 2; }

// Puts `instead` in the place of numbers whose bit is not set. `words(row)` has the bits of a row, from `place` on.
template <int N, typename Words>
__device__ __forceinline__ void replace(float (&x)[STRIPS][N][4], float instead, int place, Words words) {
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned long long bits = words(16 * m + row_of(2 * half)) >> (place + column_of(0, 0));
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    if (!(bits >> (8 * n + i) & 1)) x[m][n][2 * half + i] = instead;
        }
}

// The same where `words(column)` has the bits of a column.
template <int N, typename Words>
__device__ __forceinline__ void replace_turned(float (&x)[STRIPS][N][4], float instead, int place, Words words) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            unsigned bits = (unsigned)(words(column_of(n, i)) >> (place + row_of(0)));
#pragma unroll
            for (int m = 0; m < STRIPS; m++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    if (!(bits >> (16 * m + 8 * half) & 1)) x[m][n][2 * half + i] = instead;
        }
}

// Products become logarithms to base 2 of weights that are not divided yet: scaled, and with their biases. The rows of
// the products are queries, the columns keys, or, TURNED, the other way round.
template <bool TURNED, int N>
__device__ __forceinline__ void to_logarithms(float (&x)[STRIPS][N][4], const Scores& scores, int row, int column) {
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[m][n][i] *= scores.scale * LOG2E;
                if constexpr (BIASED) {
                    int r = row + 16 * m + row_of(i), c = column + column_of(n, i);
                    int q = TURNED ? c : r, k = TURNED ? r : c;
                    if (q < scores.queries && k < scores.keys)
                        x[m][n][i] += to_float(scores.bias[q * scores.bias_t + k * scores.bias_s]) * LOG2E;
                }
            }
}

// The sum (or maximum) over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}

__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}
