// Sums of the columns of a matrix, the gradient of a bias: where the product that gives the weight's gradient cannot
// form them on its way.
//
// A column is cut into parts, which blocks of their own add up, and a second kernel adds the parts. Where a column is
// cut depends on the matrix's shape alone, so the same numbers always give the same sums.
//
// Read before: linear.py.

#include "common.cuh"

constexpr int LINES = 8;  // rows that a block reads at a time, one to each of its warps

// x: `rows columns`, contiguous. partial: `parts columns`, with a block for each part (y) and 32 packs of columns (x).
// Thread (x, y) of a block adds up line y of every 8 of its part, for one pack of columns.
extern "C" __global__ void __launch_bounds__(WARP * LINES)
column_sums(const REAL* __restrict__ x, float* __restrict__ partial, long long rows, long long columns) {
    constexpr int SIZE = Pack<REAL>::size;
    __shared__ float scratch[LINES][WARP * SIZE];
    long long first = (blockIdx.x * (long long)WARP + threadIdx.x) * SIZE;
    long long part = (rows + gridDim.y - 1) / gridDim.y;
    long long start = blockIdx.y * part, end = start + part < rows ? start + part : rows;
    bool packed = columns % SIZE == 0 && aligned(x);

    float sums[SIZE] = {};
    for (long long row = start + threadIdx.y; row < end; row += LINES) {
        const REAL* line = x + row * columns;
        if (packed && first < columns) {
            Pack<REAL> pack = load(line + first);
#pragma unroll
            for (int i = 0; i < SIZE; i++) sums[i] += to_float(pack.at[i]);
        } else {
#pragma unroll
            for (int i = 0; i < SIZE; i++)
                if (first + i < columns) sums[i] += to_float(line[first + i]);
        }
    }
#pragma unroll
    for (int i = 0; i < SIZE; i++) scratch[threadIdx.y][threadIdx.x * SIZE + i] = sums[i];
    __syncthreads();
    for (int i = threadIdx.y * WARP + threadIdx.x; i < WARP * SIZE; i += WARP * LINES) {
        long long column = blockIdx.x * (long long)(WARP * SIZE) + i;
        float sum = 0.0f;
#pragma unroll
        for (int line = 0; line < LINES; line++) sum += scratch[line][i];
        if (column < columns) partial[blockIdx.y * columns + column] = sum;
    }
}

// out: `columns`, a thread for each.
extern "C" __global__ void __launch_bounds__(256)
add_parts(const float* __restrict__ partial, REAL* __restrict__ out, int parts, long long columns) {
    long long column = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float sum = 0.0f;
    for (int part = 0; part < parts; part++) sum += partial[part * columns + column];
    out[column] = from_float<REAL>(sum);
}
