// Rotary positions: channel i and channel i + c/2 of a head are turned by the angle of their position.
//
// The input is read where it lies, as one of several outputs of a linear map may, and the result is laid out as the
// next product wants it: `b t h c`. The gradient turns the other way.
//
// Read before: common.cuh. Read next: attention.cu.

#include "common.cuh"

// versions: FLOAT_ANGLES=0 FLOAT_ANGLES=1
#if FLOAT_ANGLES
using Angle = float;
#else
using Angle = REAL;
#endif

// A thread turns STEP pairs, whose left and right channels it loads as 128 bits each, or a single pair.
// Reads and writes a number for each channel, and reads the angles from cache.
template <int STEP> __device__ __forceinline__ void turn(
    const REAL* x, REAL* out, const Angle* cosines, const Angle* sines, int half, float sign
) {
    Pack<REAL> left, right;
    if constexpr (STEP == 1) {
        left.at[0] = x[0];
        right.at[0] = x[half];
    } else {
        left = load(x);
        right = load(x + half);
    }
#pragma unroll
    for (int i = 0; i < STEP; ++i) {
        float a = to_float(left.at[i]), b = to_float(right.at[i]);
        float c = to_float(cosines[i]), s = sign * to_float(sines[i]);
        left.at[i] = from_float<REAL>(a * c - b * s);
        right.at[i] = from_float<REAL>(a * s + b * c);
    }
    if constexpr (STEP == 1) {
        out[0] = left.at[0];
        out[half] = right.at[0];
    } else {
        store(out, left);
        store(out + half, right);
    }
}

extern "C" __global__ void rotary(
    const REAL* x,                               // b h t c
    REAL* out,                                   // b t h c
    const Angle* cosines, const Angle* sines,  // t c/2
    int heads, int positions, int half, unsigned pieces,
    long long row_stride, long long head_stride, long long position_stride,  // of x, in elements
    int packed,                                                               // whether rows and halves are whole packs
    float sign                                                                // 1 forward, -1 for the gradient
) {
    unsigned piece = blockIdx.x * blockDim.x + threadIdx.x;
    if (piece >= pieces) return;
    unsigned step = packed ? Pack<REAL>::size : 1, steps = half / step;
    unsigned channel = piece % steps * step, place = piece / steps;
    unsigned head = place % heads, at = place / heads;
    unsigned position = at % positions, row = at / positions;
    x += row * row_stride + head * head_stride + position * position_stride + channel;
    out += (long long)place * (2 * half) + channel;
    long long angle = (long long)position * half + channel;
    if (packed)
        turn<Pack<REAL>::size>(x, out, cosines + angle, sines + angle, half, sign);
    else
        turn<1>(x, out, cosines + angle, sines + angle, half, sign);
}
