// Σ ḡ out of each query: what the gradient of its softmax takes off the gradient of each of its weights.
//
// Read before: attention.cu. Read next: attention_backward.cu.

#include "common.cuh"

// One warp for each of `count` queries; out is laid out as `b t h c`, dots as `b h t`.
extern "C" __global__ void attention_dots(const REAL* gradient, long long gradient_b, long long gradient_h,
                                          long long gradient_t, const REAL* out, float* dots, int heads, int queries,
                                          int width, long long count) {
    long long row = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= count) return;  // all lanes of the warp
    int q = (int)(row % queries), h = (int)(row / queries % heads);
    long long b = row / queries / heads;
    gradient += b * gradient_b + h * gradient_h + q * gradient_t;
    out += ((b * queries + q) * heads + h) * width;
    float sum = 0.0f;
    for (int c = lane; c < width; c += WARP) sum += to_float(gradient[c]) * to_float(out[c]);
    sum = warp_sum(sum);
    if (lane == 0) dots[row] = sum;
}
