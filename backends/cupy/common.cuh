// What all kernels share: bfloat16, 128-bit loads and stores, and sums over a warp or a block in a fixed order.
//
// Kernels store numbers as REAL (float or bfloat16) and compute in float. Every sum is added up in an order that does
// not depend on timing, so that a step gives the same bits every time.
//
// Read before: launch.py. Read next: norms.cu.

#pragma once

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;  // the lanes of a warp

// NVRTC has no header for it.
__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// The upper half of a float: 8 bits of exponent, 7 of mantissa.
struct bfloat16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bfloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
// Rounds to nearest, ties to even; a NaN stays one.
template <> __device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) {
#ifdef __CUDA_ARCH__
    bfloat16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(x));
    return rounded;
#else
    unsigned bits = __float_as_uint(x);
    unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return bfloat16{(unsigned short)(nan ? (bits >> 16) | 0x40u : rounded)};
#endif
}

// As many numbers as 128 bits hold: 4 float or 8 bfloat16. The address must be a multiple of 16 bytes.
template <typename T> struct alignas(16) Pack {
    static constexpr int size = 16 / sizeof(T);
    T at[size];
};

template <typename T> __device__ __forceinline__ Pack<T> load(const T* address) {
    Pack<T> pack;
    *reinterpret_cast<uint4*>(&pack) = *reinterpret_cast<const uint4*>(address);
    return pack;
}

template <typename T> __device__ __forceinline__ void store(T* address, const Pack<T>& pack) {
    *reinterpret_cast<uint4*>(address) = *reinterpret_cast<const uint4*>(&pack);
}

__device__ __forceinline__ bool aligned(const void* address) { return ((unsigned long long)address & 15u) == 0; }


// Every lane gets the sum (or maximum) over its warp.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = WARP / 2; offset; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = WARP / 2; offset; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, offset));
    return x;
}

// Every thread gets the sum (or maximum) over its block, which is one-dimensional and of whole warps. `scratch` is
// shared memory for 32 floats, free for other use after the next __syncthreads().
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

__device__ __forceinline__ float block_max(float x, float* scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? scratch[lane] : -infinity());
}
