// Truth values written to memory, for functions that cannot draw them where they use them.
//
// Read before: philox.cuh.

#include "common.cuh"
#include "philox.cuh"

// A thread draws a block of words, for 16 elements: of row blockIdx.y and those gridDim.y further on.
// Reads 16 bytes a row, writes a byte an element.
extern "C" __global__ void draw(
    const unsigned long long* keys,  // rows 2
    unsigned char* out,              // rows count
    int rows, long long count, unsigned long long start, unsigned threshold
) {
    long long group = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long first = 16 * group - 4 * (long long)(start % 4);  // element of a row
    if (first >= count) return;
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        unsigned bits = kept_bits(keys[2 * row], keys[2 * row + 1], start / 4 + group, threshold);
        unsigned char* place = out + row * count + first;
        if (first >= 0 && first + 16 <= count && aligned(place)) {
            Pack<unsigned char> pack;
#pragma unroll
            for (int i = 0; i < 16; ++i) pack.at[i] = (bits >> i) & 1u;
            store(place, pack);
        } else {
            for (int i = 0; i < 16; ++i)
                if (first + i >= 0 && first + i < count) place[i] = (bits >> i) & 1u;
        }
    }
}
