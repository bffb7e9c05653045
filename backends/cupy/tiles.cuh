// Products of matrices that lie in shared memory, each thread with a few rows and columns in registers.
//
// A block has SIDE x SIDE threads. Thread (y, x) has the rows y, y + SIDE, y + 2 SIDE, ... of a result: those of one y
// are half a warp, which can therefore add up a row, or hand its numbers on, without waiting for the others. Rows of a
// tile lie WIDTH + 4 numbers apart, so that neighbouring rows begin in different banks.
//
// Read before: scores.cuh. Read next: attention.cu.

#pragma once

#include "scores.cuh"

constexpr float LOG2E = 1.4426950408889634f;
constexpr int SIDE = 16;
constexpr int THREADS = SIDE * SIDE;
constexpr int RESIDENT = WIDTH > 128 ? 1 : 2;  // blocks on a processor, at least: one computes while others wait
constexpr int PITCH = WIDTH + 4;        // of a tile of rows
constexpr int SQUARE = TILE + 4;        // pitch of a tile of weights
constexpr int ROWS = TILE / SIDE;       // of a thread
constexpr int CHANNELS = WIDTH / SIDE;  // of a thread
constexpr int RUN = CHANNELS < 4 ? CHANNELS : 4;  // as many of them lie side by side

template <typename T, int N> struct alignas(N * sizeof(T)) Run {
    T at[N];
};

// The channel, of those of a row, that a thread has in place n of its CHANNELS.
__device__ __forceinline__ int channel(int x, int n) { return n / RUN * RUN * SIDE + x * RUN + n % RUN; }

// Where each row of the batch and head begins, and how far its rows lie apart.
struct Rows {
    const REAL* at;
    long long stride;
    int count, width;

    __device__ __forceinline__ Rows(const REAL* all, long long b_stride, long long h_stride, long long stride, int b,
                                    int h, int count, int width)
        : at(all + b * b_stride + h * h_stride), stride(stride), count(count), width(width) {}

    // TILE rows from the given one as floats; 0 beyond the last row or channel.
    __device__ __forceinline__ void load_tile(float* tile, int first, int thread) const {
        constexpr int N = Pack<REAL>::size;
        bool whole = aligned(at) && stride % N == 0 && width % N == 0;
        if (whole) {
#pragma unroll 2
            for (int i = thread; i < TILE * (WIDTH / N); i += THREADS) {
                int row = i / (WIDTH / N), begin = i % (WIDTH / N) * N;
                Pack<REAL> pack = {};
                if (first + row < count && begin < width) pack = load(at + (first + row) * stride + begin);
#pragma unroll
                for (int n = 0; n < N; n++) tile[row * PITCH + begin + n] = to_float(pack.at[n]);
            }
        } else {
#pragma unroll 2
            for (int i = thread; i < TILE * WIDTH; i += THREADS) {
                int row = i / WIDTH, c = i % WIDTH;
                bool there = first + row < count && c < width;
                tile[row * PITCH + c] = there ? to_float(at[(first + row) * stride + c]) : 0.0f;
            }
        }
    }
};

__device__ __forceinline__ Run<float, 4> four(const float* address) {
    return *reinterpret_cast<const Run<float, 4>*>(address);
}

// What is added to the scores of a tile of queries and keys; TURNED: with a row for each key.
template <bool TURNED>
__device__ __forceinline__ void load_added(float* square, const Scores& scores, int query, int key, int thread) {
#pragma unroll 2
    for (int i = thread; i < TILE * TILE; i += THREADS) {
        int row = i / TILE, column = i % TILE;
        square[TURNED ? column * SQUARE + row : row * SQUARE + column] = scores.added(query + row, key + column);
    }
}

// out[i][j] = the product of row y + SIDE i of the left tile and row x + SIDE j of the right one.
__device__ __forceinline__ void multiply(const float* left, const float* right, int y, int x, float (&out)[ROWS][ROWS]) {
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < ROWS; j++) out[i][j] = 0.0f;
#pragma unroll 1
    for (int c = 0; c < WIDTH; c += 4) {
        Run<float, 4> a[ROWS], b[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            a[i] = four(left + (y + SIDE * i) * PITCH + c);
            b[i] = four(right + (x + SIDE * i) * PITCH + c);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < ROWS; j++)
#pragma unroll
                for (int n = 0; n < 4; n++) out[i][j] += a[i].at[n] * b[j].at[n];
    }
}

// sum[i][n] += row y + SIDE i of the weights times the thread's channel n of the tile's rows. POSITIVE: without those
// below 0.
template <bool POSITIVE = false>
__device__ __forceinline__ void accumulate(const float* weights, const float* tile, int y, int x,
                                           float (&sum)[ROWS][CHANNELS]) {
#pragma unroll 1
    for (int row = 0; row < TILE; row += 4) {
        Run<float, 4> w[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            w[i] = four(weights + (y + SIDE * i) * SQUARE + row);
#pragma unroll
            for (int m = 0; m < 4; m++)
                if (POSITIVE && w[i].at[m] < 0.0f) w[i].at[m] = 0.0f;
        }
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < CHANNELS; n += RUN) {
                auto run = *reinterpret_cast<const Run<float, RUN>*>(tile + (row + m) * PITCH + channel(x, n));
#pragma unroll
                for (int i = 0; i < ROWS; i++)
#pragma unroll
                    for (int k = 0; k < RUN; k++) sum[i][n + k] += w[i].at[m] * run.at[k];
            }
    }
}

// Stores a thread's channels of one row, times a factor.
__device__ __forceinline__ void put(REAL* row, int width, int x, const float (&sum)[CHANNELS], float factor) {
    bool whole = width % RUN == 0 && (unsigned long long)row % (RUN * sizeof(REAL)) == 0;
#pragma unroll
    for (int n = 0; n < CHANNELS; n += RUN) {
        int begin = channel(x, n);
        if (whole) {
            Run<REAL, RUN> run;
#pragma unroll
            for (int k = 0; k < RUN; k++) run.at[k] = from_float<REAL>(sum[n + k] * factor);
            if (begin < width) *reinterpret_cast<Run<REAL, RUN>*>(row + begin) = run;
        } else {
#pragma unroll
            for (int k = 0; k < RUN; k++)
                if (begin + k < width) row[begin + k] = from_float<REAL>(sum[n + k] * factor);
        }
    }
}

// The sum (or maximum) over the threads of one y.
__device__ __forceinline__ float side_sum(float value) {
#pragma unroll
    for (int offset = SIDE / 2; offset; offset /= 2) value += __shfl_xor_sync(ALL, value, offset);
    return value;
}

__device__ __forceinline__ float side_max(float value) {
#pragma unroll
    for (int offset = SIDE / 2; offset; offset /= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, offset));
    return value;
}
