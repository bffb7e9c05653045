// Attention backward by tensor cores: the gradients of queries, of keys and values, and of a bias.
//
// As attention_backward.cu, which has the formulas: a sum belongs to one block, which adds it up in registers, in the
// same order every time. Blocks of queries meet the keys for q̄, blocks of keys the queries for k̄ and v̄, and each
// computes the weights p and the gradients s̄ of the scores for itself. That makes seven products instead of five, and
// no addition in memory whose order would be left to chance. Where keys are the rows, the products come out turned, and
// so p and s̄ are again at hand as the left side of what is to be summed.
//
// What bounds it: as forward, with 14 WIDTH operations of the tensor cores for each score, and two exponentials.
// Results for PART rows of a tile at a time fit into registers beside the sums.
//
// Read before: attention_mma.cu.
//
// versions: WIDTH=32,STRIPS=1,BIASED=0,PART=64 WIDTH=64,STRIPS=1,BIASED=0,PART=64
// versions: WIDTH=32,STRIPS=1,BIASED=1,PART=32 WIDTH=64,STRIPS=1,BIASED=1,PART=32
// versions: REAL=bfloat16,WIDTH=128,STRIPS=1,BIASED=0,PART=32 REAL=bfloat16,WIDTH=128,STRIPS=1,BIASED=1,PART=16

#include "mma_scores.cuh"

constexpr int SPAN = PART / 8;

// As in attention_backward.cu.
#define GIVEN                                                                                                        \
    const REAL *query, long long query_b, long long query_h, long long query_t, const REAL *key, long long key_b,    \
        long long key_h, long long key_s, const REAL *value, long long value_b, long long value_h,                   \
        long long value_s, const REAL *gradient, long long gradient_b, long long gradient_h, long long gradient_t,   \
        const float *logs, const float *dots
#define QUERY_ROWS(b, h) Rows(query, query_b, query_h, query_t, b, h, queries, width)
#define GRADIENT_ROWS(b, h) Rows(gradient, gradient_b, gradient_h, gradient_t, b, h, queries, width)
#define KEY_ROWS(b, h) Rows(key, key_b, key_h, key_s, b, h, keys, width)
#define VALUE_ROWS(b, h) Rows(value, value_b, value_h, value_s, b, h, keys, width)

// Of a lane's queries: the logarithm to base 2 of what their weights are divided by, and ḡ out.
struct Numbers {
    float log[STRIPS][2], dot[STRIPS][2];

    // logs and dots begin with the first query of the head.
    __device__ __forceinline__ Numbers(const float* logs, const float* dots, int query, int queries) {
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int q = query + 16 * m + row_of(2 * half);
                log[m][half] = q < queries ? logs[q] * LOG2E : 0.0f;
                dot[m][half] = q < queries ? dots[q] : 0.0f;
            }
    }
};

// s̄ of the warp's queries, from `query` on, and PART keys, from `key` on. The tiles of queries and their gradients
// have them from row `left`, the tiles of keys and values from row `right`.
__device__ __forceinline__ void slopes(float (&p)[STRIPS][SPAN][4], const Bits& bits, const Numbers& numbers, int query,
                                       int key, const unsigned char* asking, const unsigned char* gradients, int left,
                                       const unsigned char* visited, const unsigned char* values, int right) {
    float slope[STRIPS][SPAN][4];
    int word = key / TILE, place = key % TILE;
    meet(p, asking, left, visited, right);
    to_logarithms<false>(p, bits.scores, query, key);
    if (!bits.all(query, 16 * STRIPS, word, 1))
        replace(p, -infinity(), place, [&](int row) { return bits.seen(query + row, word); });
    meet(slope, gradients, left, values, right);
    if (bits.retained) replace(slope, 0.0f, place, [&](int row) { return bits.kept(query + row, word); });
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int n = 0; n < SPAN; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[m][n][i] = power_of_two(p[m][n][i] - numbers.log[m][i / 2]) *
                             (slope[m][n][i] * bits.scores.factor - numbers.dot[m][i / 2]);
}

// The gradient of queries, laid out as `b t h c`. Shared memory: BLOCK queries and their gradients, and two tiles each
// of keys and values.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_mma_queries(GIVEN, REAL* grad_query, BITS_PARAMETERS, SCORES_PARAMETERS) {
    extern __shared__ __align__(128) unsigned char shared[];
    unsigned char *asking = shared, *gradients = asking + BLOCK * ROW, *visited = gradients + BLOCK * ROW;

    int blocks = (queries + BLOCK - 1) / BLOCK, head = blockIdx.x / blocks, b = head / heads, h = head % heads;
    int begin = (blocks - 1 - (int)blockIdx.x % blocks) * BLOCK;
    int left = threadIdx.x / WARP * 16 * STRIPS, mine = begin + left;
    Scores scores{SCORES_ARGUMENTS};
    scores.choose(b, h);
    Bits bits(shown, shown_b, shown_h, shown_t, retained, scores, b, h);
    Rows key_rows = KEY_ROWS(b, h), value_rows = VALUE_ROWS(b, h);
    int tiles = (scores.horizon(min(begin + BLOCK, queries) - 1) + TILE - 1) / TILE;

    Copies copies;
    QUERY_ROWS(b, h).fetch<BLOCK>(copies, asking, begin);
    GRADIENT_ROWS(b, h).fetch<BLOCK>(copies, gradients, begin);
    if (tiles > 0) {
        key_rows.fetch<TILE>(copies, visited, 0);
        value_rows.fetch<TILE>(copies, visited + TILE * ROW, 0);
    }
    Numbers numbers(logs + (long long)head * queries, dots + (long long)head * queries, mine, queries);
    float sum[STRIPS][WIDTH / 8][4], last[STRIPS][2];
    clear(sum);

    for (int tile = 0; tile < tiles; tile++) {
        unsigned char *now = visited + tile % 2 * (2 * TILE * ROW), *next = visited + (tile + 1) % 2 * (2 * TILE * ROW);
        copies.wait();
        if (tile == 0) settle<2 * BLOCK>(asking);
        settle<2 * TILE>(now);
        __syncthreads();  // this tile is there for all, and nobody reads the one before any more
        if (tile + 1 < tiles) {
            key_rows.fetch<TILE>(copies, next, (tile + 1) * TILE);
            value_rows.fetch<TILE>(copies, next + TILE * ROW, (tile + 1) * TILE);
        }
#pragma unroll 1
        for (int part = 0; part < TILE; part += PART) {
            float slope[STRIPS][SPAN][4];
            slopes(slope, bits, numbers, mine, tile * TILE + part, asking, gradients, left, now, now + TILE * ROW,
                   part);
            weigh(sum, slope, now, part);
        }
    }
    copies.wait();
#pragma unroll
    for (int m = 0; m < STRIPS; m++) last[m][0] = last[m][1] = scale;
    put(grad_query + ((long long)b * queries * heads + h) * width, (long long)heads * width, mine, queries, width, sum,
        last);
}

// The gradients of keys and values, each laid out as `b s h c`. Shared memory: BLOCK keys and values; two tiles each of
// queries and their gradients; and for those, twice, TILE logarithms and dots.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_mma_keys(GIVEN, REAL* grad_key, REAL* grad_value, BITS_PARAMETERS, SCORES_PARAMETERS) {
    extern __shared__ __align__(128) unsigned char shared[];
    unsigned char *asked = shared, *values = asked + BLOCK * ROW, *visited = values + BLOCK * ROW;
    float* numbers = reinterpret_cast<float*>(visited + 4 * TILE * ROW);

    int blocks = (keys + BLOCK - 1) / BLOCK, head = blockIdx.x / blocks, b = head / heads, h = head % heads;
    int begin = (int)blockIdx.x % blocks * BLOCK;
    int left = threadIdx.x / WARP * 16 * STRIPS, mine = begin + left, word = mine / TILE;
    Scores scores{SCORES_ARGUMENTS};
    scores.choose(b, h);
    Bits bits(shown, shown_b, shown_h, shown_t, retained, scores, b, h);
    Rows query_rows = QUERY_ROWS(b, h), gradient_rows = GRADIENT_ROWS(b, h);
    const float* number = (threadIdx.x < TILE ? logs : dots) + (long long)head * queries;
    int tiles = (queries + TILE - 1) / TILE, first = scores.first_query(begin) / TILE;

    Copies copies;
    auto fetch = [&](int tile) {
        unsigned char* to = visited + tile % 2 * (2 * TILE * ROW);
        query_rows.fetch<TILE>(copies, to, tile * TILE);
        gradient_rows.fetch<TILE>(copies, to + TILE * ROW, tile * TILE);
        int q = tile * TILE + (int)threadIdx.x % TILE;
        copies.add<4>(numbers + tile % 2 * (2 * TILE) + threadIdx.x, number + q, q < queries);
    };
    KEY_ROWS(b, h).fetch<BLOCK>(copies, asked, begin);
    VALUE_ROWS(b, h).fetch<BLOCK>(copies, values, begin);
    if (first < tiles) fetch(first);
    float sum_key[STRIPS][WIDTH / 8][4], sum_value[STRIPS][WIDTH / 8][4], last[STRIPS][2];
    clear(sum_key), clear(sum_value);

    for (int tile = first; tile < tiles; tile++) {
        unsigned char *now = visited + tile % 2 * (2 * TILE * ROW), *gradients = now + TILE * ROW;
        copies.wait();
        if (tile == first) settle<2 * BLOCK>(asked);
        settle<2 * TILE>(now);
        __syncthreads();  // as in attention_mma_queries
        if (tile + 1 < tiles) fetch(tile + 1);
#pragma unroll 1
        for (int part = 0; part < TILE; part += PART) {
            int query = tile * TILE + part;
            const float *log = numbers + tile % 2 * (2 * TILE) + part, *dot = log + TILE;
            auto drop = [&](float(&x)[STRIPS][SPAN][4]) {
                auto kept = [&](int column) { return bits.kept(query + column, word); };
                if (bits.retained) replace_turned(x, 0.0f, mine % TILE, kept);
            };
            float p[STRIPS][SPAN][4], slope[STRIPS][SPAN][4];
            meet(p, asked, left, now, part);
            to_logarithms<true>(p, scores, mine, query);
            auto seen = [&](int column) { return bits.seen(query + column, word); };
            if (!bits.all(query, PART, word, 1)) replace_turned(p, -infinity(), mine % TILE, seen);
            meet(slope, values, left, gradients, part);
            drop(slope);
#pragma unroll
            for (int m = 0; m < STRIPS; m++)
#pragma unroll
                for (int n = 0; n < SPAN; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        p[m][n][i] = power_of_two(p[m][n][i] - log[column_of(n, i)] * LOG2E);
                        slope[m][n][i] = p[m][n][i] * (slope[m][n][i] * factor - dot[column_of(n, i)]);
                    }
            drop(p);
            weigh(sum_value, p, gradients, part);
            weigh(sum_key, slope, now, part);
        }
    }
    copies.wait();
    long long place = ((long long)b * keys * heads + h) * width;
#pragma unroll
    for (int m = 0; m < STRIPS; m++) last[m][0] = last[m][1] = scale;
    put(grad_key + place, (long long)heads * width, mine, keys, width, sum_key, last);
#pragma unroll
    for (int m = 0; m < STRIPS; m++) last[m][0] = last[m][1] = factor;
    put(grad_value + place, (long long)heads * width, mine, keys, width, sum_value, last);
}

// s̄ itself, the gradient of a bias, `n h t s` in float: of each row of the batch, or, where the bias is the same in
// all of them (n = 1), their sum in order. Shared memory: BLOCK queries and their gradients, and PART keys and their
// values.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_mma_bias(GIVEN, float* grad_bias, int batch, int shared_bias, BITS_PARAMETERS, SCORES_PARAMETERS) {
    extern __shared__ __align__(128) unsigned char shared[];
    unsigned char *asking = shared, *gradients = asking + BLOCK * ROW, *visited = gradients + BLOCK * ROW;

    int across = (keys + PART - 1) / PART, down = (queries + BLOCK - 1) / BLOCK;
    int first = (int)blockIdx.x % across * PART, begin = (int)blockIdx.x / across % down * BLOCK;
    int head = blockIdx.x / across / down, h = head % heads;
    int left = threadIdx.x / WARP * 16 * STRIPS, mine = begin + left;
    float total[STRIPS][SPAN][4];
    clear(total);
    bool hidden = first >= Scores{SCORES_ARGUMENTS}.horizon(min(begin + BLOCK, queries) - 1);
    int b = shared_bias ? 0 : head / heads, stop = hidden ? b : shared_bias ? batch : b + 1;

    Copies copies;
    for (; b < stop; b++) {
        Scores scores{SCORES_ARGUMENTS};
        scores.choose(b, h);
        Bits bits(shown, shown_b, shown_h, shown_t, retained, scores, b, h);
        __syncthreads();  // nobody reads the tiles of the row before any more
        QUERY_ROWS(b, h).fetch<BLOCK>(copies, asking, begin);
        GRADIENT_ROWS(b, h).fetch<BLOCK>(copies, gradients, begin);
        KEY_ROWS(b, h).fetch<PART>(copies, visited, first);
        VALUE_ROWS(b, h).fetch<PART>(copies, visited + PART * ROW, first);
        long long place = ((long long)b * heads + h) * queries;
        Numbers numbers(logs + place, dots + place, mine, queries);
        copies.wait();
        settle<2 * BLOCK + 2 * PART>(asking);
        __syncthreads();
        float slope[STRIPS][SPAN][4];
        slopes(slope, bits, numbers, mine, first, asking, gradients, left, visited, visited + PART * ROW, 0);
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
#pragma unroll
            for (int n = 0; n < SPAN; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) total[m][n][i] += slope[m][n][i];
    }
    grad_bias += (long long)head * queries * keys;
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int n = 0; n < SPAN; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int q = mine + 16 * m + row_of(i), k = first + column_of(n, i);
                if (q < queries && k < keys) grad_bias[(long long)q * keys + k] = total[m][n][i];
            }
}
