// Attention backward, without storing scores: each kernel computes those of its tiles again.
//
// With p the weights, p̄ = ḡ vᵀ, and through the softmax s̄ = p (p̄ - Σ p̄ p), where Σ p̄ p = Σ ḡ out, `dots` here. Then
// v̄ = pᵀ ḡ, k̄ = s̄ᵀ q and q̄ = s̄ k, by the scale of the scores. Weights that dropout removed count 0 in v̄ and in p̄.
// What a sum runs over is visited by one block of threads in order, and never added to from several: keys have a kernel
// of their own, queries another, and a bias a third. That computes scores more often, and the same bits every time.
//
// Read before: attention_dots.cu, attention.cu.
//
// versions: WIDTH=32,TILE=64 WIDTH=64,TILE=64 WIDTH=128,TILE=32 WIDTH=256,TILE=16

#include "tiles.cuh"

// Queries and their gradients, keys and values, by their strides along the first three axes; `b h t` of each query.
#define GIVEN                                                                                                        \
    const REAL *query, long long query_b, long long query_h, long long query_t, const REAL *key, long long key_b,   \
        long long key_h, long long key_s, const REAL *value, long long value_b, long long value_h,                  \
        long long value_s, const REAL *gradient, long long gradient_b, long long gradient_h, long long gradient_t,  \
        const float *logs, const float *dots
#define QUERY_ROWS(b, h) Rows(query, query_b, query_h, query_t, b, h, queries, width)
#define GRADIENT_ROWS(b, h) Rows(gradient, gradient_b, gradient_h, gradient_t, b, h, queries, width)
#define KEY_ROWS(b, h) Rows(key, key_b, key_h, key_s, b, h, keys, width)
#define VALUE_ROWS(b, h) Rows(value, value_b, value_h, value_s, b, h, keys, width)

template <int N> __device__ __forceinline__ void clear(float (&sum)[ROWS][N]) {
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int n = 0; n < N; n++) sum[i][n] = 0.0f;
}

// The gradients of TILE keys and their values, from all queries that see them; both are laid out as `b s h c`. A weight
// that dropout removed is marked by its sign.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_keys(GIVEN, REAL* grad_key, REAL* grad_value, SCORES_PARAMETERS) {
    extern __shared__ __align__(16) unsigned char shared[];
    float* own_keys = reinterpret_cast<float*>(shared);
    float* own_values = own_keys + TILE * PITCH;
    float* asking = own_values + TILE * PITCH;
    float* gradients = asking + TILE * PITCH;
    float* square = gradients + TILE * PITCH;
    Drawn<TILE, TILE> drawn{reinterpret_cast<unsigned short*>(square + TILE * SQUARE)};

    int thread = threadIdx.x, y = thread / SIDE, x = thread % SIDE;
    int blocks = (keys + TILE - 1) / TILE, head = blockIdx.x / blocks, b = head / heads, h = head % heads;
    int begin = (int)blockIdx.x % blocks * TILE;
    Scores scores{SCORES_ARGUMENTS};
    scores.choose(b, h);
    Rows query_rows = QUERY_ROWS(b, h), gradient_rows = GRADIENT_ROWS(b, h);
    KEY_ROWS(b, h).load_tile(own_keys, begin, thread);
    VALUE_ROWS(b, h).load_tile(own_values, begin, thread);
    logs += (long long)head * queries, dots += (long long)head * queries;

    float sum_key[ROWS][CHANNELS], sum_value[ROWS][CHANNELS];
    clear(sum_key), clear(sum_value);
    for (int first = scores.first_query(begin) / TILE * TILE; first < queries; first += TILE) {
        __syncthreads();
        query_rows.load_tile(asking, first, thread);
        gradient_rows.load_tile(gradients, first, thread);
        bool plain = scores.plain(first, begin, TILE, TILE);
        if (!plain) load_added<true>(square, scores, first, begin, thread);
        if (scores.drops()) drawn.draw(scores, first, begin, thread, THREADS);
        __syncthreads();
        float product[ROWS][ROWS];
        multiply(own_keys, asking, y, x, product);
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            int column = x + SIDE * j;
            float log = logs[min(first + column, queries - 1)];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                int row = y + SIDE * i;
                float score = scores.of(product[i][j], plain ? 0.0f : square[row * SQUARE + column]);
                float weight = exp2f((score - log) * LOG2E);
                bool kept = !scores.drops() || drawn.kept(scores, first, begin, column, row);
                square[row * SQUARE + column] = kept ? weight : -weight;
            }
        }
        __syncwarp();
        accumulate<true>(square, gradients, y, x, sum_value);
        multiply(own_values, gradients, y, x, product);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            float dot = dots[min(first + x + SIDE * j, queries - 1)];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                float& at = square[(y + SIDE * i) * SQUARE + x + SIDE * j];
                at = fabsf(at) * ((at < 0.0f ? 0.0f : product[i][j] * scores.factor) - dot);
            }
        }
        __syncwarp();
        accumulate(square, asking, y, x, sum_key);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int k = begin + y + SIDE * i;
        if (k >= keys) continue;
        long long place = (((long long)b * keys + k) * heads + h) * width;
        put(grad_key + place, width, x, sum_key[i], scale);
        put(grad_value + place, width, x, sum_value[i], factor);
    }
}

// s̄ of a tile, thread by thread, from the tiles of its queries, their gradients, its keys and values, and what is added
// to the scores, which are plain where nothing is.
__device__ __forceinline__ void slopes(const Scores& scores, const Drawn<TILE, TILE>& drawn, const float* asking,
                                       const float* gradients, const float* visited, const float* values,
                                       const float* square, bool plain, const float* logs, const float* dots, int begin,
                                       int first, int y, int x, float (&slope)[ROWS][ROWS]) {
    float p[ROWS][ROWS];
    multiply(asking, visited, y, x, p);
    multiply(gradients, values, y, x, slope);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int row = y + SIDE * i, q = min(begin + row, scores.queries - 1);
        float log = logs[q], dot = dots[q];
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            int column = x + SIDE * j;
            float score = scores.of(p[i][j], plain ? 0.0f : square[row * SQUARE + column]);
            if (scores.drops()) slope[i][j] *= drawn.kept(scores, begin, first, row, column) ? scores.factor : 0.0f;
            slope[i][j] = exp2f((score - log) * LOG2E) * (slope[i][j] - dot);
        }
    }
}

// The gradients of TILE queries, from all keys that they see; laid out as `b t h c`.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention_queries(GIVEN, REAL* grad_query, SCORES_PARAMETERS) {
    extern __shared__ __align__(16) unsigned char shared[];
    float* asking = reinterpret_cast<float*>(shared);
    float* gradients = asking + TILE * PITCH;
    float* visited = gradients + TILE * PITCH;
    float* values = visited + TILE * PITCH;
    float* square = values + TILE * PITCH;
    Drawn<TILE, TILE> drawn{reinterpret_cast<unsigned short*>(square + TILE * SQUARE)};

    int thread = threadIdx.x, y = thread / SIDE, x = thread % SIDE;
    int blocks = (queries + TILE - 1) / TILE, head = blockIdx.x / blocks, b = head / heads, h = head % heads;
    int begin = (blocks - 1 - (int)blockIdx.x % blocks) * TILE;
    Scores scores{SCORES_ARGUMENTS};
    scores.choose(b, h);
    Rows key_rows = KEY_ROWS(b, h), value_rows = VALUE_ROWS(b, h);
    QUERY_ROWS(b, h).load_tile(asking, begin, thread);
    GRADIENT_ROWS(b, h).load_tile(gradients, begin, thread);
    logs += (long long)head * queries, dots += (long long)head * queries;

    float sum[ROWS][CHANNELS];
    clear(sum);
    int stop = scores.horizon(min(begin + TILE, queries) - 1);
    for (int first = 0; first < stop; first += TILE) {
        __syncthreads();
        key_rows.load_tile(visited, first, thread);
        value_rows.load_tile(values, first, thread);
        bool plain = scores.plain(begin, first, TILE, TILE);
        if (!plain) load_added<false>(square, scores, begin, first, thread);
        if (scores.drops()) drawn.draw(scores, begin, first, thread, THREADS);
        __syncthreads();
        float slope[ROWS][ROWS];
        slopes(scores, drawn, asking, gradients, visited, values, square, plain, logs, dots, begin, first, y,
               x, slope);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < ROWS; j++) square[(y + SIDE * i) * SQUARE + x + SIDE * j] = slope[i][j];
        __syncwarp();
        accumulate(square, visited, y, x, sum);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int q = begin + y + SIDE * i;
        if (q < queries) put(grad_query + (((long long)b * queries + q) * heads + h) * width, width, x, sum[i], scale);
    }
}

// s̄ of a tile itself, the gradient of a bias, `n h t s` in float: of each row of the batch, or, where the bias is the
// same in all of them (n = 1), their sum in order.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_bias(GIVEN, float* grad_bias, int batch, int shared_bias, SCORES_PARAMETERS) {
    extern __shared__ __align__(16) unsigned char shared[];
    float* asking = reinterpret_cast<float*>(shared);
    float* gradients = asking + TILE * PITCH;
    float* visited = gradients + TILE * PITCH;
    float* values = visited + TILE * PITCH;
    float* square = values + TILE * PITCH;
    Drawn<TILE, TILE> drawn{reinterpret_cast<unsigned short*>(square + TILE * SQUARE)};

    int thread = threadIdx.x, y = thread / SIDE, x = thread % SIDE;
    int across = (keys + TILE - 1) / TILE, down = (queries + TILE - 1) / TILE;
    int first = (int)blockIdx.x % across * TILE, begin = (int)blockIdx.x / across % down * TILE;
    int head = blockIdx.x / across / down, h = head % heads;
    float total[ROWS][ROWS];
    clear(total);
    bool hidden = first >= Scores{SCORES_ARGUMENTS}.horizon(min(begin + TILE, queries) - 1);
    int b = shared_bias ? 0 : head / heads, stop = hidden ? b : shared_bias ? batch : b + 1;
    for (; b < stop; b++) {
        Scores scores{SCORES_ARGUMENTS};
        scores.choose(b, h);
        __syncthreads();
        QUERY_ROWS(b, h).load_tile(asking, begin, thread);
        GRADIENT_ROWS(b, h).load_tile(gradients, begin, thread);
        KEY_ROWS(b, h).load_tile(visited, first, thread);
        VALUE_ROWS(b, h).load_tile(values, first, thread);
        bool plain = scores.plain(begin, first, TILE, TILE);
        if (!plain) load_added<false>(square, scores, begin, first, thread);
        if (scores.drops()) drawn.draw(scores, begin, first, thread, THREADS);
        __syncthreads();
        float slope[ROWS][ROWS];
        long long place = ((long long)b * heads + h) * queries;
        slopes(scores, drawn, asking, gradients, visited, values, square, plain, logs + place, dots + place, begin,
               first, y, x, slope);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < ROWS; j++) total[i][j] += slope[i][j];
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            int q = begin + y + SIDE * i, k = first + x + SIDE * j;
            if (q < queries && k < keys) grad_bias[((long long)head * queries + q) * keys + k] = total[i][j];
        }
}
