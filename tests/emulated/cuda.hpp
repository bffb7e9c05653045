// The part of CUDA's language that our kernels use, as C++ for the CPU: tests run kernels where there is no GPU.
//
// The threads of a block are fibers, which run one at a time, each until it waits for others: at a barrier of the
// block, or at an operation of its warp. The order in which they take turns can be chosen, so that a missing barrier
// shows as results that differ. Shared memory starts as NaN. What a GPU would leave undefined, or would hang on, stops
// the kernel with a message: lanes that do not meet, a barrier that a thread never reaches, an address that is no one's.
//
// `__CUDA_ARCH__` is not defined: kernels give the meaning of an instruction in C++ beside it. One that a whole warp
// executes together is best written with `emulated::together` (runtime.hpp).
//
// Read before: compiler.py, which includes this and appends a launcher for each kernel. Read next: runtime.hpp.

#pragma once

#include <cmath>
#include "runtime.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __constant__ static
#define __grid_constant__
#define __shared__ static __attribute__((section("emulated_shared")))

constexpr int warpSize = 32;

#undef assert
#define assert(condition) \
    ((condition) ? (void)0 : emulated::fail("assertion failed at line %d: %s", __LINE__, #condition))
static inline void __trap() { emulated::fail("__trap()"); }

// Barriers, and fences, which mean nothing where one thread runs at a time.

#define EMULATED_BARRIER(NAME, PREDICATE) emulated::barrier(NAME, 0, emulated::threads, PREDICATE)
static inline void __syncthreads() { EMULATED_BARRIER("__syncthreads", 0); }
static inline int __syncthreads_and(int x) { return EMULATED_BARRIER("__syncthreads_and", x).all; }
static inline int __syncthreads_or(int x) { return EMULATED_BARRIER("__syncthreads_or", x).any; }
static inline int __syncthreads_count(int x) { return EMULATED_BARRIER("__syncthreads_count", x).count; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

// Operations of a warp.

static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    int nothing = 0;
    emulated::together("__syncwarp", mask, nothing, [](int**) { emulated::order_warp(); });
}

static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    struct Lane {
        int predicate;
        unsigned ballot;
    } mine = {predicate, 0};
    emulated::together("__ballot_sync", mask, mine, [](Lane** lanes) EMULATED_UNCHECKED {
        unsigned ballot = 0;
        for (int i = 0; i < 32; i++) ballot |= (lanes[i] && lanes[i]->predicate) ? 1u << i : 0u;
        for (int i = 0; i < 32; i++)
            if (lanes[i]) lanes[i]->ballot = ballot;
    });
    return mine.ballot;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

namespace emulated {
template <typename T> EMULATED_UNCHECKED T shuffle(const char* what, unsigned mask, T value, int source) {
    struct Lane {
        T value, taken;
        int source;
    } mine = {value, value, source};
    together(what, mask, mine, [what, mask](Lane** lanes) EMULATED_UNCHECKED {
        for (int i = 0; i < 32; i++) {
            if (!lanes[i]) continue;
            int source = lanes[i]->source;
            if (!lanes[source]) fail("%s: lane %d reads lane %d, which is not in mask %#x", what, i, source, mask);
            lanes[i]->taken = lanes[source]->value;
        }
    });
    return mine.taken;
}
}  // namespace emulated

template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int first = emulated::lane() & ~(width - 1);
    return emulated::shuffle("__shfl_sync", mask, value, first | (source & (width - 1)));
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = emulated::lane(), source = lane - (int)delta, first = lane & ~(width - 1);
    return emulated::shuffle("__shfl_up_sync", mask, value, source < first ? lane : source);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = emulated::lane(), source = lane + (int)delta, end = (lane & ~(width - 1)) + width;
    return emulated::shuffle("__shfl_down_sync", mask, value, source >= end ? lane : source);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int lane = emulated::lane(), source = lane ^ bits, end = (lane & ~(width - 1)) + width;
    return emulated::shuffle("__shfl_xor_sync", mask, value, source >= end ? lane : source);
}

// Atomics: one thread runs at a time. They race with nobody.

namespace emulated {
template <typename T> struct Same {
    typedef T type;
};
template <typename T> EMULATED_UNCHECKED T exchange(T* address, T value) {
    T before = *address;
    *address = value;
    return before;
}
}  // namespace emulated
#define EMULATED_ATOMIC(NAME, RESULT)                                                                     \
    template <typename T> EMULATED_UNCHECKED T NAME(T* address, typename emulated::Same<T>::type value) { \
        T before = *address;                                                                              \
        return emulated::exchange(address, (T)(RESULT));                                                  \
    }
EMULATED_ATOMIC(atomicAdd, before + value)
EMULATED_ATOMIC(atomicSub, before - value)
EMULATED_ATOMIC(atomicExch, value)
EMULATED_ATOMIC(atomicMax, before > value ? before : value)
EMULATED_ATOMIC(atomicMin, before < value ? before : value)
EMULATED_ATOMIC(atomicAnd, before & value)
EMULATED_ATOMIC(atomicOr, before | value)
template <typename T>
EMULATED_UNCHECKED T atomicCAS(T* address, typename emulated::Same<T>::type compare, typename emulated::Same<T>::type value) {
    return emulated::exchange(address, *address == compare ? value : *address);
}

// Bits and integers.

template <typename To, typename From> static inline To emulated_cast(From x) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline unsigned __float_as_uint(float x) { return emulated_cast<unsigned>(x); }
static inline int __float_as_int(float x) { return emulated_cast<int>(x); }
static inline float __uint_as_float(unsigned x) { return emulated_cast<float>(x); }
static inline float __int_as_float(int x) { return emulated_cast<float>(x); }
static inline long long __double_as_longlong(double x) { return emulated_cast<long long>(x); }
static inline double __longlong_as_double(long long x) { return emulated_cast<double>(x); }

static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)(((unsigned long long)x * y) >> 32); }
static inline int __mulhi(int x, int y) { return (int)(((long long)x * y) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)(((unsigned __int128)x * y) >> 64);
}
static inline long long __mul64hi(long long x, long long y) { return (long long)(((__int128)x * y) >> 64); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned long long __brevll(unsigned long long x) {
    unsigned long long y = 0;
    for (int i = 0; i < 64; i++) y |= (x >> i & 1) << (63 - i);
    return y;
}
static inline unsigned __brev(unsigned x) { return (unsigned)(__brevll(x) >> 32); }
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)((((unsigned long long)high << 32 | low) << (shift & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned nibble = selector >> (4 * i) & 15, byte = (unsigned)(both >> (8 * (nibble & 7))) & 255;
        if (nibble & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << (8 * i);
    }
    return result;
}

// The compiler does not tell of what the C library reads and writes.
extern "C" void __tsan_read_range(void* address, size_t bytes);
extern "C" void __tsan_write_range(void* address, size_t bytes);
static inline void* emulated_memcpy(void* to, const void* from, size_t bytes) {
    __tsan_read_range((void*)from, bytes), __tsan_write_range(to, bytes);
    return memcpy(to, from, bytes);
}
static inline void* emulated_memset(void* to, int byte, size_t bytes) {
    __tsan_write_range(to, bytes);
    return memset(to, byte, bytes);
}
#define memcpy emulated_memcpy
#define memset emulated_memset

// Mathematics. The fast functions are exact here: a test that needs their error must run on a GPU.

using std::isfinite;
using std::isinf;
using std::isnan;
#define __expf expf  // the C library has functions of these names
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline unsigned __float2uint_rn(float x) { return (unsigned)nearbyintf(x); }
static inline unsigned __float2uint_rz(float x) { return (unsigned)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }

#define EMULATED_MINMAX(T)                                          \
    static inline T min(T x, T y) { return y < x ? y : x; }         \
    static inline T max(T x, T y) { return x < y ? y : x; }
EMULATED_MINMAX(int)
EMULATED_MINMAX(unsigned)
EMULATED_MINMAX(long)
EMULATED_MINMAX(unsigned long)
EMULATED_MINMAX(long long)
EMULATED_MINMAX(unsigned long long)
static inline float min(float x, float y) { return fminf(x, y); }
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }

// Loads and stores with hints to the caches.

template <typename T> T __ldg(const T* address) { return *address; }
template <typename T> T __ldca(const T* address) { return *address; }
template <typename T> T __ldcg(const T* address) { return *address; }
template <typename T> T __ldcs(const T* address) { return *address; }
template <typename T> T __ldcv(const T* address) { return *address; }
template <typename T> void __stcg(T* address, T value) { *address = value; }
template <typename T> void __stcs(T* address, T value) { *address = value; }
template <typename T> void __stwb(T* address, T value) { *address = value; }
template <typename T> void __stwt(T* address, T value) { *address = value; }

// Vectors.

#define EMULATED_VECTOR2(NAME, T)                                                                              \
    struct alignas(2 * sizeof(T)) NAME##2 {                                                                    \
        T x, y;                                                                                                \
    };                                                                                                         \
    static inline NAME##2 make_##NAME##2(T x, T y) { return NAME##2{x, y}; }
#define EMULATED_VECTOR4(NAME, T)                                                                              \
    EMULATED_VECTOR2(NAME, T)                                                                                  \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) NAME##4 {                                          \
        T x, y, z, w;                                                                                          \
    };                                                                                                         \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return NAME##4{x, y, z, w}; }
EMULATED_VECTOR4(char, signed char)
EMULATED_VECTOR4(uchar, unsigned char)
EMULATED_VECTOR4(short, short)
EMULATED_VECTOR4(ushort, unsigned short)
EMULATED_VECTOR4(int, int)
EMULATED_VECTOR4(uint, unsigned)
EMULATED_VECTOR4(float, float)
EMULATED_VECTOR2(longlong, long long)
EMULATED_VECTOR2(ulonglong, unsigned long long)
EMULATED_VECTOR2(double, double)
struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};
static inline float3 make_float3(float x, float y, float z) { return float3{x, y, z}; }
static inline int3 make_int3(int x, int y, int z) { return int3{x, y, z}; }
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }
