// The part of CUDA's language that our kernels use, as C++ for the CPU: tests run kernels where there is no GPU.
//
// The threads of a block are fibers, which run one at a time, each until it waits for others: at a barrier of the
// block, or at an operation of its warp. The order in which they take turns can be chosen, so that a missing barrier
// shows as results that differ. Shared memory starts as NaN. What a GPU would leave undefined, or would hang on, stops
// the kernel with a message: lanes that do not meet, a barrier that a thread never reaches, an address that is no one's.
//
// `__CUDA_ARCH__` is not defined: kernels give the meaning of an instruction in C++ beside it. One that a whole warp
// executes together is best written with `emulated::together`.
//
// Read before: compiler.py, which includes this and appends a launcher for each kernel.

#include <cmath>
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#if !defined(__x86_64__)
#define EMULATED_UCONTEXT
#endif
#ifdef EMULATED_UCONTEXT
#include <ucontext.h>
#endif

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

struct uint3 {
    unsigned x, y, z;
};
typedef uint3 dim3;
static uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

namespace emulated {

constexpr int MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32, BARRIERS = 16;
constexpr size_t STACK = 256 << 10, PAGE = 64 << 10, MAX_SHARED = 227 << 10, BEYOND = 4 << 10;

alignas(1024) static unsigned char dynamic_shared[MAX_SHARED + BEYOND];

#ifdef EMULATED_UCONTEXT
typedef ucontext_t Context;
static void change(Context& from, Context& to) { swapcontext(&from, &to); }
static void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = size;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#else
// A context is a stack pointer; the registers that a function must preserve lie on the stack.
typedef void* Context;
extern "C" void emulated_change(void** from, void* to) __attribute__((visibility("hidden")));
asm(R"(
    .text
    .hidden emulated_change
    .type emulated_change, @function
emulated_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
static void change(Context& from, Context& to) { emulated_change(&from, to); }
static void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
    void** top = (void**)(stack + size);  // a multiple of 16, as the address above a return address must be
    *--top = nullptr;
    *--top = (void*)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context = top;
}
#endif

enum State { READY, AT_WARP, AT_BLOCK, EXITED };

struct Fiber {
    Context context;
    uint3 thread;
    State state;
    const char* what;  // the operation that it waits for
    unsigned mask;     // the lanes that must meet, or the number of a barrier
    void* data;        // what it brings to the operation, and what it takes from it
};

static Fiber fibers[MAX_THREADS];
static char* stacks = nullptr;
static int threads, current;
static unsigned waiting[MAX_WARPS];  // lanes that wait for others of their warp
static int arrived[BARRIERS];        // threads that wait at each barrier
static Context scheduler;
static void (*body)(void**);
static void** arguments;
static char* message;
static size_t message_size;
static const char* kernel;
static bool failed;
static sigjmp_buf trap;

// Stop the kernel: control goes back to the scheduler, and the fibers are left where they are.
[[noreturn]] __attribute__((format(printf, 1, 2))) static void fail(const char* format, ...) {
    va_list list;
    va_start(list, format);
    int used = snprintf(message, message_size, "%s: block (%u, %u, %u), thread (%u, %u, %u): ", kernel, blockIdx.x,
                        blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    if (used < (int)message_size) vsnprintf(message + used, message_size - used, format, list);
    va_end(list);
    failed = true;
    siglongjmp(trap, 1);
}

static void wait() {
    change(fibers[current].context, scheduler);
    threadIdx = fibers[current].thread;
}

static int lane() { return current % 32; }

// An operation that the lanes of a mask execute together. Each brings `mine`; the last to arrive executes
// `action(lanes)`, where `lanes[i]` is what lane i brought (null where it is not in the mask), to read and to write.
// All lanes must name the same operation.
template <typename T, typename Action> void together(const char* what, unsigned mask, T& mine, Action action) {
    Fiber& self = fibers[current];
    int warp = current / 32, first = warp * 32, count = threads - first < 32 ? threads - first : 32;
    if (!(mask >> lane() & 1)) fail("%s: lane %d is not in its own mask %#x", what, lane(), mask);
    if (count < 32 && mask >> count) fail("%s: mask %#x names lanes that the block does not have", what, mask);
    self.what = what, self.mask = mask, self.data = &mine;
    waiting[warp] |= 1u << lane();
    bool complete = (waiting[warp] & mask) == mask;
    for (int i = 0; complete && i < count; i++) {
        if (!(mask >> i & 1)) continue;
        Fiber& other = fibers[first + i];
        if (other.mask == mask && strcmp(other.what, what))
            fail("lanes of a warp diverge: %s here, %s in lane %d", what, other.what, i);
        complete = other.mask == mask;
    }
    if (!complete) {
        self.state = AT_WARP;
        return wait();
    }
    T* lanes[32] = {};
    for (int i = 0; i < count; i++) {
        if (!(mask >> i & 1)) continue;
        lanes[i] = (T*)fibers[first + i].data;
        fibers[first + i].state = READY;
    }
    waiting[warp] &= ~mask;
    action(lanes);
}

struct Vote {
    int predicate, all, any, count;
};

// A barrier for `expected` threads of the block.
static Vote barrier(const char* what, int number, int expected, int predicate) {
    Vote vote = {predicate};
    Fiber& self = fibers[current];
    self.what = what, self.mask = number, self.data = &vote, self.state = AT_BLOCK;
    if (++arrived[number] < expected) {
        wait();
        return vote;
    }
    int count = 0;
    for (int i = 0; i < threads; i++) {
        Fiber& other = fibers[i];
        if (other.state != AT_BLOCK || other.mask != (unsigned)number) continue;
        if (strcmp(other.what, what))
            fail("threads of a block diverge: %s here, %s in thread (%u, %u, %u)", what, other.what, other.thread.x,
                 other.thread.y, other.thread.z);
        count += ((Vote*)other.data)->predicate != 0;
    }
    for (int i = 0; i < threads; i++) {
        Fiber& other = fibers[i];
        if (other.state != AT_BLOCK || other.mask != (unsigned)number) continue;
        *(Vote*)other.data = {predicate, count == expected, count > 0, count};
        other.state = READY;
    }
    arrived[number] = 0;
    return vote;
}

static void entry() {
    threadIdx = fibers[current].thread;
    body(arguments);
    fibers[current].state = EXITED;
    wait();
}

static void deadlock() {
    int exited = 0, at_block = 0, at_warp = 0;
    Fiber* stuck = nullptr;
    for (int i = 0; i < threads; i++) {
        exited += fibers[i].state == EXITED;
        at_block += fibers[i].state == AT_BLOCK;
        at_warp += fibers[i].state == AT_WARP;
        if (!stuck && fibers[i].state != EXITED) stuck = fibers + i;
    }
    threadIdx = stuck->thread;
    fail("waits for ever at %s; of the block, %d threads wait at a barrier, %d at an operation of their warp, and %d "
         "have ended", stuck->what, at_block, at_warp, exited);
}

static uint64_t random_state;
static unsigned draw(unsigned below) {  // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % below);
}

enum Order { FORWARD, REVERSE, SHUFFLED };
static void put_in_order(Order order, unsigned* list, unsigned count) {
    for (unsigned i = 0; i < count; i++) list[i] = order == REVERSE ? count - 1 - i : i;
    if (order == SHUFFLED)
        for (unsigned i = count; i > 1; i--) {
            unsigned j = draw(i), other = list[j];
            list[j] = list[i - 1], list[i - 1] = other;
        }
}

static void run_block(Order order, size_t shared) {
    if (__start_emulated_shared)
        memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
    memset(dynamic_shared, 0xff, shared + BEYOND);
    memset(waiting, 0, sizeof waiting);
    memset(arrived, 0, sizeof arrived);
    for (int i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        unsigned n = i;
        fiber.thread = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
        fiber.state = READY;
        prepare(fiber.context, stacks + i * (STACK + PAGE) + PAGE, STACK, entry);
    }
    static unsigned list[MAX_THREADS];
    put_in_order(order, list, threads);
    for (int alive = threads; alive;) {
        bool progress = false;
        for (int i = 0; i < threads; i++) {
            current = list[i];
            Fiber& fiber = fibers[current];
            if (fiber.state != READY) continue;
            progress = true;
            change(scheduler, fiber.context);
            alive -= fiber.state == EXITED;
        }
        if (!progress) deadlock();
        if (order == SHUFFLED) put_in_order(order, list, threads);
    }
    for (size_t i = 0; i < BEYOND; i++)
        if (dynamic_shared[shared + i] != 0xff) fail("wrote beyond its %zu bytes of dynamic shared memory", shared);
}

static void on_signal(int number, siginfo_t* info, void*) {
    if (number == SIGFPE) fail("integer division by zero");
    fail("illegal address %p: nobody's memory, misaligned, or beyond the stack", info->si_addr);
}

// Run all blocks of a kernel. Returns 0, or 1 with a message.
static int launch(const unsigned* grid, const unsigned* block, size_t shared, int order, uint64_t seed) {
    if (!stacks) {
        size_t bytes = MAX_THREADS * (STACK + PAGE);
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return snprintf(message, message_size, "%s: no memory for stacks", kernel), 1;
        stacks = (char*)memory;
        for (int i = 0; i < MAX_THREADS; i++) mprotect(stacks + i * (STACK + PAGE), PAGE, PROT_NONE);
    }
    constexpr int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    static char signal_stack[64 << 10];
    stack_t ours = {}, theirs;
    ours.ss_sp = signal_stack, ours.ss_size = sizeof signal_stack;
    sigaltstack(&ours, &theirs);
    struct sigaction action = {}, before[4];
    action.sa_sigaction = on_signal, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 4; i++) sigaction(caught[i], &action, &before[i]);

    random_state = seed;
    blockDim = {block[0], block[1], block[2]}, gridDim = {grid[0], grid[1], grid[2]};
    threads = block[0] * block[1] * block[2];
    unsigned count = grid[0] * grid[1] * grid[2];
    unsigned* list = (unsigned*)malloc(count * sizeof *list);
    put_in_order((Order)order, list, count);
    failed = false;
    if (!sigsetjmp(trap, 1))
        for (unsigned i = 0; i < count; i++) {
            unsigned n = list[i];
            blockIdx = {n % grid[0], n / grid[0] % grid[1], n / grid[0] / grid[1]};
            run_block((Order)order, shared);
        }
    free(list);
    for (int i = 0; i < 4; i++) sigaction(caught[i], &before[i], nullptr);
    sigaltstack(&theirs, nullptr);
    return failed;
}

// What a parameter is: its size, and p (pointer), i (integer), f (floating point), or b (bool).
template <typename T> constexpr int parameter() {
    char kind = __is_same(T, bool) ? 'b' : __is_same(T, float) || __is_same(T, double) ? 'f' : 'i';
    return (int)sizeof(T) << 8 | kind;
}
template <typename T> struct Parameter {
    static constexpr int code = parameter<T>();
};
template <typename T> struct Parameter<T*> {
    static constexpr int code = 8 << 8 | 'p';
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
    template <int... I> static void spread(void** arguments, Indices<I...>) { kernel(*(P*)arguments[I]...); }
    static void call(void** arguments) { spread(arguments, typename Count<count>::type()); }
};

static constexpr int threads_of(int most, int = 0) { return most; }

}  // namespace emulated

// A launcher of a kernel, and what it takes: most threads of a block, then the parameters, then 0.
#define EMULATED_KERNEL(NAME, BOUNDS)                                                                                  \
    extern "C" __attribute__((visibility("default"))) int emulated_launch_##NAME(                                      \
        const unsigned* grid, const unsigned* block, void** arguments, size_t shared, int order, uint64_t seed,        \
        char* message, size_t message_size) {                                                                          \
        emulated::kernel = #NAME;                                                                                      \
        emulated::body = emulated::Launcher<&NAME>::call;                                                              \
        emulated::arguments = arguments;                                                                               \
        emulated::message = message, emulated::message_size = message_size;                                            \
        return emulated::launch(grid, block, shared, order, seed);                                                     \
    }                                                                                                                  \
    extern "C" __attribute__((visibility("default"))) const int* emulated_parameters_##NAME() {                        \
        return emulated::Launcher<&NAME>::template codes<emulated::threads_of BOUNDS>;                                 \
    }

#include "intrinsics.hpp"
