// What attention's kernels know of their scores: which of them count, what is added, and which weights are dropped.
//
// A kernel lists SCORES_PARAMETERS among its parameters and makes `Scores scores{SCORES_ARGUMENTS};` of them.
// scores.py passes them in this order.
//
// Read before: common.cuh, philox.cuh. Read next: attention.cu.

#pragma once

// heads, queries, keys: lengths of h, t, s; width: c. mask, bias: null where there is none, else with strides along
// b h t s, in elements, 0 where repeated. kept: truth values `b h t s`, or null. philox: the keys of `streams` random
// streams, one for each row of the batch or one for all, or null; see PhiloxMask in random.py for the rest.
// `raise` multiplies the weights that are kept.
#define SCORES_PARAMETERS                                                                                            \
    int heads, int queries, int keys, int width, int causal, float scale, const unsigned char *mask,                \
        long long mask_b, long long mask_h, long long mask_t, long long mask_s, const REAL *bias, long long bias_b, \
        long long bias_h, long long bias_t, long long bias_s, const unsigned char *kept,                            \
        const unsigned long long *philox, int streams, unsigned long long start, int threshold, float raise
#define SCORES_ARGUMENTS                                                                                          \
    heads, queries, keys, width, causal, scale, mask, mask_b, mask_h, mask_t, mask_s, bias, bias_b, bias_h, bias_t, \
        bias_s, kept, philox, streams, start, threshold, raise
