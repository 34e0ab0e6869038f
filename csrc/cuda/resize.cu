// Resizing by weighted rows and columns: nearest, bilinear, cubic, with or without antialiasing, and, with the taps of the
// transposed matrix, their gradients. Which rows of x a row of y is made of, and how, comes from the caller.
//
// A thread makes four neighbouring channels of one pixel of y (one where channels do not come in fours) and gathers: no
// atomics. Rows outside, columns inside, as they are weighed. Limited by memory: neighbours share their taps in L1.

#include "cuda.h"
#include "common.h"

namespace nnlite {
namespace cuda {

namespace {

struct Taps {  // of the rows of y, or of its columns
    const int *start, *index;
    const float* weight;
};

template <int width>
__global__ void __launch_bounds__(256) resize_pixels(int pixels, int C, int H, int W, int P, int Q, const float* x,
                                                     const Taps rows, const Taps columns, float* y) {
    const unsigned groups = C / width, at = blockIdx.x * 256 + threadIdx.x;
    const int pixel = int(at / groups), c = int(at % groups) * width;
    if (pixel >= pixels) return;
    const int q = pixel % Q, p = pixel / Q % P, n = pixel / Q / P;
    const int begin = columns.start[q], end = columns.start[q + 1], last = rows.start[p + 1];
    Pack<float, width> sum = {};
    for (int a = rows.start[p]; a < last; ++a) {
        const float* row = x + int64_t(n * H + rows.index[a]) * W * C + c;
        Pack<float, width> of_row = {};
        for (int b = begin; b < end; ++b) {
            const auto seen = *reinterpret_cast<const Pack<float, width>*>(row + columns.index[b] * C);
            const float weight = columns.weight[b];
#pragma unroll
            for (int i = 0; i < width; ++i) of_row.at[i] += weight * seen.at[i];
        }
        const float weight = rows.weight[a];
#pragma unroll
        for (int i = 0; i < width; ++i) sum.at[i] += weight * of_row.at[i];
    }
    *reinterpret_cast<Pack<float, width>*>(y + int64_t(pixel) * C + c) = sum;
}

}  // namespace

void resize(const Resize& g, const float* x, const int32_t* row_start, const int32_t* rows, const float* row_weights,
            const int32_t* column_start, const int32_t* columns, const float* column_weights, float* y,
            cudaStream_t stream) {
    const bool four = g.C % 4 == 0 && aligned(x, 16) && aligned(y, 16);
    const int64_t threads = g.N * g.P * g.Q * (four ? g.C / 4 : g.C);
    if (!threads) return;
    start({"resize", dim3(unsigned(ceil_div(threads, 256))), 256, 0, stream}, four ? resize_pixels<4> : resize_pixels<1>,
          int(g.N * g.P * g.Q), int(g.C), int(g.H), int(g.W), int(g.P), int(g.Q), x, Taps{row_start, rows, row_weights},
          Taps{column_start, columns, column_weights}, y);
}

}  // namespace cuda
}  // namespace nnlite
