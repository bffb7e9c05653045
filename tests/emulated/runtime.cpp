// The machine that runs kernels: fibers, a scheduler, barriers, and the launch of a grid.
//
// A fiber is a stack of its own; it gives up its turn where it waits, and never elsewhere. One machine serves all
// kernels of a process, one launch at a time.
//
// Read before: runtime.hpp. Read next: checks.cpp.

#include "machine.hpp"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

alignas(1024) unsigned char dynamic_shared[MAX_SHARED + BEYOND];
Wait waits[MAX_THREADS];
unsigned waiting[MAX_WARPS];
int threads, current;
Machine machine;

namespace {

constexpr size_t STACK = 256 << 10, GUARD = 64 << 10;

#if !defined(__x86_64__) || defined(EMULATED_UCONTEXT)
typedef ucontext_t Context;
void change(Context& from, Context& to) { swapcontext(&from, &to); }
void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#else
// A context is a stack pointer; the registers that a function must preserve lie on the stack. (That of the C library
// asks the operating system twice at each change, and takes thirty times as long.)
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
void change(Context& from, Context& to) { emulated_change(&from, to); }
void prepare(Context& context, char* stack, void (*entry)()) {
    void** top = (void**)(stack + STACK);  // a multiple of 16, as the address above a return address must be
    *--top = nullptr;
    *--top = (void*)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context = top;
}
#endif

Context contexts[MAX_THREADS], scheduler;
uint3 places[MAX_THREADS];  // threadIdx of each
int arrived[BARRIERS];  // threads that wait at each barrier
char* stacks = nullptr;
const Kernel* kernel;
Launch* launched;
sigjmp_buf trap;

uint3 place(unsigned n, uint3 sizes) { return {n % sizes.x, n / sizes.x % sizes.y, n / sizes.x / sizes.y}; }

}  // namespace

void fail(const char* format, ...) {
    Launch& launch = *launched;
    va_list list;
    va_start(list, format);
    int used = snprintf(launch.message, launch.message_size, "%s, block (%u, %u, %u), thread (%u, %u, %u): ",
                        kernel->name, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    if (used < (int)launch.message_size) vsnprintf(launch.message + used, launch.message_size - used, format, list);
    va_end(list);
    siglongjmp(trap, 1);
}

void fail_at(void* instruction, const char* format, ...) {
    char text[500];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    launched->where = offset_in_kernel(instruction);
    fail("%s", text);
}

uint3 thread_at(int number) { return places[number]; }

void wait() {
    change(contexts[current], scheduler);
    threadIdx = thread_at(current);
}

void order_warp() { machine.warp_epoch[current / 32]++; }

Vote barrier(const char* what, int number, int expected, int predicate) {
    Vote vote = {predicate};
    waits[current] = {AT_BLOCK, what, (unsigned)number, &vote};
    if (++arrived[number] < expected) {
        wait();
        return vote;
    }
    int count = 0;
    for (int i = 0; i < threads; i++) {
        Wait& other = waits[i];
        if (other.state != AT_BLOCK || other.mask != (unsigned)number) continue;
        if (strcmp(other.what, what)) {
            uint3 thread = thread_at(i);
            fail("threads of a block diverge: %s here, %s in thread (%u, %u, %u)", what, other.what, thread.x, thread.y,
                 thread.z);
        }
        count += ((Vote*)other.data)->predicate != 0;
    }
    for (int i = 0; i < threads; i++) {
        Wait& other = waits[i];
        if (other.state != AT_BLOCK || other.mask != (unsigned)number) continue;
        *(Vote*)other.data = {predicate, count == expected, count > 0, count};
        other.state = READY;
    }
    arrived[number] = 0;
    machine.block_epoch++;
    return vote;
}

namespace {

void entry() {
    threadIdx = thread_at(current);
    kernel->body(launched->arguments);
    waits[current].state = EXITED;
    wait();
}

void deadlock() {
    int counts[4] = {}, stuck = -1;
    for (int i = 0; i < threads; i++) {
        counts[waits[i].state]++;
        if (stuck < 0 && waits[i].state != EXITED) stuck = i;
    }
    threadIdx = thread_at(stuck);
    fail("waits for ever at %s; of the block, %d threads wait at a barrier, %d at an operation of their warp, and %d "
         "have ended", waits[stuck].what, counts[AT_BLOCK], counts[AT_WARP], counts[EXITED]);
}

enum Order { FORWARD, REVERSE, SHUFFLED };

uint64_t random_state;

void put_in_order(int order, unsigned* list, unsigned count) {
    for (unsigned i = 0; i < count; i++) list[i] = order == REVERSE ? count - 1 - i : i;
    if (order != SHUFFLED) return;
    for (unsigned i = count; i > 1; i--) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        unsigned j = (unsigned)((random_state >> 33) % i), other = list[j];
        list[j] = list[i - 1], list[i - 1] = other;
    }
}

void run_block() {
    size_t shared = launched->shared;
    if (kernel->shared) memset(kernel->shared, 0xff, kernel->shared_end - kernel->shared);
    memset(dynamic_shared, 0xff, shared + BEYOND);
    memset(waiting, 0, sizeof waiting);
    memset(arrived, 0, sizeof arrived);
    machine.block_epoch++;
    for (int i = 0; i < threads; i++) {
        waits[i].state = READY;
        // Stacks begin at different places of their pages, or all would fight for the same lines of the cache.
        prepare(contexts[i], stacks + i * (STACK + GUARD) + GUARD, entry);
    }
    static unsigned list[MAX_THREADS];
    put_in_order(launched->order, list, threads);
    for (int alive = threads; alive;) {
        bool progress = false;
        for (int i = 0; i < threads; i++) {
            current = list[i];
            if (waits[current].state != READY) continue;
            progress = true;
            change(scheduler, contexts[current]);
            alive -= waits[current].state == EXITED;
        }
        if (!progress) deadlock();
        if (launched->order == SHUFFLED) put_in_order(SHUFFLED, list, threads);
    }
    for (size_t i = 0; i < BEYOND; i++)
        if (dynamic_shared[shared + i] != 0xff) fail("wrote beyond its %zu bytes of dynamic shared memory", shared);
}

void on_signal(int number, siginfo_t* info, void* context) {
    void* instruction = nullptr;
#ifdef __x86_64__
    instruction = (void*)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
#endif
    if (number == SIGFPE) fail_at(instruction, "integer division by zero");
    fail_at(instruction, "illegal address %p: nobody's memory, misaligned, or beyond the stack", info->si_addr);
}

bool make_stacks() {
    constexpr size_t bytes = MAX_THREADS * (STACK + GUARD);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    stacks = (char*)memory;
    for (int i = 0; i < MAX_THREADS; i++) mprotect(stacks + i * (STACK + GUARD), GUARD, PROT_NONE);
    machine.stacks = {(uintptr_t)stacks, (uintptr_t)stacks + bytes};
    return true;
}

}  // namespace

int launch(const Kernel& what, Launch& launch) {
    kernel = &what, launched = &launch;
    if (!stacks && !make_stacks()) return snprintf(launch.message, launch.message_size, "no memory for stacks"), 1;
    constexpr int CAUGHT[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    static char signal_stack[64 << 10];
    stack_t ours = {}, theirs;
    ours.ss_sp = signal_stack, ours.ss_size = sizeof signal_stack;
    sigaltstack(&ours, &theirs);
    struct sigaction action = {}, before[4];
    action.sa_sigaction = on_signal, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 4; i++) sigaction(CAUGHT[i], &action, &before[i]);

    random_state = launch.seed;
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    threads = blockDim.x * blockDim.y * blockDim.z;
    for (int i = 0; i < threads; i++) places[i] = place(i, blockDim);
    unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
    unsigned* list = (unsigned*)malloc(blocks * sizeof *list);
    put_in_order(launch.order, list, blocks);
    volatile int failed = 1;
    if (!sigsetjmp(trap, 1)) {
        begin_checks(what, launch);
        machine.running = true;
        for (unsigned i = 0; i < blocks; i++) {
            blockIdx = place(list[i], gridDim);
            run_block();
        }
        failed = 0;
    }
    machine.running = false;
    free(list);
    for (int i = 0; i < 4; i++) sigaction(CAUGHT[i], &before[i], nullptr);
    sigaltstack(&theirs, nullptr);
    return failed;
}

}  // namespace emulated
