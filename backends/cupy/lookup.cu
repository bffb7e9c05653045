// Looking rows up in a table, and its gradient, which adds rows up where they were looked up.
//
// Adding by atomics would give other last digits in each run. Here the positions are sorted by their row of the table
// (sort.cuh), and each row is the sum of its positions in increasing order. A word such as "the" has thousands of
// positions and most words none, so the sorted positions, not the rows, are shared out: a block adds up CHUNK of them,
// writes the rows that begin and end there, and leaves the parts of others to a second kernel.
//
// Read before: sort.cuh, lookup.py.

#include "common.cuh"
#include "sort.cuh"

// versions: NARROW=0 NARROW=1
#if NARROW
using Index = int;
#else
using Index = long long;
#endif

constexpr int CHUNK = 64;  // sorted positions of a block
constexpr int AHEAD = 4;   // rows that are under way at once

// One block. Where an index lies outside [0, size), tells the host, in memory that it sees: smallest and largest index,
// and at last the size, which says that the others are there. A fault that is waiting is left alone. Reads each index.
extern "C" __global__ void check_indices(
    const Index* indices, long long n, long long size, volatile long long* fault
) {
    __shared__ long long lowest[WARP], highest[WARP];
    long long low = indices[0], high = low;
#pragma unroll 8
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
        long long index = indices[i];
        low = index < low ? index : low;
        high = index > high ? index : high;
    }
#pragma unroll
    for (int offset = WARP / 2; offset; offset /= 2) {
        long long other = __shfl_xor_sync(ALL, low, offset);
        low = other < low ? other : low;
        other = __shfl_xor_sync(ALL, high, offset);
        high = other > high ? other : high;
    }
    if (threadIdx.x % WARP == 0) {
        lowest[threadIdx.x / WARP] = low;
        highest[threadIdx.x / WARP] = high;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int warp = 1; warp < blockDim.x / WARP; ++warp) {
        low = lowest[warp] < low ? lowest[warp] : low;
        high = highest[warp] > high ? highest[warp] : high;
    }
    if ((low < 0 || high >= size) && fault[2] == 0) {
        fault[0] = low;
        fault[1] = high;
        __threadfence_system();
        fault[2] = size;
    }
}

// An index, or the nearest one that is a row, so that nothing outside the table is touched.
__device__ __forceinline__ long long row_at(const Index* indices, long long i, long long rows) {
    long long index = indices[i];
    return index < 0 ? 0 : index < rows ? index : rows - 1;
}

template <typename Unit> __device__ __forceinline__ void copy_row(
    const unsigned char* from, unsigned char* to, long long bytes
) {
    for (long long i = threadIdx.x % WARP; i < bytes / (long long)sizeof(Unit); i += WARP)
        reinterpret_cast<Unit*>(to)[i] = reinterpret_cast<const Unit*>(from)[i];
}

// A warp copies a row, in units of 16, 4 or 1 bytes. Reads and writes each row once.
extern "C" __global__ void take(
    const unsigned char* table, const Index* indices, unsigned char* out, long long n, long long rows,
    long long row_bytes, int unit
) {
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (i >= n) return;
    const unsigned char* from = table + row_at(indices, i, rows) * row_bytes;
    unsigned char* to = out + i * row_bytes;
    if (unit == 16)
        copy_row<uint4>(from, to, row_bytes);
    else if (unit == 4)
        copy_row<unsigned>(from, to, row_bytes);
    else
        copy_row<unsigned char>(from, to, row_bytes);
}

// The keys of this thread, from the pass before, or, in the first, from the indices. Returns how many there are.
__device__ __forceinline__ int load_keys(
    const Index* indices, const unsigned* keys, int n, long long rows, int first, unsigned* own
) {
#pragma unroll
    for (int i = 0; i < EACH; ++i)
        if (first + i < n) own[i] = indices ? (unsigned)row_at(indices, first + i, rows) : keys[first + i];
    return min(max(n - first, 0), EACH);
}

extern "C" __global__ void sort_count(
    const Index* indices, const unsigned* keys, int n, long long rows, int shift, int* totals
) {
    __shared__ int counts[DIGITS * SORTERS];
    unsigned own[EACH];
    int amount = load_keys(indices, keys, n, rows, blockIdx.x * TILE + threadIdx.x * EACH, own);
    count_digits(own, amount, shift, counts);
    total_digits(counts, totals);
}

extern "C" __global__ void sort_place(
    const Index* indices, const unsigned* keys, const int* positions, int n, long long rows, int shift,
    const int* totals, unsigned* keys_out, int* positions_out
) {
    __shared__ int counts[DIGITS * SORTERS], begins[DIGITS];
    unsigned own[EACH];
    int first = blockIdx.x * TILE + threadIdx.x * EACH;
    int amount = load_keys(indices, keys, n, rows, first, own);
    count_digits(own, amount, shift, counts);
    find_places(counts, totals, begins);
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        if (i >= amount) continue;
        int digit = digit_of(own[i], shift);
        int place = begins[digit] + counts[digit * SORTERS + threadIdx.x]++;
        keys_out[place] = own[i];
        positions_out[place] = indices ? first + i : positions[first + i];
    }
}

// STEP channels of a row of values, as one load or one number.
template <int STEP> struct Channels {
    Pack<REAL> pack;
    __device__ __forceinline__ void read(const REAL* at) {
        if constexpr (STEP == 1)
            pack.at[0] = *at;
        else
            pack = load(at);
    }
};

template <int STEP> __device__ __forceinline__ void write_row(REAL* out, const float* sum) {
    Pack<REAL> pack;
#pragma unroll
    for (int i = 0; i < STEP; ++i) pack.at[i] = from_float<REAL>(sum[i]);
    if constexpr (STEP == 1)
        *out = pack.at[0];
    else
        store(out, pack);
}

template <int STEP> __device__ __forceinline__ void add_chunk(
    const unsigned* keys, const int* positions, const REAL* values, REAL* out, float* parts, int n, int width,
    int channel
) {
    int begin = blockIdx.x * CHUNK, end = min(begin + CHUNK, n);
    float* part = parts + 2LL * blockIdx.x * width + channel;
    unsigned key = keys[begin];
    bool began_before = begin > 0 && keys[begin - 1] == key;
    float sum[STEP] = {};
    for (int start = begin; start < end; start += AHEAD) {
        Channels<STEP> rows[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i)
            if (start + i < end) rows[i].read(values + (long long)positions[start + i] * width + channel);
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            int next = start + i + 1;
            if (next > end) continue;
#pragma unroll
            for (int j = 0; j < STEP; ++j) sum[j] += to_float(rows[i].pack.at[j]);
            bool ends = next == n || keys[next] != key;
            if (!ends && next < end) continue;
            if (!began_before && ends)
                write_row<STEP>(out + (long long)key * width + channel, sum);
            else  // part 0 of a chunk belongs to a row that began before it, part 1 to one that goes on behind it
                for (int j = 0; j < STEP; ++j) part[(began_before ? 0 : width) + j] = sum[j];
            began_before = false;
            if (next < end) key = keys[next];
#pragma unroll
            for (int j = 0; j < STEP; ++j) sum[j] = 0.0f;
        }
    }
}

// A block for CHUNK sorted positions and some channels. Reads each value once; writes each row that it can finish.
extern "C" __global__ void add_chunks(
    const unsigned* keys, const int* positions, const REAL* values, REAL* out, float* parts, int n, int width,
    int packed
) {
    int thread = blockIdx.y * blockDim.x + threadIdx.x, channel = thread * (packed ? Pack<REAL>::size : 1);
    if (channel >= width) return;
    if (packed)
        add_chunk<Pack<REAL>::size>(keys, positions, values, out, parts, n, width, channel);
    else
        add_chunk<1>(keys, positions, values, out, parts, n, width, channel);
}

// A block for a row that begins in a chunk and goes on behind it, if there is one: adds up its parts, in their order.
extern "C" __global__ void join_chunks(const unsigned* keys, const float* parts, REAL* out, int n, int width) {
    int chunk = blockIdx.x, begin = chunk * CHUNK, end = begin + CHUNK;
    if (end >= n) return;
    unsigned key = keys[end - 1];
    if (keys[end] != key || (begin > 0 && keys[begin - 1] == key)) return;
    int last = end, above = n;  // keys[last] == key, and keys[above] is larger, or the end
    while (above - last > 1) {
        int middle = last + (above - last) / 2;
        if (keys[middle] == key)
            last = middle;
        else
            above = middle;
    }
    int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= width) return;
    float sum = parts[(2LL * chunk + 1) * width + channel];
#pragma unroll 8
    for (int next = chunk + 1; next <= last / CHUNK; ++next) sum += parts[2LL * next * width + channel];
    out[(long long)key * width + channel] = from_float<REAL>(sum);
}
