// Included before every source but those of the instruction sets (build.py): lets a test cut all work
// into pieces of one item. Samples are small and would otherwise run as one chunk, so that no border
// between chunks and no second thread would ever meet them.
#pragma once

#include "../../csrc/cpu/parallel.h"

namespace nnlite {

inline bool finest_grain = false;

inline int64_t own_grain_for(int64_t work_per_item, int64_t least = 1 << 18) {
    return finest_grain ? 1 : grain_for(work_per_item, least);
}

}  // namespace nnlite

#define grain_for own_grain_for
