// Dropout: x / (1 - rate) where it is kept, else 0. The mask is drawn on the spot, or read from memory.
//
// Forward and backward are the same kernel: what is kept passes its gradient on, times the same factor.
//
// Read before: philox.cuh. Read next: activations.cu.

#include "common.cuh"
#include "philox.cuh"

// 16 elements at a place, of which bit i says whether element i is kept. The place is a multiple of 16 bytes.
__device__ __forceinline__ void keep_sixteen(const REAL* x, REAL* out, unsigned bits, float factor) {
    constexpr int size = Pack<REAL>::size;
    Pack<REAL> packs[16 / size];
#pragma unroll
    for (int i = 0; i < 16 / size; ++i) packs[i] = load(x + i * size);  // all loads are under way before one is used
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        REAL& at = packs[i / size].at[i % size];
        at = from_float<REAL>((bits >> i) & 1u ? to_float(at) * factor : 0.0f);
    }
#pragma unroll
    for (int i = 0; i < 16 / size; ++i) store(out + i * size, packs[i]);
}

// Those of 16 elements that lie in [0, count).
__device__ __forceinline__ void keep_some(
    const REAL* x, REAL* out, long long first, long long count, unsigned bits, float factor
) {
    for (int i = 0; i < 16; ++i) {
        long long at = first + i;
        if (at >= 0 && at < count) out[at] = from_float<REAL>((bits >> i) & 1u ? to_float(x[at]) * factor : 0.0f);
    }
}

// A thread takes the elements of one block of words, of row blockIdx.y and those gridDim.y further on.
// Reads and writes a number for each element.
extern "C" __global__ void dropout_drawn(
    const REAL* x, REAL* out,        // rows count
    const unsigned long long* keys,  // rows 2
    int rows, long long count, unsigned long long start, unsigned threshold, float factor
) {
    long long group = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long first = 16 * group - 4 * (long long)(start % 4);  // element of a row
    if (first >= count) return;
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        unsigned bits = kept_bits(keys[2 * row], keys[2 * row + 1], start / 4 + group, threshold);
        const REAL* from = x + row * count;
        REAL* to = out + row * count;
        if (first >= 0 && first + 16 <= count && aligned(from + first) && aligned(to + first))
            keep_sixteen(from + first, to + first, bits, factor);
        else
            keep_some(from, to, first, count, bits, factor);
    }
}

// The same by truth values in memory. Reads a number and a byte for each element, and writes a number.
extern "C" __global__ void dropout_read(
    const REAL* x, REAL* out, const unsigned char* keep, long long count, float factor
) {
    long long first = 16 * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
    if (first >= count) return;
    unsigned bits = 0;
    bool whole = first + 16 <= count && aligned(x + first) && aligned(out + first);
    if (first + 16 <= count && aligned(keep + first)) {
        Pack<unsigned char> pack = load(keep + first);
#pragma unroll
        for (int i = 0; i < 16; ++i) bits |= (unsigned)(pack.at[i] != 0) << i;
    } else {
        for (int i = 0; i < 16 && first + i < count; ++i) bits |= (unsigned)(keep[first + i] != 0) << i;
    }
    if (whole)
        keep_sixteen(x + first, out + first, bits, factor);
    else
        keep_some(x, out, first, count, bits, factor);
}
