// A stand-in for cuBLASLt on the CPU: the functions that backends/cupy/cublaslt.py calls, with plain loops inside.
//
// It reads descriptors and layouts as the library does, by the names and sizes of cublasLt.h, and is stricter: what the
// library would read out of bounds, or promises nothing about, is an invalid value (7). A product on a stream that is
// being recorded is handed to the recorder, and computed at each replay.
//
// Read next: cublaslt.py.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace {

enum Status { SUCCESS = 0, INVALID = 7, UNSUPPORTED = 15 };
enum Type { FLOAT = 0, DOUBLE = 1, BFLOAT16 = 14 };
enum Epilogue { PLAIN = 1, BIAS = 4, GELU_AUX = 160, GELU_AUX_BIAS = 164, DGELU = 192, BGRADA = 256, BGRADB = 512 };
enum Count { DESCRIPTORS, LAYOUTS, HEURISTICS, PRODUCTS, MISTAKES, COUNTS };
constexpr size_t WORKSPACE = 4096;  // what every other kind of product asks for, and fills

struct Described {
    int32_t compute, scale, turn_a, turn_b;
    uint32_t epilogue;
    char *vector, *extra;
    int64_t extra_leading;
};

struct Layout {
    uint32_t type;
    uint64_t rows, columns;
    int64_t leading;
    int32_t count;
    int64_t step;
};

struct Preference {
    uint64_t workspace;
    uint32_t reductions;
    uint32_t alignments[4];
};

struct Algorithm {  // 64 bytes
    uint64_t kind, workspace;
    uint32_t alignments[4];
    uint64_t rest[4];
};

struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Algorithm) == 64 && sizeof(Found) == 96);

struct Call {
    Described described;
    Layout a, b, out;
    const char *at_a, *at_b;
    char *at_out, *workspace;
    size_t workspace_size;
};

std::mutex lock;
std::atomic<uint64_t> counts[COUNTS];
int (*recorder)(uint64_t) = nullptr;
std::map<uint64_t, Call> recorded;

double read(uint32_t type, const char *at, int64_t index) {
    if (type == DOUBLE) return reinterpret_cast<const double *>(at)[index];
    if (type == FLOAT) return reinterpret_cast<const float *>(at)[index];
    uint32_t bits = uint32_t(reinterpret_cast<const uint16_t *>(at)[index]) << 16;
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

// The leading bits of a float, to nearest, ties to even.
float rounded(float number, int dropped) {
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    bits += (1u << (dropped - 1)) - 1 + (bits >> dropped & 1);
    bits &= ~((1u << dropped) - 1);
    std::memcpy(&number, &bits, 4);
    return number;
}

void write(uint32_t type, char *at, int64_t index, double number) {
    if (type == DOUBLE) {
        reinterpret_cast<double *>(at)[index] = number;
    } else if (type == FLOAT) {
        reinterpret_cast<float *>(at)[index] = float(number);
    } else {
        float kept = rounded(float(number), 16);
        uint32_t bits;
        std::memcpy(&bits, &kept, 4);
        reinterpret_cast<uint16_t *>(at)[index] = std::isnan(number) ? 0x7fc0 : uint16_t(bits >> 16);
    }
}

constexpr double ROOT = 0.79788456080286535588, CUBE = 0.044715;

double gelu(double x) { return 0.5 * x * (1.0 + std::tanh(ROOT * (x + CUBE * x * x * x))); }

double slope(double x) {
    double t = std::tanh(ROOT * (x + CUBE * x * x * x));
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT * (1.0 + 3.0 * CUBE * x * x);
}

// Where element (i, j) of a factor is, its transposition undone.
int64_t place(const Layout &layout, int turned, int64_t i, int64_t j, int64_t matrix) {
    return matrix * layout.step + (turned ? j + i * layout.leading : i + j * layout.leading);
}

int64_t inner(const Call &call) { return call.described.turn_a ? call.a.rows : call.a.columns; }

void compute(const Call &call) {
    const Described &how = call.described;
    const uint32_t type = call.out.type;
    const int64_t n = call.out.rows, m = call.out.columns, k = inner(call);
    auto factor = [&](const Layout &layout, const char *at, int turned, int64_t i, int64_t j, int64_t matrix) {
        double x = read(type, at, place(layout, turned, i, j, matrix));
        return how.compute == 77 ? double(rounded(float(x), 13)) : x;
    };
    std::memset(call.workspace, 0xff, call.workspace ? std::min<size_t>(call.workspace_size, 1 << 16) : 0);
    for (int64_t matrix = 0; matrix < call.out.count; matrix++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t i = 0; i < n; i++) {
                double exact = 0.0;
                float single = 0.0f;
                for (int64_t l = 0; l < k; l++) {
                    double term = factor(call.a, call.at_a, how.turn_a, i, l, matrix) *
                                  factor(call.b, call.at_b, how.turn_b, l, j, matrix);
                    exact += term;
                    single += float(term);
                }
                double x = type == DOUBLE ? exact : single;
                int64_t there = i + j * how.extra_leading;
                if (how.epilogue == BIAS || how.epilogue == GELU_AUX_BIAS) x += read(type, how.vector, i);
                if (how.epilogue == GELU_AUX || how.epilogue == GELU_AUX_BIAS) {
                    write(type, how.extra, there, x);
                    x = gelu(x);
                }
                if (how.epilogue == DGELU) x *= slope(read(type, how.extra, there));
                write(type, call.at_out, place(call.out, 0, i, j, matrix), x);
            }
    if (how.epilogue == BGRADA || how.epilogue == BGRADB) {
        bool first = how.epilogue == BGRADA;
        for (int64_t i = 0; i < (first ? n : m); i++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++)
                sum += first ? factor(call.a, call.at_a, how.turn_a, i, l, 0)
                             : factor(call.b, call.at_b, how.turn_b, l, i, 0);
            write(type, how.vector, i, sum);
        }
    }
}

// Whether the library would say that this can be computed.
bool valid(const Described &how, const Layout &a, const Layout &b, const Layout &out) {
    bool vector = how.epilogue == BIAS || how.epilogue == GELU_AUX_BIAS || how.epilogue >= BGRADA;
    bool extra = how.epilogue == GELU_AUX || how.epilogue == GELU_AUX_BIAS || how.epilogue == DGELU;
    for (const Layout *layout : {&a, &b, &out}) {
        if (!layout->rows || !layout->columns || layout->leading < int64_t(layout->rows)) return false;
        if (layout->count != out.count || layout->type != out.type) return false;
    }
    uint64_t rows = how.turn_a ? a.columns : a.rows, columns = how.turn_b ? b.rows : b.columns;
    uint64_t left = how.turn_a ? a.rows : a.columns, right = how.turn_b ? b.columns : b.rows;
    if (rows != out.rows || columns != out.columns || left != right) return false;
    int64_t size = int64_t(out.columns - 1) * out.leading + int64_t(out.rows);
    if (out.count > 1 && (out.step < size || vector || extra)) return false;
    if (how.scale != (out.type == DOUBLE ? 1 : 0)) return false;
    bool tf32 = how.compute == 77 && out.type == FLOAT;
    if (out.type == DOUBLE ? how.compute != 70 : how.compute != 68 && !tf32) return false;
    if (vector && !how.vector) return false;
    return !extra || (how.extra && how.extra_leading % 8 == 0 && how.extra_leading >= int64_t(out.rows));
}

uint64_t kind_of(const Described &how, const Layout &a, const Layout &b, const Layout &out) {
    uint64_t hash = 1469598103934665603ull;
    auto mix = [&](uint64_t number) { hash = (hash ^ number) * 1099511628211ull; };
    for (int32_t number : {how.compute, how.scale, how.turn_a, how.turn_b}) mix(number);
    mix(how.epilogue);
    for (const Layout *l : {&a, &b, &out}) {
        for (uint64_t number : {uint64_t(l->type), l->rows, l->columns}) mix(number);
        for (int64_t number : {l->leading, int64_t(l->count), l->step}) mix(number);
    }
    return hash;
}

template <typename T> int make(T **made, T value) {
    *made = new T(value);
    return SUCCESS;
}

template <typename T> int set(T &field, const void *from, size_t size) {
    if (size != sizeof(T)) return INVALID;
    std::memcpy(&field, from, size);
    return SUCCESS;
}

}  // namespace

extern "C" {

int cublasLtCreate(void **handle) { return make(reinterpret_cast<int **>(handle), 0); }

int cublasLtMatmulDescCreate(Described **made, int compute, int scale) {
    counts[DESCRIPTORS]++;
    return make(made, Described{compute, scale, 0, 0, PLAIN, nullptr, nullptr, 0});
}

int cublasLtMatmulDescSetAttribute(Described *how, int attribute, const void *from, size_t size) {
    switch (attribute) {
    case 3: return set(how->turn_a, from, size);
    case 4: return set(how->turn_b, from, size);
    case 7: return set(how->epilogue, from, size);
    case 8: return set(how->vector, from, size);
    case 11: return set(how->extra, from, size);
    case 12: return set(how->extra_leading, from, size);
    }
    return INVALID;
}

int cublasLtMatmulDescGetAttribute(Described *, int, void *, size_t, size_t *) { return UNSUPPORTED; }

int cublasLtMatrixLayoutCreate(Layout **made, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    counts[LAYOUTS]++;
    return make(made, Layout{uint32_t(type), rows, columns, leading, 1, 0});
}

int cublasLtMatrixLayoutSetAttribute(Layout *layout, int attribute, const void *from, size_t size) {
    return attribute == 5 ? set(layout->count, from, size) : attribute == 6 ? set(layout->step, from, size) : INVALID;
}

int cublasLtMatrixLayoutGetAttribute(Layout *, int, void *, size_t, size_t *) { return UNSUPPORTED; }

int cublasLtMatmulPreferenceCreate(Preference **made) { return make(made, Preference{0, 7, {256, 256, 256, 256}}); }

int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *from, size_t size) {
    if (attribute == 1) return set(preference->workspace, from, size);
    if (attribute == 3) return set(preference->reductions, from, size);
    return attribute < 5 || attribute > 8 ? INVALID : set(preference->alignments[attribute - 5], from, size);
}

int cublasLtMatmulPreferenceGetAttribute(Preference *, int, void *, size_t, size_t *) { return UNSUPPORTED; }

int cublasLtMatmulPreferenceDestroy(Preference *preference) {
    delete preference;
    return SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(void *, const Described *how, const Layout *a, const Layout *b, const Layout *c,
                                   const Layout *out, const Preference *preference, int wanted, Found *found,
                                   int *count) {
    counts[HEURISTICS]++;
    *count = 0;
    bool rounds = out->type == BFLOAT16 && preference->reductions != 2;  // what it adds up in several parts
    if (wanted < 1 || c != out || rounds || !valid(*how, *a, *b, *out)) {
        counts[MISTAKES]++;
        return INVALID;
    }
    uint64_t kind = kind_of(*how, *a, *b, *out);
    size_t workspace = kind % 2 && preference->workspace >= WORKSPACE ? WORKSPACE : 0;
    *found = Found{{kind, workspace, {}, {}}, workspace, SUCCESS, 1.0f, {}};
    std::memcpy(found->algorithm.alignments, preference->alignments, sizeof preference->alignments);
    *count = 1;
    return SUCCESS;
}

int cublasLtMatmul(void *, const Described *how, const void *alpha, const char *a, const Layout *of_a, const char *b,
                   const Layout *of_b, const void *beta, const char *c, const Layout *of_c, char *out,
                   const Layout *of_out, const Algorithm *algorithm, char *workspace, size_t size, void *) {
    double one = read(how->scale, static_cast<const char *>(alpha), 0);
    double zero = read(how->scale, static_cast<const char *>(beta), 0);
    if (one != 1.0 || zero != 0.0 || c != out || of_c != of_out || !valid(*how, *of_a, *of_b, *of_out)) return INVALID;
    if (kind_of(*how, *of_a, *of_b, *of_out) != algorithm->kind) return INVALID;
    if (algorithm->workspace && (!workspace || size < algorithm->workspace)) return INVALID;
    const char *places[] = {a, b, c, out};
    for (int i = 0; i < 4; i++)
        if (!places[i] || reinterpret_cast<uintptr_t>(places[i]) % algorithm->alignments[i]) return INVALID;
    Call call{*how, *of_a, *of_b, *of_out, a, b, out, workspace, size};
    uint64_t ticket = counts[PRODUCTS]++;
    if (!recorder || !recorder(ticket)) {
        compute(call);
    } else {
        std::lock_guard<std::mutex> guard(lock);
        recorded[ticket] = call;
    }
    return SUCCESS;
}

uint64_t emulated_count(int what) { return counts[what]; }
void emulated_recorder(int (*function)(uint64_t)) { recorder = function; }
void emulated_replay(uint64_t ticket) { compute(recorded[ticket]); }
}
