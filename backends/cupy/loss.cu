// Cross-entropy, whose gradient is formed along with it: a block a row, which the second read finds in cache.
//
// Logits are the largest array of a step. One read finds their maximum and the sum of their exponentials; a second
// turns them into their own gradient, in their place if they may be overwritten. That reads and writes each number
// once in memory, and probabilities are never stored.
//
// Read before: softmax.cu, loss.py.

#include "rows.cuh"

// `gradient` may be `logits`. Targets are 64-bit integers, or 32-bit ones; one outside is taken for the nearest inside,
// and reported by another kernel. `weights` is null where all are 1.
extern "C" __global__ void __launch_bounds__(512, 3) cross_entropy_forward(
    const REAL* logits, const void* __restrict__ targets, int bits, const float* __restrict__ weights, REAL* gradient,
    float* __restrict__ nats, int size, float total, float smoothing) {
    __shared__ float scratch[WARP];
    long long row = blockIdx.x;
    long long given = bits == 64 ? ((const long long*)targets)[row] : ((const int*)targets)[row];
    int target = (int)(given < 0 ? 0 : given >= size ? size - 1 : given);
    float weight = (weights ? weights[row] : 1.0f) / total;
    logits += row * size, gradient += row * size;
    float wanted = to_float(logits[target]);  // before anybody overwrites it
    bool whole = beyond(logits) == beyond(gradient);
    int first = threadIdx.x * PACK - (whole ? beyond(logits) : 0), step = blockDim.x * PACK;

    Exponentials exps;
    float sum = 0.0f;
    for (int column = first; column < size; column += step) {
        Floats x = fetch(logits, column, size, whole, -infinity());
        exps.add(x);
        if (smoothing != 0.0f) {
#pragma unroll
            for (int i = 0; i < PACK; ++i)
                if (column + i >= 0 && column + i < size) sum += x.at[i];
        }
    }
    exps.join(scratch);
    float log_wanted = wanted - exps.largest, spread = 0.0f;
    if (smoothing != 0.0f) {
        float log_all = row_sum(sum, scratch) / size - exps.largest;
        log_wanted = log_wanted * (1.0f - smoothing) + log_all * smoothing;
        spread = weight * smoothing / size;
    }
    if (threadIdx.x == 0) nats[row] = weight * (logf(exps.sum) - log_wanted);

    float scale = weight / exps.sum, hit = weight * (1.0f - smoothing);
    __syncthreads();  // every thread of the row has read what is wanted
    for (int column = first; column < size; column += step) {
        Floats x = fetch(logits, column, size, whole, -infinity());
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            float p = __expf(x.at[i] - exps.largest) * scale - spread;
            x.at[i] = column + i == target ? p - hit : p;
        }
        put(gradient, column, size, whole, x);
    }
}

// The sum over rows, by one block, in a fixed order.
extern "C" __global__ void __launch_bounds__(1024) cross_entropy_sum(
    const float* __restrict__ nats, float* __restrict__ out, int rows) {
    __shared__ float scratch[WARP];
    float sum = 0.0f;
#pragma unroll 8
    for (int row = threadIdx.x; row < rows; row += blockDim.x) sum += nats[row];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *out = sum;
}

// The gradient that comes in is nearly always 1: then nothing is left to do, which only the device knows.
extern "C" __global__ void __launch_bounds__(256) cross_entropy_scale(
    REAL* __restrict__ gradient, const float* __restrict__ factor, long long count) {
    float scale = *factor;
    if (scale == 1.0f) return;
    bool whole = aligned(gradient);
    long long step = (long long)gridDim.x * blockDim.x * PACK;
    long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * PACK;
    for (; at < count; at += step) {
        int left = count - at < PACK ? (int)(count - at) : PACK;
        Floats g = fetch(gradient + at, 0, left, whole);
#pragma unroll
        for (int i = 0; i < PACK; ++i) g.at[i] *= scale;
        put(gradient + at, 0, left, whole, g);
    }
}
