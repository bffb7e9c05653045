// Rows that threads share: who reads what of a row, and sums over all of it.
//
// `blockDim.x` threads share a row: a warp where it is short, so that no warp waits for another, and `blockDim.y` rows
// make a block; or a block where it is long. Each thread takes 128 bits, the next thread the next 128.
//
// Read before: common.cuh. Read next: norms.cu, softmax.cu, loss.cu.

#pragma once
#include "common.cuh"

constexpr int PACK = Pack<REAL>::size;

// What a thread has of a row at a time.
struct Floats {
    float at[PACK];
};

// The numbers of a row from `column` on, which may lie before its beginning; `absent` beyond either end. With `whole`,
// the address of `row[column]` is a multiple of 16 bytes.
__device__ __forceinline__ Floats fetch(const REAL* row, int column, int width, bool whole, float absent = 0.0f) {
    Floats numbers;
    if (whole && column >= 0 && column + PACK <= width) {
        Pack<REAL> pack = load(row + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i) numbers.at[i] = to_float(pack.at[i]);
    } else {
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            bool inside = column + i >= 0 && column + i < width;
            numbers.at[i] = inside ? to_float(row[column + i]) : absent;
        }
    }
    return numbers;
}

// The way back; what lies beyond the row is not written.
__device__ __forceinline__ void put(REAL* row, int column, int width, bool whole, const Floats& numbers) {
    if (whole && column >= 0 && column + PACK <= width) {
        Pack<REAL> pack;
#pragma unroll
        for (int i = 0; i < PACK; ++i) pack.at[i] = from_float<REAL>(numbers.at[i]);
        store(row + column, pack);
    } else {
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            if (column + i >= 0 && column + i < width) row[column + i] = from_float<REAL>(numbers.at[i]);
    }
}

// Numbers from the last multiple of 16 bytes to the address: how far before a row its first 128 bits begin.
__device__ __forceinline__ int beyond(const void* address) {
    return (int)((unsigned long long)address & 15u) / (int)sizeof(REAL);
}

// Every thread of a row gets the sum (or maximum) over it.
__device__ __forceinline__ float row_sum(float x, float* scratch) {
    return blockDim.x == WARP ? warp_sum(x) : block_sum(x, scratch);
}

__device__ __forceinline__ float row_max(float x, float* scratch) {
    return blockDim.x == WARP ? warp_max(x) : block_max(x, scratch);
}

constexpr float LOWEST = -3.402823466e38f;  // finite, so that it may be subtracted from -inf

// The sum of exponentials of what a thread meets, relative to the largest so far: one read finds both.
struct Exponentials {
    float largest = LOWEST, sum = 0.0f;

    __device__ __forceinline__ void add(const Floats& numbers) {
        float top = largest;
#pragma unroll
        for (int i = 0; i < PACK; ++i) top = fmaxf(top, numbers.at[i]);
        sum *= __expf(largest - top);
#pragma unroll
        for (int i = 0; i < PACK; ++i) sum += __expf(numbers.at[i] - top);
        largest = top;
    }

    // Of the whole row, in every thread.
    __device__ __forceinline__ void join(float* scratch) {
        float top = row_max(largest, scratch);
        sum = row_sum(sum * __expf(largest - top), scratch);
        largest = top;
    }
};
