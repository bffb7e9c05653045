// Truth values of attention as bits, 64 keys in a word: which of them a mask shows, and which weights dropout keeps.
//
// The kernels by tensor cores are to be occupied with products. Drawn here, a word costs four or five draws for 64
// weights, once a step, where forward and each half of backward would draw the same again; and a mask that all heads
// share is read once. The words of dropout take 1/16 of the memory that weights in bfloat16 would.
//
// Read before: scores.cuh. Read next: attention_mma.cu.

#include "scores.cuh"

// words: `rows ceil(keys / 64)`, where rows counts those of the mask, `b h t` or 1 in the place of what it is repeated
// along. A warp for each word.
extern "C" __global__ void attention_mask_bits(unsigned long long* words, long long count, int mask_heads,
                                               int mask_queries, SCORES_PARAMETERS) {
    int lane = threadIdx.x % WARP, in_row = (keys + 63) / 64;
    long long word = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, row = word / in_row;
    if (word >= count) return;  // a warp together
    long long query = row % mask_queries, head = row / mask_queries % mask_heads, b = row / mask_queries / mask_heads;
    const unsigned char* from = mask + b * mask_b + head * mask_h + query * mask_t;
    unsigned long long bits = 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int key = (int)(word % in_row) * 64 + half * WARP + lane;
        bits |= (unsigned long long)__ballot_sync(ALL, key < keys && from[key * mask_s]) << half * WARP;
    }
    if (lane == 0) words[word] = bits;
}

// words: `b h t ceil(keys / 64)`, of which those beyond a query's horizon stay as they are. A thread for each word.
extern "C" __global__ void attention_kept_bits(unsigned long long* words, long long count, SCORES_PARAMETERS) {
    int in_row = (keys + 63) / 64;
    long long word = (long long)blockIdx.x * blockDim.x + threadIdx.x, head = word / in_row / queries;
    if (word >= count) return;
    int query = (int)(word / in_row % queries), key = (int)(word % in_row) * 64;
    Scores scores{SCORES_ARGUMENTS};
    scores.choose((int)(head / heads), (int)(head % heads));
    if (key >= scores.horizon(query)) return;
    unsigned long long first = scores.element(query, key), stop = scores.element(query, min(key + 64, keys)), bits = 0;
    for (unsigned long long n = first / 16; 16 * n < stop; n++) {
        unsigned long long sixteen = scores.sixteen(n, first, stop);
        bits |= 16 * n >= first ? sixteen << (16 * n - first) : sixteen >> (first - 16 * n);
    }
    words[word] = bits;
}
