// Layer norm and RMS norm, forward and backward: a row in registers between its sums, and sums over rows in two stages.
//
// A row's mean and deviation need all of it, and its result needs those: a thread keeps its share of the row, at most
// 32 numbers, and memory is read once. The gradients of weight and bias are sums over all rows: each block adds up
// the rows that it meets, in registers, and a second kernel adds up the blocks, both in a fixed order.
//
// Read before: rows.cuh, norms.py. Read next: softmax.cu.

#include "rows.cuh"

#ifndef ITEMS
#define ITEMS (32 / PACK)  // packs of a row that a thread has, as few as do
#endif

// RMS norm is layer norm with 0 as mean and bias; it has none, which is a null pointer.
//
// The mean is found relative to the row's first number: then equal numbers have exactly their mean.
extern "C" __global__ void __launch_bounds__(512, 1) norm_forward(
    const REAL* __restrict__ x, const REAL* __restrict__ residual, const REAL* __restrict__ weight,
    const REAL* __restrict__ bias, REAL* __restrict__ out, float* __restrict__ mean, float* __restrict__ reciprocal,
    int rows, int width, float epsilon) {
    __shared__ float scratch[WARP];
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp, in a block that does not wait
    bool whole = width % PACK == 0 && aligned(x) && aligned(residual) && aligned(weight) && aligned(bias);
    x += row * width, out += row * width;
    if (residual) residual += row * width;

    Floats kept[ITEMS];
    float first = 0.0f, sum = 0.0f, squares = 0.0f;
    if (mean) first = to_float(x[0]) + (residual ? to_float(residual[0]) : 0.0f);
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * PACK;
        kept[k] = fetch(x, column, width, whole, first);
        if (residual) {
            Floats more = fetch(residual, column, width, whole);
#pragma unroll
            for (int i = 0; i < PACK; ++i) kept[k].at[i] += more.at[i];
        }
#pragma unroll
        for (int i = 0; i < PACK; ++i) sum += kept[k].at[i] - first;
    }
    float centre = mean ? first + row_sum(sum, scratch) / width : 0.0f;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * PACK;
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            float away = kept[k].at[i] - centre;
            squares += column + i < width ? away * away : 0.0f;
        }
    }
    float scale = 1.0f / sqrtf(row_sum(squares, scratch) / width + epsilon);
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * PACK;
        Floats w = fetch(weight, column, width, whole);
#pragma unroll
        for (int i = 0; i < PACK; ++i) kept[k].at[i] = (kept[k].at[i] - centre) * scale * w.at[i];
        if (bias) {
            Floats b = fetch(bias, column, width, whole);
#pragma unroll
            for (int i = 0; i < PACK; ++i) kept[k].at[i] += b.at[i];
        }
        put(out, column, width, whole, kept[k]);
    }
    if (threadIdx.x == 0) {
        if (mean) mean[row] = centre;
        reciprocal[row] = scale;
    }
}

// With n the normalised row and ĝ = ḡ weight: x̄ = (ĝ - mean(ĝ) - n mean(ĝ n)) / deviation, w̄ = Σ ḡ n, b̄ = Σ ḡ.
//
// A row is read for its two means, and again for x̄, when it is still in cache: registers are for the sums over rows.
// `partial` is `blocks 2 width`: the sums of each block for weight and bias. Dynamic shared memory is for
// `blockDim.y width` floats where that is more than one row.
extern "C" __global__ void __launch_bounds__(512) norm_backward(
    const REAL* __restrict__ gradient, const REAL* __restrict__ x, const REAL* __restrict__ residual,
    const REAL* __restrict__ weight, const float* __restrict__ mean, const float* __restrict__ reciprocal,
    REAL* __restrict__ out, float* __restrict__ partial, int rows, int width) {
    __shared__ float scratch[WARP];
    extern __shared__ unsigned char shared[];
    bool whole = width % PACK == 0 && aligned(gradient) && aligned(x) && aligned(residual) && aligned(weight);
    Floats sums[2][ITEMS] = {};

    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    for (; row < rows; row += (long long)gridDim.x * blockDim.y) {
        const REAL *g_row = gradient + row * width, *x_row = x + row * width;
        const REAL* more_row = residual ? residual + row * width : nullptr;
        float centre = mean ? mean[row] : 0.0f, scale = reciprocal[row];

        auto normal = [&](int column) {
            Floats n = fetch(x_row, column, width, whole);
            if (more_row) {
                Floats more = fetch(more_row, column, width, whole);
#pragma unroll
                for (int i = 0; i < PACK; ++i) n.at[i] += more.at[i];
            }
#pragma unroll
            for (int i = 0; i < PACK; ++i) n.at[i] = (n.at[i] - centre) * scale;
            return n;
        };

        float mean_slope = 0.0f, mean_product = 0.0f;
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) {
            int column = (k * blockDim.x + threadIdx.x) * PACK;
            Floats g = fetch(g_row, column, width, whole), n = normal(column), w = fetch(weight, column, width, whole);
#pragma unroll
            for (int i = 0; i < PACK; ++i) {
                float slope = g.at[i] * w.at[i];  // 0 beyond the row
                mean_slope += slope;
                mean_product += slope * n.at[i];
                sums[0][k].at[i] += g.at[i] * n.at[i];
                sums[1][k].at[i] += g.at[i];
            }
        }
        mean_slope = mean ? row_sum(mean_slope, scratch) / width : 0.0f;
        mean_product = row_sum(mean_product, scratch) / width;
#pragma unroll 1  // loads that are begun earlier would want registers that the sums have
        for (int k = 0; k < ITEMS; ++k) {
            int column = (k * blockDim.x + threadIdx.x) * PACK;
            Floats g = fetch(g_row, column, width, whole), n = normal(column), w = fetch(weight, column, width, whole);
#pragma unroll
            for (int i = 0; i < PACK; ++i)
                n.at[i] = scale * (g.at[i] * w.at[i] - mean_slope - n.at[i] * mean_product);
            put(out + row * width, column, width, whole, n);
        }
    }

    bool alone = blockDim.y == 1;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
        float* total = partial + (blockIdx.x * 2LL + which) * width;
        float* own = alone ? total : (float*)shared + threadIdx.y * width;
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) {
            int column = (k * blockDim.x + threadIdx.x) * PACK;
#pragma unroll
            for (int i = 0; i < PACK; ++i)
                if (column + i < width) own[column + i] = sums[which][k].at[i];
        }
        if (alone) continue;
        __syncthreads();
        for (int column = threadIdx.y * blockDim.x + threadIdx.x; column < width; column += blockDim.x * blockDim.y) {
            float sum = 0.0f;
            for (int y = 0; y < blockDim.y; ++y) sum += ((float*)shared)[y * width + column];
            total[column] = sum;
        }
        __syncthreads();
    }
}

// The second stage, for 32 columns a block of 32 x 32 threads: `blockIdx.y` is 0 for the weight and 1 for the bias.
extern "C" __global__ void __launch_bounds__(1024) norm_sums(
    const float* __restrict__ partial, REAL* __restrict__ weight, REAL* __restrict__ bias, int blocks, int width) {
    __shared__ float tile[WARP][WARP + 1];
    int column = blockIdx.x * WARP + threadIdx.x;
    float sum = 0.0f;
    if (column < width)
        for (int block = threadIdx.y; block < blocks; block += WARP)
            sum += partial[(block * 2LL + blockIdx.y) * width + column];
    tile[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = warp_sum(tile[threadIdx.x][threadIdx.y]);
    column = blockIdx.x * WARP + threadIdx.y;
    if (threadIdx.x == 0 && column < width) (blockIdx.y ? bias : weight)[column] = from_float<REAL>(sum);
}
