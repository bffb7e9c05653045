// Functions of one number, and gates: an activation times another map of the same input.
//
// Nothing is kept but the inputs: the gradient computes the activation again, for arithmetic is free beside memory.
//
// Read before: common.cuh. Read next: norms.cu.

#include "common.cuh"

// versions: ACTIVATION=0 ACTIVATION=1 ACTIVATION=2 ACTIVATION=3
#ifndef ACTIVATION
#define ACTIVATION 0  // which one, as activations.py counts them
#endif

constexpr int GELU = 0, EXACT_GELU = 1, RELU = 2;  // and silu

struct Activated {
    float value, slope;
};

// 1 / (1 + exp(-x)); where exp overflows the quotient is 0.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

// Beyond 12 a gelu is 0 or the identity to the last digit, while its slope's terms would overflow. NaN stays.
__device__ __forceinline__ float bounded(float x) { return x > 12.0f ? 12.0f : x < -12.0f ? -12.0f : x; }

__device__ __forceinline__ Activated activate(float x) {
    if constexpr (ACTIVATION == GELU) {
        // y = x P with P = (1 + tanh u)/2 = sigmoid(2u), u = r (x + a x^3); y' = P + y (1 - P) 2u'.
        constexpr float r2 = 1.5957691216057308f, a = 0.044715f;  // 2 sqrt(2/pi)
        float z = bounded(x), square = z * z, p = sigmoid(r2 * z * (1.0f + a * square));
        return {x * p, p + z * p * (1.0f - p) * r2 * (1.0f + 3.0f * a * square)};
    } else if constexpr (ACTIVATION == EXACT_GELU) {
        // y = x P(x), y' = P(x) + x exp(-x^2/2) / sqrt(2 pi), with P the normal distribution function.
        float z = bounded(x), p = 0.5f + 0.5f * erff(z * 0.7071067811865476f);
        return {x * p, p + z * expf(-0.5f * z * z) * 0.3989422804014327f};
    } else if constexpr (ACTIVATION == RELU) {
        return x <= 0.0f ? Activated{0.0f, 0.0f} : Activated{x, 1.0f};  // NaN is not <= 0, and stays one
    } else {
        // y = x s with s = sigmoid(x); y' = s + y (1 - s).
        float s = sigmoid(x);
        return {x * s, s + x * s * (1.0f - s)};
    }
}

// 16 bytes of an array from element i on; what lies beyond the end is 0, and not written.
__device__ __forceinline__ Pack<REAL> fetch(const REAL* x, long long i, long long n, bool whole) {
    if (whole) return load(x + i);
    Pack<REAL> pack;
    for (int j = 0; j < pack.size; ++j) pack.at[j] = i + j < n ? x[i + j] : from_float<REAL>(0.0f);
    return pack;
}

__device__ __forceinline__ void put(REAL* x, long long i, long long n, bool whole, const Pack<REAL>& pack) {
    if (whole) return store(x + i, pack);
    for (int j = 0; j < pack.size && i + j < n; ++j) x[i + j] = pack.at[j];
}

__device__ __forceinline__ long long place() {
    return Pack<REAL>::size * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
}

// Reads a number and writes one.
extern "C" __global__ void activation_forward(const REAL* x, REAL* out, long long n) {
    long long i = place();
    bool whole = i + Pack<REAL>::size <= n && aligned(x) && aligned(out);
    Pack<REAL> pack = fetch(x, i, n, whole);
#pragma unroll
    for (int j = 0; j < pack.size; ++j) pack.at[j] = from_float<REAL>(activate(to_float(pack.at[j])).value);
    put(out, i, n, whole, pack);
}

// Reads two numbers and writes one.
extern "C" __global__ void activation_backward(const REAL* x, const REAL* gradient, REAL* out, long long n) {
    long long i = place();
    bool whole = i + Pack<REAL>::size <= n && aligned(x) && aligned(gradient) && aligned(out);
    Pack<REAL> pack = fetch(x, i, n, whole), g = fetch(gradient, i, n, whole);
#pragma unroll
    for (int j = 0; j < pack.size; ++j) {
        float slope = activate(to_float(pack.at[j])).slope;
        if (ACTIVATION == RELU)  // no gradient passes, not even one that is no number
            pack.at[j] = slope == 0.0f ? from_float<REAL>(0.0f) : g.at[j];
        else
            pack.at[j] = from_float<REAL>(slope * to_float(g.at[j]));
    }
    put(out, i, n, whole, pack);
}

// Reads two numbers and writes one.
extern "C" __global__ void gated_forward(const REAL* gate, const REAL* up, REAL* out, long long n) {
    long long i = place();
    bool whole = i + Pack<REAL>::size <= n && aligned(gate) && aligned(up) && aligned(out);
    Pack<REAL> pack = fetch(gate, i, n, whole), other = fetch(up, i, n, whole);
#pragma unroll
    for (int j = 0; j < pack.size; ++j)
        pack.at[j] = from_float<REAL>(activate(to_float(pack.at[j])).value * to_float(other.at[j]));
    put(out, i, n, whole, pack);
}

// Reads three numbers and writes two.
extern "C" __global__ void gated_backward(
    const REAL* gate, const REAL* up, const REAL* gradient, REAL* gate_gradient, REAL* up_gradient, long long n
) {
    long long i = place();
    bool whole = i + Pack<REAL>::size <= n && aligned(gate) && aligned(up) && aligned(gradient) &&
                 aligned(gate_gradient) && aligned(up_gradient);
    Pack<REAL> a = fetch(gate, i, n, whole), b = fetch(up, i, n, whole), g = fetch(gradient, i, n, whole);
#pragma unroll
    for (int j = 0; j < a.size; ++j) {
        Activated y = activate(to_float(a.at[j]));
        float slope = y.slope * to_float(b.at[j]) * to_float(g.at[j]);
        a.at[j] = from_float<REAL>(ACTIVATION == RELU && y.slope == 0.0f ? 0.0f : slope);
        b.at[j] = from_float<REAL>(y.value * to_float(g.at[j]));
    }
    put(gate_gradient, i, n, whole, a);
    put(up_gradient, i, n, whole, b);
}
