// Attention forward: a block of threads has TILE queries, and meets the keys TILE by TILE.
//
// Of the scores no more than a tile exists at a time. A query keeps the largest score so far and the sum of the
// exponentials relative to it; where a larger one comes, what was summed is multiplied by exp(old - new). In the end
// out = sum p v / sum p, and the gradient is given log sum exp(score), from which it computes the weights again.
// A block whose keys causality hides is not visited. WIDTH is the width of a head, rounded up.
//
// Read before: scores.cuh, tiles.cuh. Read next: attention_dots.cu, attention_backward.cu.
//
// versions: WIDTH=32,TILE=64 WIDTH=64,TILE=64 WIDTH=128,TILE=64 WIDTH=256,TILE=32

#include "tiles.cuh"

// Arrays `b h t c` and `b h s c` by their strides along the first three axes; out is laid out as `b t h c`, logs as
// `b h t`. Blocks: those of a head beside each other, the last queries first, which see the most keys.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_forward(const REAL* query, long long query_b, long long query_h, long long query_t, const REAL* key,
                      long long key_b, long long key_h, long long key_s, const REAL* value, long long value_b,
                      long long value_h, long long value_s, REAL* out, float* logs, SCORES_PARAMETERS) {
    extern __shared__ __align__(16) unsigned char shared[];
    float* asking = reinterpret_cast<float*>(shared);
    float* visited = asking + TILE * PITCH;  // keys, then their values
    float* weights = visited + TILE * PITCH;  // before, what is added to their scores
    Drawn<TILE, TILE> drawn{reinterpret_cast<unsigned short*>(weights + TILE * SQUARE)};

    int thread = threadIdx.x, y = thread / SIDE, x = thread % SIDE;
    int blocks = (queries + TILE - 1) / TILE, head = blockIdx.x / blocks, b = head / heads, h = head % heads;
    int begin = (blocks - 1 - (int)blockIdx.x % blocks) * TILE;
    Scores scores{SCORES_ARGUMENTS};
    scores.choose(b, h);
    Rows key_rows(key, key_b, key_h, key_s, b, h, keys, width);
    Rows value_rows(value, value_b, value_h, value_s, b, h, keys, width);
    Rows(query, query_b, query_h, query_t, b, h, queries, width).load_tile(asking, begin, thread);

    float largest[ROWS], total[ROWS], sum[ROWS][CHANNELS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        largest[i] = -infinity(), total[i] = 0.0f;
#pragma unroll
        for (int n = 0; n < CHANNELS; n++) sum[i][n] = 0.0f;
    }
    int stop = scores.horizon(min(begin + TILE, queries) - 1);
    for (int first = 0; first < stop; first += TILE) {
        __syncthreads();
        bool plain = scores.plain(begin, first, TILE, TILE);
        key_rows.load_tile(visited, first, thread);
        if (!plain) load_added<false>(weights, scores, begin, first, thread);
        if (scores.drops()) drawn.draw(scores, begin, first, thread, THREADS);
        __syncthreads();
        float s[ROWS][ROWS];
        multiply(asking, visited, y, x, s);
        __syncthreads();
        value_rows.load_tile(visited, first, thread);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            int row = y + SIDE * i;
            float peak = -infinity();
#pragma unroll
            for (int j = 0; j < ROWS; j++) {
                s[i][j] = scores.of(s[i][j], plain ? 0.0f : weights[row * SQUARE + x + SIDE * j]);
                peak = fmaxf(peak, s[i][j]);
            }
            peak = fmaxf(largest[i], side_max(peak));
            float shift = peak == -infinity() ? 0.0f : peak;  // a query that saw nothing yet
            float correction = exp2f((largest[i] - shift) * LOG2E);
            largest[i] = peak;
            total[i] *= correction;
#pragma unroll
            for (int n = 0; n < CHANNELS; n++) sum[i][n] *= correction;
#pragma unroll
            for (int j = 0; j < ROWS; j++) {
                int column = x + SIDE * j;
                float p = exp2f((s[i][j] - shift) * LOG2E);
                total[i] += p;
                if (scores.drops()) p = drawn.kept(scores, begin, first, row, column) ? p * scores.factor : 0.0f;
                weights[row * SQUARE + column] = p;
            }
        }
        __syncthreads();
        accumulate(weights, visited, y, x, sum);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int q = begin + y + SIDE * i;
        float all = side_sum(total[i]);
        if (q >= queries) continue;
        put(out + (((long long)b * queries + q) * heads + h) * width, width, x, sum[i], all == 0.0f ? 0.0f : 1.0f / all);
        if (x == 0) logs[(long long)head * queries + q] = all == 0.0f ? 0.0f : largest[i] + logf(all);
    }
}
