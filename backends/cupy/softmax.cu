// The softmax by itself: the largest number and the sum of exponentials in one read, the result in a second from cache.
//
// Read before: rows.cuh, softmax.py. Read next: loss.cu, where the gradient is formed along with it.

#include "rows.cuh"

// The mask is that of an array `n0 n1 n2 size`, whose first three axes make the rows, with strides of its own; null
// for none. Rows may begin anywhere: threads read from the last multiple of 16 bytes before it.
extern "C" __global__ void __launch_bounds__(512) softmax_forward(
    const REAL* __restrict__ x, const bool* __restrict__ mask, REAL* __restrict__ out, long long rows, int size, int n1,
    int n2, long long stride0, long long stride1, long long stride2, long long stride3) {
    __shared__ float scratch[WARP];
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp, in a block that does not wait
    if (mask) mask += row / n2 / n1 * stride0 + row / n2 % n1 * stride1 + row % n2 * stride2;
    x += row * size, out += row * size;
    bool whole = beyond(x) == beyond(out);
    int first = threadIdx.x * PACK - (whole ? beyond(x) : 0), step = blockDim.x * PACK;

    auto seen = [&](int column) {
        Floats numbers = fetch(x, column, size, whole, -infinity());
        if (mask) {
#pragma unroll
            for (int i = 0; i < PACK; ++i) {
                bool inside = column + i >= 0 && column + i < size;
                if (inside && !mask[(column + i) * stride3]) numbers.at[i] = -infinity();
            }
        }
        return numbers;
    };

    Exponentials total;
    for (int column = first; column < size; column += step) total.add(seen(column));
    total.join(scratch);
    float scale = total.sum == 0.0f ? 0.0f : 1.0f / total.sum;  // zeros where nothing is seen
    for (int column = first; column < size; column += step) {
        Floats y = seen(column);
#pragma unroll
        for (int i = 0; i < PACK; ++i) y.at[i] = __expf(y.at[i] - total.largest) * scale;
        put(out, column, size, whole, y);
    }
}

// x̄ = y (ḡ - Σ ḡ y).
extern "C" __global__ void __launch_bounds__(512) softmax_backward(
    const REAL* __restrict__ y, const REAL* __restrict__ gradient, REAL* __restrict__ out, long long rows, int size) {
    __shared__ float scratch[WARP];
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    y += row * size, gradient += row * size, out += row * size;
    bool whole = beyond(y) == beyond(out) && beyond(gradient) == beyond(out);
    int first = threadIdx.x * PACK - (whole ? beyond(y) : 0), step = blockDim.x * PACK;

    float sum = 0.0f;
    for (int column = first; column < size; column += step) {
        Floats p = fetch(y, column, size, whole), g = fetch(gradient, column, size, whole);
#pragma unroll
        for (int i = 0; i < PACK; ++i) sum += p.at[i] * g.at[i];
    }
    sum = row_sum(sum, scratch);
    for (int column = first; column < size; column += step) {
        Floats p = fetch(y, column, size, whole), g = fetch(gradient, column, size, whole);
#pragma unroll
        for (int i = 0; i < PACK; ++i) p.at[i] *= g.at[i] - sum;
        put(out, column, size, whole, p);
    }
}
