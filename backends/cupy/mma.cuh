// The instructions of tensor cores, and of copies that go on while a kernel computes, each as a function.
//
// Beside the PTX stands what it means in C++, which tests run on the CPU. Layouts are those of the PTX ISA manual,
// under "Matrix Fragments for mma.m16n8k16" and "for mma.m16n8k8". A warp multiplies together: each of its 32 lanes
// holds a few numbers of each matrix, those which belong to its group (lane / 4) and to its place in the group (lane %
// 4):
//
//   A, 16 rows of 32 bytes:  x[0]: row group,      word place        x[2]: row group,      word place + 4
//                            x[1]: row group + 8,  word place        x[3]: row group + 8,  word place + 4
//   B, 8 columns of 32 bytes: x[0]: column group, word place;  x[1]: column group, word place + 4
//   C, 16 rows of 8 floats: c[0], c[1]: row group, columns 2 place and 2 place + 1;  c[2], c[3]: of row group + 8
//
// A word is 4 bytes, along the axis that is summed over: two bfloat16, the first in the lower half, or a TF32 number,
// which is a float32 that has only the upper 10 bits of its mantissa. So a product is over 16 or 8 numbers.
//
// Read before: common.cuh. Read next: mma_tiles.cuh.

#pragma once

#include "common.cuh"

#ifdef __CUDA_ARCH__
__device__ __forceinline__ unsigned shared_address(const void* address) {
    return (unsigned)__cvta_generic_to_shared(address);
}
#endif

// c += a b for 16 x 16 and 16 x 8 numbers in bfloat16, or 16 x 8 and 8 x 8 in TF32.
__device__ __forceinline__ void multiply_bfloat16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef __CUDA_ARCH__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    struct Lane {
        float* c;
        unsigned a[4], b[2];
    } mine = {c, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulated::together("mma.m16n8k16", ALL, mine, [](Lane** lanes) EMULATED_UNCHECKED {
        float left[16][16], right[16][8];
        for (int k = 0; k < 16; k++) {
            int word = k / 2, place = word % 4, upper = word / 4, shift = 16 * (1 - k % 2);
            for (int i = 0; i < 16; i++)
                left[i][k] = __uint_as_float(lanes[i % 8 * 4 + place]->a[i / 8 + 2 * upper] << shift & 0xffff0000u);
            for (int j = 0; j < 8; j++)
                right[k][j] = __uint_as_float(lanes[j * 4 + place]->b[upper] << shift & 0xffff0000u);
        }
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float* sum = &lanes[i % 8 * 4 + j / 2]->c[i / 8 * 2 + j % 2];
                for (int k = 0; k < 16; k++) *sum += left[i][k] * right[k][j];
            }
    });
#endif
}

__device__ __forceinline__ void multiply_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef __CUDA_ARCH__
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    struct Lane {
        float* c;
        unsigned a[4], b[2];
    } mine = {c, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulated::together("mma.m16n8k8", ALL, mine, [](Lane** lanes) EMULATED_UNCHECKED {
        float left[16][8], right[8][8];
        for (int k = 0; k < 8; k++) {  // the lower bits are cut off, which is why numbers are rounded before
            for (int i = 0; i < 16; i++)
                left[i][k] = __uint_as_float(lanes[i % 8 * 4 + k % 4]->a[i / 8 + k / 4 * 2] & 0xffffe000u);
            for (int j = 0; j < 8; j++)
                right[k][j] = __uint_as_float(lanes[j * 4 + k % 4]->b[k / 4] & 0xffffe000u);
        }
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float* sum = &lanes[i % 8 * 4 + j / 2]->c[i / 8 * 2 + j % 2];
                for (int k = 0; k < 8; k++) *sum += left[i][k] * right[k][j];
            }
    });
#endif
}

// Four matrices of 8 rows of 16 bytes from shared memory. Lane i gives the address of row i % 8 of matrix i / 8, and
// gets of matrix n, in x[n], the word `place` of row `group`.
__device__ __forceinline__ void load_matrices(unsigned (&x)[4], const unsigned char* row) {
#ifdef __CUDA_ARCH__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    struct Lane {
        const unsigned char* row;
        unsigned* x;
    } mine = {row, x};
    emulated::together("ldmatrix", ALL, mine, [](Lane** lanes) {
        for (int i = 0; i < 32; i++)
            for (int n = 0; n < 4; n++) lanes[i]->x[n] = ((const unsigned*)lanes[8 * n + i / 4]->row)[i % 4];
    });
#endif
}

// The same of 8 x 8 numbers of 16 bits, turned: x[n] are those of rows 2 place (lower half) and 2 place + 1, in column
// `group`.
__device__ __forceinline__ void load_turned(unsigned (&x)[4], const unsigned char* row) {
#ifdef __CUDA_ARCH__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    struct Lane {
        const unsigned char* row;
        unsigned* x;
    } mine = {row, x};
    emulated::together("ldmatrix.trans", ALL, mine, [](Lane** lanes) {
        auto at = [&](int row, int column) { return ((const unsigned short*)lanes[row]->row)[column]; };
        for (int i = 0; i < 32; i++)
            for (int n = 0; n < 4; n++) {
                int row = 8 * n + i % 4 * 2, column = i / 4;
                lanes[i]->x[n] = at(row, column) | (unsigned)at(row + 1, column) << 16;
            }
    });
#endif
}

// Two numbers as bfloat16, rounded to nearest, ties to even; the first in the lower half.
__device__ __forceinline__ unsigned pair_of(float first, float second) {
#ifdef __CUDA_ARCH__
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return from_float<bfloat16>(first).bits | (unsigned)from_float<bfloat16>(second).bits << 16;
#endif
}

// Rounded to TF32, to nearest, ties away from 0; what the multiplication itself does is to cut bits off.
__device__ __forceinline__ unsigned as_tf32(float x) {
#ifdef __CUDA_ARCH__
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    unsigned bits = __float_as_uint(x);
    return x == x ? (bits + 0x1000u) & 0xffffe000u : 0x7fffe000u;
#endif
}

// 2 to the power of x, to 22 bits; results below 2^-126 are 0.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// The copies from global to shared memory that a thread has under way. What it has asked for is there once it has
// waited; for other threads, once they have met it at a barrier after that. The CPU copies at the last moment, or, with
// EAGER, at the first, so that a missing wait or barrier shows.
struct Copies {
#ifdef __CUDA_ARCH__
    // N bytes, 4 or 16, both addresses a multiple of N; 0 instead of what is not inside.
    template <int N> __device__ __forceinline__ void add(void* to, const void* from, bool inside) {
        int bytes = inside ? N : 0;
        if constexpr (N == 16)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                         :
                         : "r"(shared_address(to)), "l"(from), "r"(bytes)
                         : "memory");
        else
            asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                         :
                         : "r"(shared_address(to)), "l"(from), "n"(N), "r"(bytes)
                         : "memory");
    }
    __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
    struct Copy {
        void* to;
        const void* from;
        int bytes;
        bool inside;
    } pending[256];
    int count = 0;

    template <int N> void add(void* to, const void* from, bool inside) {
        if ((unsigned long long)to % N || (unsigned long long)from % N) emulated::fail("cp.async: misaligned");
        if (count == 256) emulated::fail("cp.async: more copies than the emulation has room for");
        pending[count++] = {to, from, N, inside};
#ifdef EAGER
        wait();
#endif
    }
    void wait() {
        for (int i = 0; i < count; i++) {
            if (pending[i].inside) memcpy(pending[i].to, pending[i].from, pending[i].bytes);
            if (!pending[i].inside) memset(pending[i].to, 0, pending[i].bytes);
        }
        count = 0;
    }
#endif
};
