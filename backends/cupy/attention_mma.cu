// Attention forward by tensor cores (Dao 2023, "FlashAttention-2").
//
// A block of four warps has 64 or 128 queries, of which each warp has its own, and meets the keys 64 at a time. Scores,
// weights and sums stay in registers; warps exchange nothing. While one tile of keys and values is computed with, the
// next one is under way. For what is summed, and in which order, see attention.cu: it is the same.
//
// What bounds it: for each score the tensor cores do 4 WIDTH operations, and the other units about ten instructions and
// one exponential. At WIDTH 64 in bfloat16 the two are of one size, and overlap as far as another warp of the same
// quarter of the chip has something to multiply. Memory is far from it: a block reads 64 keys for 128 queries.
//
// WIDTH is the width of a head, rounded up; STRIPS the queries of a warp by 16, fewer where registers are; BIASED
// whether there is a bias.
//
// Read before: mma_scores.cuh. Read next: attention_mma_backward.cu.
//
// versions: WIDTH=32,STRIPS=2,BIASED=0 WIDTH=64,STRIPS=2,BIASED=0 REAL=bfloat16,WIDTH=128,STRIPS=1,BIASED=0
// versions: WIDTH=32,STRIPS=1,BIASED=1 WIDTH=64,STRIPS=1,BIASED=1 REAL=bfloat16,WIDTH=128,STRIPS=1,BIASED=1

#include "mma_scores.cuh"

// As attention_forward. Shared memory: BLOCK queries, and two tiles each of keys and values.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_mma_forward(const REAL* query, long long query_b, long long query_h, long long query_t, const REAL* key,
                          long long key_b, long long key_h, long long key_s, const REAL* value, long long value_b,
                          long long value_h, long long value_s, REAL* out, float* logs, BITS_PARAMETERS,
                          SCORES_PARAMETERS) {
    extern __shared__ __align__(128) unsigned char shared[];
    unsigned char *asking = shared, *visited = shared + BLOCK * ROW;  // then by pairs: keys, their values

    int blocks = (queries + BLOCK - 1) / BLOCK, head = blockIdx.x / blocks, b = head / heads, h = head % heads;
    int begin = (blocks - 1 - (int)blockIdx.x % blocks) * BLOCK;
    int left = threadIdx.x / WARP * 16 * STRIPS, mine = begin + left;  // the warp's queries
    Scores scores{SCORES_ARGUMENTS};
    scores.choose(b, h);
    Bits bits(shown, shown_b, shown_h, shown_t, retained, scores, b, h);
    Rows key_rows(key, key_b, key_h, key_s, b, h, keys, width);
    Rows value_rows(value, value_b, value_h, value_s, b, h, keys, width);
    int tiles = (scores.horizon(min(begin + BLOCK, queries) - 1) + TILE - 1) / TILE;

    Copies copies;
    Rows(query, query_b, query_h, query_t, b, h, queries, width).fetch<BLOCK>(copies, asking, begin);
    if (tiles > 0) {
        key_rows.fetch<TILE>(copies, visited, 0);
        value_rows.fetch<TILE>(copies, visited + TILE * ROW, 0);
    }
    float largest[STRIPS][2], total[STRIPS][2], sum[STRIPS][WIDTH / 8][4];
    clear(sum);
#pragma unroll
    for (int m = 0; m < STRIPS; m++) largest[m][0] = largest[m][1] = -infinity(), total[m][0] = total[m][1] = 0.0f;

    for (int tile = 0; tile < tiles; tile++) {
        unsigned char* now = visited + tile % 2 * (2 * TILE * ROW);
        copies.wait();
        if (tile == 0) settle<BLOCK>(asking);
        settle<2 * TILE>(now);
        __syncthreads();  // this tile is there for all, and nobody reads the one before any more
        if (tile + 1 < tiles) {
            unsigned char* next = visited + (tile + 1) % 2 * (2 * TILE * ROW);
            key_rows.fetch<TILE>(copies, next, (tile + 1) * TILE);
            value_rows.fetch<TILE>(copies, next + TILE * ROW, (tile + 1) * TILE);
        }
        float x[STRIPS][TILE / 8][4];
        meet(x, asking, left, now, 0);
        to_logarithms<false>(x, scores, mine, tile * TILE);
        if (!bits.all(mine, 16 * STRIPS, tile, 1))
            replace(x, -infinity(), 0, [&](int row) { return bits.seen(mine + row, tile); });
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float peak = largest[m][half], part = 0.0f;
#pragma unroll
                for (int n = 0; n < TILE / 8; n++) peak = fmaxf(peak, fmaxf(x[m][n][2 * half], x[m][n][2 * half + 1]));
                peak = row_max(peak);
                float shift = peak == -infinity() ? 0.0f : peak;  // a query that saw nothing yet
                float correction = power_of_two(largest[m][half] - shift);
#pragma unroll
                for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) part += x[m][n][i] = power_of_two(x[m][n][i] - shift);
                largest[m][half] = peak;
                total[m][half] = total[m][half] * correction + part;
#pragma unroll
                for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) sum[m][n][i] *= correction;
            }
        if (retained) replace(x, 0.0f, 0, [&](int row) { return bits.kept(mine + row, tile); });
        weigh(sum, x, now + TILE * ROW, 0);
    }
    copies.wait();
    float share[STRIPS][2];
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int q = mine + 16 * m + row_of(2 * half);
            float all = row_sum(total[m][half]);
            share[m][half] = all == 0.0f ? 0.0f : factor / all;
            if (q < queries && threadIdx.x % 4 == 0)
                logs[(long long)head * queries + q] = all == 0.0f ? 0.0f : largest[m][half] / LOG2E + logf(all);
        }
    put(out + ((long long)b * queries * heads + h) * width, (long long)heads * width, mine, queries, width, sum, share);
}
