// Sorting positions by what stands there, without comparing: by 4 bits of the keys in each pass, the lowest first
// (Knuth, volume 3, §5.2.5). A pass keeps the order of those whose bits are equal, so that at the end equal keys stand in
// the order of their positions.
//
// A pass is two kernels. The first counts, in each tile of keys, how often each digit occurs. In the second a tile
// learns from all the counts where its digits begin, and puts its keys there. Nothing depends on timing, there are no
// atomics, and no block waits for another: so it can be recorded, and gives the same every time.
//
// Read before: common.cuh. Read next: lookup.cu.

#pragma once

constexpr int BITS = 4, DIGITS = 1 << BITS;
constexpr int SORTERS = 256;          // threads of a block
constexpr int EACH = 4;               // consecutive keys of a thread
constexpr int TILE = SORTERS * EACH;  // keys of a block
constexpr int SORTER_WARPS = SORTERS / WARP;

__device__ __forceinline__ int digit_of(unsigned key, int shift) { return (int)(key >> shift) % DIGITS; }

// Sums of integers over a warp: of all lanes, and of the lanes before this one.
__device__ __forceinline__ int warp_total(int x) {
#pragma unroll
    for (int offset = WARP / 2; offset; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
    return x;
}

__device__ __forceinline__ int warp_before(int x) {
    int lane = threadIdx.x % WARP, sum = x;
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        int other = __shfl_up_sync(ALL, sum, offset);
        if (lane >= offset) sum += other;
    }
    return sum - x;
}

// How often each digit occurs among the keys of each thread of the block, of which this one has `amount`:
// counts[digit][thread].
__device__ __forceinline__ void count_digits(const unsigned* own, int amount, int shift, int* counts) {
    for (int digit = 0; digit < DIGITS; ++digit) counts[digit * SORTERS + threadIdx.x] = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i)
        if (i < amount) ++counts[digit_of(own[i], shift) * SORTERS + threadIdx.x];
    __syncthreads();
}

// How often each digit occurs in this tile: totals[digit][tile].
__device__ __forceinline__ void total_digits(const int* counts, int* totals) {
    int lane = threadIdx.x % WARP;
    for (int digit = threadIdx.x / WARP; digit < DIGITS; digit += SORTER_WARPS) {
        int sum = 0;
        for (int i = lane; i < SORTERS; i += WARP) sum += counts[digit * SORTERS + i];
        sum = warp_total(sum);
        if (lane == 0) totals[digit * gridDim.x + blockIdx.x] = sum;
    }
}

// From counts to places: counts[digit][thread] becomes the place, behind that digit's first, of the thread's first key
// with the digit; begins[digit] the place of the digit's first.
__device__ __forceinline__ void find_places(int* counts, const int* totals, int* begins) {
    int lane = threadIdx.x % WARP, tiles = gridDim.x, tile = blockIdx.x;
    for (int digit = threadIdx.x / WARP; digit < DIGITS; digit += SORTER_WARPS) {
        int all = 0, earlier = 0;
        for (int i = lane; i < tiles; i += WARP) {
            int count = totals[digit * tiles + i];
            all += count;
            if (i < tile) earlier += count;
        }
        all = warp_total(all);
        earlier = warp_total(earlier);
        int* own = counts + digit * SORTERS + lane * SORTER_WARPS;  // as many neighbouring threads for each lane
        int sum = 0;
        for (int i = 0; i < SORTER_WARPS; ++i) sum += own[i];
        int place = earlier + warp_before(sum);
        for (int i = 0; i < SORTER_WARPS; ++i) {
            int count = own[i];
            own[i] = place;
            place += count;
        }
        if (lane == 0) begins[digit] = all;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int sum = 0;
        for (int digit = 0; digit < DIGITS; ++digit) {
            int count = begins[digit];
            begins[digit] = sum;
            sum += count;
        }
    }
    __syncthreads();
}
