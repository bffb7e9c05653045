// Checks of memory, called by the compiler's instrumentation (-fsanitize=thread and others) before every
// access of a kernel; the sanitizers' own libraries are not linked. What NVIDIA's memcheck and racecheck find:
//
// - an address outside the arrays that the kernel was given, or outside its shared memory, or misaligned;
// - an index beyond the end of an array whose size the type says;
// - a race in shared memory: two threads, one of which writes, and no barrier of both between.
//
// Read before: runtime.cpp.

#include "machine.hpp"

#include <link.h>

namespace emulated {

namespace {

const Kernel* kernel;
const Launch* launched;
Range shared_static, shared_dynamic, images[2];  // images: the memory of the kernel's library and of this one

Range image_of(void* address) {
    struct Search {
        uintptr_t address;
        Range found;
    } search = {(uintptr_t)address, {}};
    auto look = [](dl_phdr_info* info, size_t, void* data) {
        Search& search = *(Search*)data;
        Range range = {UINTPTR_MAX, 0};
        for (int i = 0; i < info->dlpi_phnum; i++) {
            const auto& header = info->dlpi_phdr[i];
            if (header.p_type != PT_LOAD) continue;
            uintptr_t begin = info->dlpi_addr + header.p_vaddr, end = begin + header.p_memsz;
            if (begin < range.begin) range.begin = begin;
            if (end > range.end) range.end = end;
        }
        if (range.begin > range.end || !range.holds(search.address)) return 0;
        search.found = range;
        return 1;
    };
    dl_iterate_phdr(look, &search);
    return search.found;
}

// Who touched two bytes of shared memory last. Epochs never repeat, so that old records need no clearing.
struct Touch {
    unsigned block_epoch, warp_epoch;
    int thread;  // or one of these
    static constexpr int MANY_WARPS = -1, MANY_LANES = -2;  // the latter minus the warp's number
};
struct Record {
    Touch write, read;
};
constexpr size_t STATIC_RECORDS = 64 << 10;
Record dynamic_records[MAX_SHARED / 2], static_records[STATIC_RECORDS];

// Whether another thread touched it, with no barrier between.
bool races(const Touch& touch) {
    if (touch.block_epoch != machine.block_epoch || touch.thread == current) return false;
    if (touch.thread == Touch::MANY_WARPS) return true;
    int mine = current / 32, warp = touch.thread < 0 ? Touch::MANY_LANES - touch.thread : touch.thread / 32;
    return warp != mine || touch.warp_epoch == machine.warp_epoch[mine];
}

[[noreturn]] void report_race(void* instruction, const Touch& touch, bool write, bool other_write, size_t at) {
    const char *here = write ? "writes" : "reads", *there = other_write ? "wrote" : "read";
    if (touch.thread < 0)
        fail_at(instruction, "%s byte %zu of shared memory, which others %s since the last barrier", here, at, there);
    uint3 thread = thread_at(touch.thread);
    fail_at(instruction, "%s byte %zu of shared memory, which thread (%u, %u, %u) %s since the last barrier", here, at,
            thread.x, thread.y, thread.z, there);
}

void touch_shared(void* instruction, Record* records, size_t at, size_t size, bool write) {
    if (size == 1) return;  // bytes of a pair may be two threads'
    unsigned block = machine.block_epoch, warp_epoch = machine.warp_epoch[current / 32];
    for (size_t i = at / 2; i < (at + size) / 2; i++) {
        Record& record = records[i];
        if (races(record.write)) report_race(instruction, record.write, write, true, 2 * i);
        if (write) {
            if (races(record.read)) report_race(instruction, record.read, write, false, 2 * i);
            record.write = {block, warp_epoch, current};
            continue;
        }
        Touch& read = record.read;
        if (read.block_epoch == block && read.thread != current) {
            int warp = current / 32;
            int before = read.thread >= 0 ? read.thread / 32 : Touch::MANY_LANES - read.thread;
            if (read.thread == Touch::MANY_WARPS || before != warp) {
                read.thread = Touch::MANY_WARPS;
                continue;
            }
            read.thread = read.warp_epoch == warp_epoch ? Touch::MANY_LANES - warp : current;
        } else
            read.thread = current;
        read.block_epoch = block, read.warp_epoch = warp_epoch;
    }
}

void touch(void* instruction, void* pointer, size_t size, bool write) {
    uintptr_t address = (uintptr_t)pointer;
    if (!machine.running) return;
    if (shared_static.holds(address))
        return touch_shared(instruction, static_records, address - shared_static.begin, size, write);
    if (machine.stacks.holds(address) || images[0].holds(address)) return;
    if (shared_dynamic.holds(address)) {
        size_t at = address - shared_dynamic.begin;
        if (at + size > launched->shared)
            fail_at(instruction, "%s byte %zu of %zu bytes of dynamic shared memory", write ? "writes" : "reads",
                    at + size - 1, (size_t)launched->shared);
        return touch_shared(instruction, dynamic_records, at, size, write);
    }
    if (images[1].holds(address) || !launched->checked) return;
    long long nearest = -1, distance = INT64_MAX;
    for (uint64_t i = 0; i < launched->checked; i++) {
        uintptr_t begin = launched->extents[2 * i], end = launched->extents[2 * i + 1];
        if (begin <= address && address + size <= end) return;
        long long away = address < begin ? begin - address : address + size - end;
        if (begin < end && away < distance) distance = away, nearest = i;
    }
    const char* verb = write ? "writes" : "reads";
    if (nearest < 0) fail_at(instruction, "%s %p, and was given no array", verb, pointer);
    fail_at(instruction, "%s %zu bytes outside its arrays, up to %lld bytes %s argument %lld", verb, size, distance,
            address < launched->extents[2 * nearest] ? "before" : "beyond", nearest);
}

}  // namespace

void begin_checks(const Kernel& what, const Launch& launch) {
    static void* body = nullptr;
    kernel = &what, launched = &launch;
    if (body != (void*)what.body) {
        body = (void*)what.body;
        images[0] = image_of(body), images[1] = image_of(dynamic_shared);
    }
    shared_static = {(uintptr_t)what.shared, (uintptr_t)what.shared_end};
    shared_dynamic = {(uintptr_t)dynamic_shared, (uintptr_t)dynamic_shared + MAX_SHARED + BEYOND};
    if (shared_static.end - shared_static.begin > 2 * STATIC_RECORDS) fail("too much static shared memory");
}

uint64_t offset_in_kernel(void* instruction) {
    uintptr_t address = (uintptr_t)instruction;
    return images[0].holds(address) ? address - images[0].begin : 0;
}

}  // namespace emulated

using emulated::fail_at;
#define HERE __builtin_return_address(0)

// -fsanitize=thread
#define ACCESS(SIZE)                                                                             \
    void __tsan_read##SIZE(void* p) { emulated::touch(HERE, p, SIZE, false); }                   \
    void __tsan_write##SIZE(void* p) { emulated::touch(HERE, p, SIZE, true); }                   \
    void __tsan_unaligned_read##SIZE(void* p) { emulated::touch(HERE, p, SIZE, false); }         \
    void __tsan_unaligned_write##SIZE(void* p) { emulated::touch(HERE, p, SIZE, true); }         \
    void __tsan_volatile_read##SIZE(void* p) { emulated::touch(HERE, p, SIZE, false); }          \
    void __tsan_volatile_write##SIZE(void* p) { emulated::touch(HERE, p, SIZE, true); }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* p, size_t size) { emulated::touch(HERE, p, size, false); }
void __tsan_write_range(void* p, size_t size) { emulated::touch(HERE, p, size, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// The others; the first field of `data` is a place in the source, which the address gives too.
void __ubsan_handle_type_mismatch_v1(void* data, uintptr_t pointer) {
    int alignment = 1 << *((unsigned char*)data + 24);
    fail_at(HERE, "the address %p is not a multiple of %d", (void*)pointer, alignment);
}
void __ubsan_handle_out_of_bounds(void*, uintptr_t index) {
    fail_at(HERE, "index %lld is outside its array", (long long)index);
}
void __ubsan_handle_shift_out_of_bounds(void*, uintptr_t, uintptr_t count) {
    fail_at(HERE, "shifts by %lld bits, as many as the number has, or more", (long long)count);
}
void __ubsan_handle_divrem_overflow(void*, uintptr_t, uintptr_t) { fail_at(HERE, "integer division by zero"); }
}
