// What the halves of the machine share: the scheduler (runtime.cpp) and the checks of memory (checks.cpp).

#pragma once

#include "runtime.hpp"

namespace emulated {

struct Range {
    uintptr_t begin, end;
    bool holds(uintptr_t address) const { return address - begin < end - begin; }
};

struct Machine {
    unsigned block_epoch;            // counts barriers of the block: what lies before one is seen after it
    unsigned warp_epoch[MAX_WARPS];  // and those of each warp
    Range stacks;
    bool running;
};
extern Machine machine;

[[noreturn]] __attribute__((format(printf, 2, 3))) void fail_at(void* instruction, const char* format, ...);
uint3 thread_at(int number);
void begin_checks(const Kernel& kernel, const Launch& launch);
uint64_t offset_in_kernel(void* instruction);  // from the begin of the kernel's library; 0 where it is elsewhere

}  // namespace emulated
