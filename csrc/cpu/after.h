// Functions that follow a sum and are no clamp (SiLU, hard swish, PReLU, ...): applied to what an item of work has just
// written, while that is in the cache. In registers they would cost every kernel an exponential's worth of code.
#pragma once

#include <stdint.h>

#include "dispatch.h"
#include "parallel.h"

namespace nnlite {

inline bool has_function(const Activation& act) { return act.kind >= function_activation; }

// y = f(y), where the activation is a function, for pixels that lie one after another: of each the channels
// [first, first + channels) of the sum.
inline void apply_function(const Kernels& k, const Epilogue& epilogue, float* y, int64_t first, int64_t channels,
                           int64_t pixels) {
    const Activation& act = epilogue.act;
    if (act.kind == prelu_activation)
        k.channel_slopes({pixels, channels, epilogue.slope ? epilogue.slope + first : nullptr, y});
    else if (has_function(act))
        k.smooth({pixels * channels, act.kind - function_activation, act.low, act.high, y, nullptr, y});
}

// The same for pixels at `out`, neighbours at once where they lie one after another.
inline void apply_function(const Kernels& k, const Epilogue& epilogue, float* const* out, int64_t pixels, int64_t first,
                           int64_t channels) {
    for (int64_t pixel = 0; pixel < pixels;) {
        int64_t count = 1;
        while (pixel + count < pixels && out[pixel + count] == out[pixel] + count * channels) ++count;
        apply_function(k, epilogue, out[pixel] + first, first, channels, count);
        pixel += count;
    }
}

// The same in a pass of its own over all rows [rows, pixels, channels] of a result.
inline void apply_function_to_all(const Epilogue& epilogue, float* y, int64_t rows, int64_t pixels, int64_t channels) {
    if (!has_function(epilogue.act)) return;
    const int64_t row = pixels * channels;
    parallel_for(rows, grain_for(row * 16), [&](int64_t begin, int64_t end) {
        apply_function(kernels(), epilogue, y + begin * row, 0, channels, (end - begin) * pixels);
    });
}

}  // namespace nnlite
