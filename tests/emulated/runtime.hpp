// What kernels call of the machine that runs them (runtime.cpp): the threads of a block as fibers.
//
// Read before: cuda.hpp. Read next: runtime.cpp.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

struct uint3 {
    unsigned x, y, z;
};
typedef uint3 dim3;
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

#define EMULATED_UNCHECKED __attribute__((no_sanitize("thread")))  // its accesses are none of a kernel's

namespace emulated {

constexpr int MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32, BARRIERS = 16;
constexpr size_t MAX_SHARED = 227 << 10, BEYOND = 4 << 10;

enum State { READY, AT_WARP, AT_BLOCK, EXITED };

// What a thread waits for.
struct Wait {
    State state;
    const char* what;  // the operation
    unsigned mask;     // the lanes that must meet, or the number of a barrier
    void* data;        // what it brings to the operation, and what it takes from it
};

extern unsigned char dynamic_shared[];
extern Wait waits[];        // of each thread of the block
extern unsigned waiting[];  // lanes that wait for others of their warp
extern int threads, current;

// Stop the kernel: control goes back to the scheduler, and the fibers are left where they are.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

void wait();
void order_warp();  // what lanes of this warp did to memory before is seen by them after

struct Vote {
    int predicate, all, any, count;
};
Vote barrier(const char* what, int number, int expected, int predicate);  // of `expected` threads of the block

inline int lane() { return current % 32; }

// An operation that the lanes of a mask execute together. Each brings `mine`; the last to arrive executes
// `action(lanes)`, where `lanes[i]` is what lane i brought (null where it is not in the mask), to read and to write.
// All lanes must name the same operation.
template <typename T, typename Action>
EMULATED_UNCHECKED void together(const char* what, unsigned mask, T& mine, Action action) {
    int warp = current / 32, first = warp * 32, count = threads - first < 32 ? threads - first : 32;
    if (!(mask >> lane() & 1)) fail("%s: lane %d is not in its own mask %#x", what, lane(), mask);
    if (count < 32 && mask >> count) fail("%s: mask %#x names lanes that the block does not have", what, mask);
    waits[current] = {AT_WARP, what, mask, &mine};
    waiting[warp] |= 1u << lane();
    bool complete = (waiting[warp] & mask) == mask;
    for (int i = 0; complete && i < count; i++) {
        if (!(mask >> i & 1)) continue;
        Wait& other = waits[first + i];
        if (other.mask == mask && other.what != what && strcmp(other.what, what))
            fail("lanes of a warp diverge: %s here, %s in lane %d", what, other.what, i);
        complete = other.mask == mask;
    }
    if (!complete) return wait();
    T* lanes[32] = {};
    for (int i = 0; i < count; i++) {
        if (!(mask >> i & 1)) continue;
        lanes[i] = (T*)waits[first + i].data;
        waits[first + i].state = READY;
    }
    waiting[warp] &= ~mask;
    action(lanes);
}

struct Kernel {
    const char* name;
    void (*body)(void** arguments);
    char *shared, *shared_end;  // shared memory whose size the source says
};

struct Launch {
    unsigned grid[3], block[3];
    int order;
    uint64_t seed, shared;
    void** arguments;
    uint64_t checked;         // how many arrays follow, or 0 where not all are known
    const uint64_t* extents;  // the first byte of each and the one after its last
    char* message;            // of an error
    uint64_t message_size, where;  // and where in the library its instruction is
};
int launch(const Kernel& kernel, Launch& launch);  // 0, or 1 with a message

// What a parameter is: its bytes, and p (pointer), i (integer), f (floating point), or b (bool).
template <typename T> struct Parameter {
    static constexpr char kind = __is_same(T, bool) ? 'b' : __is_same(T, float) || __is_same(T, double) ? 'f' : 'i';
    static constexpr int code = (int)sizeof(T) << 8 | kind;
};
template <typename T> struct Parameter<T*> {
    static constexpr int code = sizeof(T*) << 8 | 'p';
};

template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> {
    typedef Indices<I...> type;
};

template <auto kernel> struct Launcher;
template <typename... P, void (*kernel)(P...)> struct Launcher<kernel> {
    static constexpr int count = sizeof...(P);
    template <int THREADS> static constexpr int codes[count + 2] = {THREADS, Parameter<P>::code..., 0};
    template <int... I> EMULATED_UNCHECKED static void spread(void** arguments, Indices<I...>) {
        kernel(*(P*)arguments[I]...);
    }
    static void call(void** arguments) { spread(arguments, typename Count<count>::type()); }
};

constexpr int threads_of(int most, int = 0) { return most; }

}  // namespace emulated

// The linker's names for the ends of a section.
extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

// A launcher of a kernel, and what it takes: most threads of a block, then the parameters, then 0.
#define EMULATED_KERNEL(NAME, BOUNDS)                                                                \
    extern "C" int emulated_launch_##NAME(emulated::Launch* launch) {                                \
        emulated::Kernel kernel = {#NAME, emulated::Launcher<&NAME>::call, __start_emulated_shared,  \
                                   __stop_emulated_shared};                                          \
        return emulated::launch(kernel, *launch);                                                    \
    }                                                                                                \
    extern "C" const int* emulated_parameters_##NAME() {                                             \
        return emulated::Launcher<&NAME>::template codes<emulated::threads_of BOUNDS>;               \
    }
