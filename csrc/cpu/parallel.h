// A small thread pool. What is computed never depends on how many threads compute it: callers cut
// their work into chunks by geometry alone, and a chunk's result does not depend on who runs it.
#pragma once

#include <stdint.h>

namespace nnlite {

void set_num_threads(int threads);
int num_threads();

using ChunkFunction = void (*)(const void* body, int64_t begin, int64_t end);

void run_chunks(int64_t items, int64_t grain, ChunkFunction call, const void* body);

// body(begin, end) over [0, items) in chunks of `grain`. Runs in the calling thread alone where there
// is one chunk, where it is called from inside another parallel_for, or while another thread has the pool.
template <class Body>
void parallel_for(int64_t items, int64_t grain, const Body& body) {
    run_chunks(
        items, grain, [](const void* b, int64_t begin, int64_t end) { (*static_cast<const Body*>(b))(begin, end); },
        &body);
}

// Items per chunk so that a chunk does about `least` units of work: waking a thread costs some ten
// microseconds, which a core would have filled with a hundred thousand multiplications.
inline int64_t grain_for(int64_t work_per_item, int64_t least = 1 << 18) {
    const int64_t items = work_per_item > 0 ? least / work_per_item : least;
    return items > 1 ? items : 1;
}

}  // namespace nnlite
