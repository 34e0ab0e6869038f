// Functions that follow a sum and are no clamp (SiLU, hard swish, ...): applied to what an item of work has just
// written, while that is in the cache. In registers they would cost every kernel an exponential's worth of code.
#pragma once

#include <stdint.h>

#include "dispatch.h"

namespace nnlite {

inline bool has_function(const Activation& act) { return act.kind >= function_activation; }

// y = f(y) for `count` numbers, where `act` is a function.
inline void apply_function(const Kernels& k, const Activation& act, float* y, int64_t count) {
    if (has_function(act)) k.smooth({count, act.kind - function_activation, act.low, act.high, y, nullptr, y});
}

}  // namespace nnlite
