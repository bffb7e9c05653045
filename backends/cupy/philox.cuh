// Philox 4x64-10, a counter-based generator (Salmon 2011): random numbers that are a function of a key and a place.
//
// A kernel needs no mask in memory where it can draw it again: forward and backward find the same truth values, and
// they are those that NumPy's generator gives. Block number n of a stream is what the counter n + 1 gives, for NumPy
// counts up before it draws: four words of 64 bits, which are 16 numbers of 16 bits, the lowest bits first.
//
// Read before: common.cuh, random.py. Read next: dropout.cu.

#pragma once

struct PhiloxBlock {
    unsigned long long word[4];
};

__device__ __forceinline__ PhiloxBlock philox(
    unsigned long long key0, unsigned long long key1, unsigned long long block
) {
    constexpr unsigned long long first = 0xD2E7470EE14C6C93ull, second = 0xCA5A826395121157ull;
    unsigned long long c0 = block + 1, c1 = 0, c2 = 0, c3 = 0;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned long long high0 = __umul64hi(first, c0), low0 = first * c0;
        unsigned long long high1 = __umul64hi(second, c2), low1 = second * c2;
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return PhiloxBlock{{c0, c1, c2, c3}};
}

// Whether part 0 to 3 of a word keeps its element: it does below the threshold, which may be 65536.
__device__ __forceinline__ bool part_kept(unsigned long long word, int part, unsigned threshold) {
    return (unsigned)((word >> (16 * part)) & 0xffffull) < threshold;
}

// The truth values of the 16 elements that a block of words is for, element i in bit i.
__device__ __forceinline__ unsigned kept_bits(
    unsigned long long key0, unsigned long long key1, unsigned long long block, unsigned threshold
) {
    PhiloxBlock drawn = philox(key0, key1, block);
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) bits |= (unsigned)part_kept(drawn.word[i / 4], i % 4, threshold) << i;
    return bits;
}
