// What attention's kernels know of their scores: which of them count, what is added, and which weights are dropped.
//
// A kernel lists SCORES_PARAMETERS among its parameters and makes `Scores scores{SCORES_ARGUMENTS};` of them.
// scores.py passes them in this order.
//
// Read before: common.cuh, philox.cuh. Read next: tiles.cuh, attention.cu.

#pragma once

#include "common.cuh"
#include "philox.cuh"

// heads, queries, keys: the lengths of h, t, s; width: c. mask, bias: null where there is none, else with strides along
// b h t s, in elements, 0 where repeated. Dropout draws its truth values from random streams, whose keys are `philox`,
// one for each row of the batch or one for all (see PhiloxMask in random.py), or finds them in `kept`, `b h t s`; both
// are null where nothing is dropped. `factor` multiplies the weights that are kept.
#define SCORES_PARAMETERS                                                                                             \
    int heads, int queries, int keys, int width, int causal, float scale, const unsigned char *mask,                 \
        long long mask_b, long long mask_h, long long mask_t, long long mask_s, const REAL *bias, long long bias_b,  \
        long long bias_h, long long bias_t, long long bias_s, const unsigned char *kept,                             \
        const unsigned long long *philox, int streams, unsigned long long start, unsigned threshold, float factor
#define SCORES_ARGUMENTS                                                                                              \
    heads, queries, keys, width, causal, scale, mask, mask_b, mask_h, mask_t, mask_s, bias, bias_b, bias_h, bias_t,   \
        bias_s, kept, philox, streams, start, threshold, factor

struct Scores {
    int heads, queries, keys, width, causal;
    float scale;
    const unsigned char* mask;
    long long mask_b, mask_h, mask_t, mask_s;
    const REAL* bias;
    long long bias_b, bias_h, bias_t, bias_s;
    const unsigned char* kept;
    const unsigned long long* philox;
    int streams;
    unsigned long long start;
    unsigned threshold;
    float factor;

    // Looks at one head of one row of the batch from here on.
    __device__ __forceinline__ void choose(int b, int h) {
        if (mask) mask += b * mask_b + h * mask_h;
        if (bias) bias += b * bias_b + h * bias_h;
        // Elements are numbered within their stream; `start` becomes the number of this head's first.
        start = 4 * start + ((streams == 1 ? (unsigned long long)b * heads : 0) + h) * queries * keys;
        if (philox && streams > 1) philox += 2 * b;
    }

    // By causality a query sees the keys before this one. The last query stands at the last key.
    __device__ __forceinline__ int horizon(int query) const {
        return causal ? min(keys, query + 1 + keys - queries) : keys;
    }

    // The first query that sees a key, by causality.
    __device__ __forceinline__ int first_query(int key) const { return causal ? max(0, key - (keys - queries)) : 0; }

    // What is added to a score: the bias, or -infinity where the query may not look.
    __device__ __forceinline__ float added(int query, int key) const {
        bool visible = query < queries && key < horizon(query) && (!mask || mask[query * mask_t + key * mask_s]);
        return !visible ? -infinity() : bias ? to_float(bias[query * bias_t + key * bias_s]) : 0.0f;
    }

    // Whether nothing is added to any score of a tile that begins at this query and key.
    __device__ __forceinline__ bool plain(int query, int key, int rows, int columns) const {
        return !mask && !bias && query + rows <= queries && key + columns <= horizon(query);
    }

    // A score, from the product of its query and key.
    __device__ __forceinline__ float of(float product, float added) const {
        return added == -infinity() ? added : product * scale + added;
    }

    __device__ __forceinline__ bool drops() const { return kept || philox; }

    __device__ __forceinline__ unsigned long long element(int query, int key) const {
        return start + (unsigned long long)query * keys + key;
    }

    // Which of the elements 16 n, 16 n + 1, ... are kept, a bit each; of those in [first, stop), at least.
    __device__ __forceinline__ unsigned sixteen(unsigned long long n, unsigned long long first,
                                                unsigned long long stop) const {
        unsigned bits = 0;
        if (philox) {
            bits = kept_bits(philox[0], philox[1], n, threshold);
        } else {
            for (int i = 0; i < 16; i++)
                if (16 * n + i >= first && 16 * n + i < stop) bits |= (unsigned)(kept[16 * n + i] != 0) << i;
        }
        return bits;
    }
};

// Which weights of a tile of queries and keys are kept, drawn by all threads of a block together into shared memory:
// a draw gives 16 elements at once, and one thread alone would use few of them.
template <int QUERIES, int KEYS> struct Drawn {
    static constexpr int WORDS = KEYS / 16 + 1;  // of 16 bits; a row seldom begins where a word does
    static constexpr int BYTES = QUERIES * WORDS * 2;
    unsigned short* words;

    __device__ __forceinline__ void draw(const Scores& scores, int query, int key, int thread, int threads) const {
        for (int i = thread; i < QUERIES * WORDS; i += threads) {
            int row = query + i / WORDS;
            if (row >= scores.queries) break;
            unsigned long long first = scores.element(row, key);
            unsigned long long stop = scores.element(row, min(key + KEYS, scores.keys));
            unsigned long long n = first / 16 + i % WORDS;
            if (16 * n < stop) words[i] = (unsigned short)scores.sixteen(n, first, stop);
        }
    }

    // Of the pair that stands in this row and column of the tile, which begins at this query and key.
    __device__ __forceinline__ bool kept(const Scores& scores, int query, int key, int row, int column) const {
        unsigned place = (unsigned)scores.element(query + row, key) % 16 + column;
        return words[row * WORDS + place / 16] >> place % 16 & 1;
    }
};
