// Resizing: a linear map along each axis, given as the few source rows and columns that each row and column of the
// result is a weighted sum of. Nearest, linear and cubic, forward and gradient, are this one map with other tables.

#include "bands.h"
#include "cpu.h"
#include "dispatch.h"
#include "parallel.h"

namespace nnlite {

void resize(const Resize& g, const float* x, const int32_t* row_start, const int32_t* row, const float* row_weight,
            const int32_t* column_start, const int32_t* column, const float* column_weight, float* y) {
    const bool stream = streams(y, g.N * g.P * g.Q * g.C, g.C);
    const int64_t taps = (g.row_taps / g.P + 1) * (g.column_taps / g.Q + 1);
    parallel_for(g.N * g.P, grain_for(g.Q * g.C * taps, 1 << 16), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t p = i % g.P;
            const int32_t first = row_start[p];
            kernels().resize_row({g.C, g.W, g.Q, row_start[p + 1] - first, row + first, row_weight + first, column_start,
                                  column, column_weight, x + i / g.P * g.H * g.W * g.C, y + i * g.Q * g.C, stream});
        }
    });
}

}  // namespace nnlite
