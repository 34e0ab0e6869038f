// The threads of a block as fibers that take turns on one thread of the CPU. A fiber runs until it comes to a
// barrier or to an instruction of a whole warp; then the next one runs. What hides mistakes on a real GPU is
// made to show here:
//   - shared memory is full of NaN when a block begins, and so are copies that were not waited for (ptx.h);
//   - NNLITE_EMULATED_ORDER (forward, backward, or a number that shuffles) is the order of turns: results
//     that depend on it lack a barrier;
//   - a barrier that some threads never reach ends the program with a word.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emulation {

constexpr size_t stack_bytes = 64 * 1024;
constexpr size_t slot_bytes = 64;

struct Copy {
    void* to;
    const void* from;
    size_t bytes, valid;  // zeros beyond valid
};

enum class State { ready, at_block_barrier, in_warp, done };

struct Fiber {
    ucontext_t start;
    jmp_buf where;
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    bool started = false;
    State state = State::ready;
    uint3 index = {0, 0, 0};
    unsigned number = 0;
    std::deque<std::vector<Copy>> groups;  // of asynchronous copies, the last one open
};

// What the lanes of a warp show each other. Two sets: a lane may already show the next value while another
// still reads the last one.
struct Warp {
    struct Slots {
        alignas(16) unsigned char bytes[32][slot_bytes];
        template <class T>
        T of(int lane) const {
            T value;
            std::memcpy(&value, bytes[lane], sizeof value);
            return value;
        }
    } slots[2];
    int arrived = 0, lanes = 0, turn = 0;
};

inline std::mutex one_at_a_time;
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Warp> warps;
inline std::vector<unsigned> order;
inline std::vector<uint64_t> shared;  // dynamic shared memory
inline Fiber* running = nullptr;
inline jmp_buf scheduler;
inline unsigned alive = 0, waiting = 0;
inline size_t permitted = 0;  // dynamic shared memory beyond 48 KB, asked for before the launch
inline std::function<void()> body;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulated GPU: %s (block %u %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
                 running ? running->number : 0);
    std::abort();
}

inline int lane() { return static_cast<int>(running->number % 32); }

[[gnu::noinline]] inline void yield() {
    // Not swapcontext: it asks the kernel about signals at every turn.
    if (_setjmp(running->where) == 0) _longjmp(scheduler, 1);
}

inline void release_block() {
    waiting = 0;
    for (unsigned i = 0; i < order.size(); ++i)
        if (fibers[i]->state == State::at_block_barrier) fibers[i]->state = State::ready;
}

inline void block_barrier() {
    if (++waiting == alive) return release_block();
    running->state = State::at_block_barrier;
    yield();
}

// Shows `mine` to the warp and waits until every lane has shown its own.
template <class T>
const Warp::Slots& exchange(const T& mine) {
    static_assert(sizeof(T) <= slot_bytes, "a slot is too small");
    const unsigned first = running->number / 32 * 32;
    Warp& warp = warps[running->number / 32];
    Warp::Slots& slots = warp.slots[warp.turn];
    std::memcpy(slots.bytes[running->number % 32], &mine, sizeof mine);
    if (++warp.arrived < warp.lanes) {
        running->state = State::in_warp;
        yield();
        return slots;
    }
    warp.arrived = 0;
    warp.turn ^= 1;
    for (unsigned i = first; i < first + static_cast<unsigned>(warp.lanes); ++i)
        if (fibers[i]->state == State::in_warp) fibers[i]->state = State::ready;
    return slots;
}

inline void enter() {
    body();
    for (const auto& group : running->groups)
        if (!group.empty()) fail("a thread ends with copies that it never waited for");
    running->state = State::done;
    --alive;
    if (alive && waiting == alive) release_block();
    _longjmp(scheduler, 1);
}

inline void resume(Fiber& fiber) {
    running = &fiber;
    threadIdx = fiber.index;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.where, 1);
    fiber.started = true;
    setcontext(&fiber.start);
}

inline void begin(Fiber& fiber, unsigned number, dim3 block) {
    fiber.number = number;
    fiber.index = {number % block.x, number / block.x % block.y, number / (block.x * block.y)};
    fiber.started = false;
    fiber.state = State::ready;
    fiber.groups.clear();
    fiber.groups.emplace_back();
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = stack_bytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, reinterpret_cast<void (*)()>(&enter), 0);
}

inline void set_order(unsigned threads) {
    const char* wanted = std::getenv("NNLITE_EMULATED_ORDER");
    order.resize(threads);
    for (unsigned i = 0; i < threads; ++i) order[i] = i;
    if (!wanted || !std::strcmp(wanted, "forward")) return;
    if (!std::strcmp(wanted, "backward")) {
        for (unsigned i = 0; i < threads; ++i) order[i] = threads - 1 - i;
        return;
    }
    uint32_t state = static_cast<uint32_t>(std::atoi(wanted)) * 2654435761u + 1;
    for (unsigned i = threads; i > 1; --i) {
        state = state * 1664525u + 1013904223u;
        std::swap(order[i - 1], order[state % i]);
    }
}

inline void run_block(dim3 block, size_t shared_bytes) {
    const unsigned threads = block.x * block.y * block.z;
    shared.assign(shared_bytes / 8 + 2, ~uint64_t(0));
    for (unsigned i = 0; i < threads; ++i) begin(*fibers[i], i, block);
    warps.resize((threads + 31) / 32);
    for (size_t w = 0; w < warps.size(); ++w) {
        warps[w].arrived = warps[w].turn = 0;
        warps[w].lanes = static_cast<int>(std::min<size_t>(32, threads - 32 * w));
    }
    alive = threads;
    waiting = 0;
    while (alive) {
        bool moved = false;
        for (const unsigned i : order) {
            if (fibers[i]->state != State::ready) continue;
            moved = true;
            resume(*fibers[i]);
        }
        if (!moved) fail("threads wait at a barrier that others never reach");
    }
}

template <class Call>
void run(dim3 grid, dim3 block, size_t shared_bytes, const Call& call) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const unsigned threads = block.x * block.y * block.z;
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    set_order(threads);
    gridDim = grid;
    blockDim = block;
    body = [&] { call(); };
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                run_block(block, shared_bytes);
            }
}

}  // namespace emulation
