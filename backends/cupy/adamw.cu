// AdamW over flat arrays: the weights in float32, and beside them, where a model computes in bfloat16, their copy.
//
// What changes from step to step is read from memory, so that a recorded step may be replayed: `numbers` are the
// learning rate, 1 - beta1^n, 1 - beta2^n, and the largest norm of the gradient (0 for any); `outcome` is what `judge`
// makes of the gradient: its norm, the factor that clips it, and whether anything is updated, 1 or 0.
//
// Read before: common.cuh; tinyformer/training/optimizer.py has the formula.

#include "common.cuh"

// Partial sums of squares, one for each block. The order of adding depends on the sizes alone.
// Reads 4 bytes a number.
extern "C" __global__ void square_sums(const float* x, long long n, float* partial) {
    __shared__ float scratch[WARP];
    long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, threads = (long long)gridDim.x * blockDim.x;
    long long packs = aligned(x) ? n / 4 : 0;
    float sum = 0.0f;
    for (long long i = thread; i < packs; i += threads) {
        Pack<float> pack = load(x + 4 * i);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += pack.at[j] * pack.at[j];
    }
    for (long long i = 4 * packs + thread; i < n; i += threads) sum += x[i] * x[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: from the partial sums to the outcome. Unless loss and gradient are finite nothing is to be updated.
extern "C" __global__ void judge(
    const float* partial, int parts, const float* loss, const float* numbers, float* outcome
) {
    __shared__ float scratch[WARP];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < parts; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        float norm = sqrtf(sum), clip = numbers[3];
        bool finite = norm < infinity() && (loss == nullptr || fabsf(*loss) < infinity());
        outcome[0] = norm;
        outcome[1] = clip > 0.0f && norm > clip ? clip / norm : 1.0f;
        outcome[2] = finite ? 1.0f : 0.0f;
    }
}

struct Settings {
    float beta1, beta2, share1, share2, epsilon;  // share = 1 - beta
    float step_size, correction1, correction2, scale, shrink;
};

__device__ __forceinline__ void move(
    float& value, float gradient, float& first, float& second, bool decays, const Settings& by
) {
    gradient *= by.scale;
    first = by.beta1 * first + by.share1 * gradient;
    second = by.beta2 * second + by.share2 * gradient * gradient;
    if (decays) value *= by.shrink;
    value -= by.step_size * (first / by.correction1) / (sqrtf(second / by.correction2) + by.epsilon);
}

// A thread moves 4 numbers. Reads 16 bytes a number and writes 12, and those of the working copy.
extern "C" __global__ void adamw(
    float* values, const float* gradients, float* first, float* second,
    REAL* working,  // the values as the model computes with them, or null
    long long n, long long decay_end,
    float beta1, float beta2, float share1, float share2, float epsilon, float weight_decay, float rate,
    const float* numbers, const float* outcome
) {
    long long i = 4 * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n || outcome[2] == 0.0f) return;
    float learning_rate = numbers[0] * rate;
    Settings by{
        beta1, beta2, share1, share2, epsilon,
        learning_rate, numbers[1], numbers[2], outcome[1], 1.0f - learning_rate * weight_decay,
    };
    bool packed = i + 4 <= n && aligned(values) && aligned(gradients) && aligned(first) && aligned(second);
    if (packed) {
        Pack<float> p = load(values + i), g = load(gradients + i), m = load(first + i), v = load(second + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) move(p.at[j], g.at[j], m.at[j], v.at[j], i + j < decay_end, by);
        store(values + i, p);
        store(first + i, m);
        store(second + i, v);
        if (working) {
            struct alignas(4 * sizeof(REAL)) { REAL at[4]; } rounded;
#pragma unroll
            for (int j = 0; j < 4; ++j) rounded.at[j] = from_float<REAL>(p.at[j]);
            if ((unsigned long long)working % sizeof(rounded) == 0)
                *reinterpret_cast<decltype(rounded)*>(working + i) = rounded;
            else
                for (int j = 0; j < 4; ++j) working[i + j] = rounded.at[j];
        }
    } else {
        for (long long j = i; j < n && j < i + 4; ++j) {
            float value = values[j], mean = first[j], square = second[j];
            move(value, gradients[j], mean, square, j < decay_end, by);
            values[j] = value;
            first[j] = mean;
            second[j] = square;
            if (working) working[j] = from_float<REAL>(value);
        }
    }
}

// A gradient, as a backward pass left it, put into its place among all gradients, or added to what is there.
// Reads a number and writes 4 bytes; where it is added, reads 4 bytes more.
extern "C" __global__ void gather(const REAL* gradient, float* out, long long n, int add) {
    constexpr int size = Pack<REAL>::size;
    long long i = size * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
    if (i + size <= n && aligned(gradient) && aligned(out)) {
        Pack<REAL> pack = load(gradient + i);
#pragma unroll
        for (int j = 0; j < size; j += 4) {
            Pack<float> sum;
            if (add) sum = load(out + i + j);
#pragma unroll
            for (int k = 0; k < 4; ++k) sum.at[k] = (add ? sum.at[k] : 0.0f) + to_float(pack.at[j + k]);
            store(out + i + j, sum);
        }
    } else {
        for (long long j = i; j < n && j < i + size; ++j) out[j] = (add ? out[j] : 0.0f) + to_float(gradient[j]);
    }
}
