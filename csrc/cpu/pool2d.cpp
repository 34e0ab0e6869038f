// Pooling. Forward, each output pixel gathers from its window; backward, each input pixel from the windows that
// hold it: no two threads ever write the same element. Work is cut into bands of rows (bands.h).

#include <stddef.h>

#include "bands.h"
#include "cpu.h"
#include "dispatch.h"

namespace nnlite {
namespace {

// Rows [begin, end) of image n: of the output, or in a gradient of the input.
Windows windows(const Pool2d& g, const float* x, int64_t n, int64_t begin, int64_t end) {
    return {g.C, g.Q, begin, end, g.R, g.S, g.stride_h, -g.pad_top, g.dilation_h, g.stride_w, -g.pad_left, g.dilation_w,
            x ? x + n * g.H * g.W * g.C : nullptr, g.H, g.W};
}

// What an average divides by: taps inside the input, or inside the padded input. What a window overhangs
// beyond the padding (ceil_mode) never counts.
struct Counted {
    int64_t top, bottom, left, right;
    explicit Counted(const Pool2d& g) : top(0), bottom(g.H), left(0), right(g.W) {
        if (g.count_include_pad)
            top = -g.pad_top, bottom = g.H + g.pad_bottom, left = -g.pad_left, right = g.W + g.pad_right;
    }
};

// body(n, begin, end) over bands of output rows, or of input rows.
template <class Body>
void for_each_output_band(const Pool2d& g, const Body& body) {
    for_each_band(g.N, g.P, g.Q * g.C * g.R * g.S, 4 * g.C * (g.stride_h * g.W + g.Q), body);
}

template <class Body>
void for_each_input_band(const Pool2d& g, const Body& body) {
    const int64_t holders = (g.R / g.stride_h + 1) * (g.S / g.stride_w + 1);
    for_each_band(g.N, g.H, g.W * g.C * holders, 4 * g.C * (g.W + g.Q), body);
}

}  // namespace

void max_pool2d_forward(const Pool2d& g, const float* x, float* y, int32_t* indices) {
    const int64_t image = g.P * g.Q * g.C;
    const bool stream = streams(y, g.N * image, g.C) && (!indices || streams(indices, g.N * image, g.C));
    for_each_output_band(g, [&](int64_t n, int64_t begin, int64_t end) {
        kernels().max_pool_band(
            {windows(g, x, n, begin, end), y + n * image, indices ? indices + n * image : nullptr, stream});
    });
}

void max_pool2d_backward(const Pool2d& g, const float* gy, const int32_t* indices, float* gx) {
    const int64_t image = g.P * g.Q * g.C, source = g.H * g.W * g.C;
    const bool stream = streams(gx, g.N * source, g.C);
    for_each_input_band(g, [&](int64_t n, int64_t begin, int64_t end) {
        PoolGrad t = {};
        t.windows = windows(g, nullptr, n, begin, end);
        t.rows = g.P, t.gy = gy + n * image, t.index = indices + n * image;
        t.gx = gx + n * source, t.stream = stream;
        kernels().max_pool_grad(t);
    });
}

void avg_pool2d_forward(const Pool2d& g, const float* x, float* y) {
    const int64_t image = g.P * g.Q * g.C;
    const bool stream = streams(y, g.N * image, g.C);
    const Counted c(g);
    for_each_output_band(g, [&](int64_t n, int64_t begin, int64_t end) {
        kernels().average_pool_band(
            {windows(g, x, n, begin, end), c.top, c.bottom, c.left, c.right, y + n * image, stream});
    });
}

void avg_pool2d_backward(const Pool2d& g, const float* gy, float* gx) {
    const int64_t image = g.P * g.Q * g.C, source = g.H * g.W * g.C;
    const bool stream = streams(gx, g.N * source, g.C);
    const Counted c(g);
    for_each_input_band(g, [&](int64_t n, int64_t begin, int64_t end) {
        PoolGrad t = {};
        t.windows = windows(g, nullptr, n, begin, end);
        t.rows = g.P, t.gy = gy + n * image;
        t.top = c.top, t.bottom = c.bottom, t.left = c.left, t.right = c.right;
        t.gx = gx + n * source, t.stream = stream;
        kernels().average_pool_grad(t);
    });
}

}  // namespace nnlite
