// Pooling. Forward, each output pixel lists the window's elements inside the input; backward, each input
// pixel lists the windows that hold it: both are gathers, so no two threads ever write the same element.

#include <stddef.h>

#include "cpu.h"
#include "dispatch.h"
#include "parallel.h"

namespace nnlite {
namespace {

// A global pooling has a window as large as the input: longer lists go through in several calls.
constexpr int max_list = 256;

// Calls flush(count, more) with lists of at most max_list; at least once.
template <class Flush>
class List {
   public:
    explicit List(const Flush& flush) : flush_(flush) {}
    int next() {
        if (count_ == max_list) {
            flush_(count_, more_);
            more_ = true;
            count_ = 0;
        }
        return count_++;
    }
    void finish() {
        if (count_ > 0 || !more_) flush_(count_, more_);
    }

   private:
    const Flush& flush_;
    int count_ = 0;
    bool more_ = false;
};

// Taps r for which position·stride - pad + r·dilation lies in [0, size): [begin, end).
struct Taps {
    int64_t begin, end;
    Taps(int64_t position, int64_t stride, int64_t pad, int64_t dilation, int64_t taps, int64_t size) {
        const int64_t start = position * stride - pad;
        begin = start < 0 ? (-start + dilation - 1) / dilation : 0;
        end = start < size ? (size - start + dilation - 1) / dilation : 0;
        if (end > taps) end = taps;
        if (begin > end) begin = end;
    }
    int64_t count() const { return end - begin; }
};

// body(n, p, q, window rows, window columns) over all output pixels.
template <class Body>
void for_each_window(const Pool2d& g, const Body& body) {
    parallel_for(g.N * g.P, grain_for(g.Q * g.C * g.R * g.S), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t n = item / g.P, p = item % g.P;
            const Taps rows(p, g.stride_h, g.pad_top, g.dilation_h, g.R, g.H);
            for (int64_t q = 0; q < g.Q; ++q)
                body(n, p, q, rows, Taps(q, g.stride_w, g.pad_left, g.dilation_w, g.S, g.W));
        }
    });
}

// visit(p, q) over the windows of image n that hold input pixel (h, w), in row-major order.
template <class Visit>
void for_each_holder(const Pool2d& g, int64_t h, int64_t w, const Visit& visit) {
    for (int64_t r = g.R - 1; r >= 0; --r) {
        const int64_t y = h + g.pad_top - r * g.dilation_h;
        if (y < 0 || y % g.stride_h || y / g.stride_h >= g.P) continue;
        for (int64_t s = g.S - 1; s >= 0; --s) {
            const int64_t x = w + g.pad_left - s * g.dilation_w;
            if (x < 0 || x % g.stride_w || x / g.stride_w >= g.Q) continue;
            visit(y / g.stride_h, x / g.stride_w);
        }
    }
}

template <class Body>
void for_each_input(const Pool2d& g, const Body& body) {
    const int64_t holders = (g.R / g.stride_h + 1) * (g.S / g.stride_w + 1);
    parallel_for(g.N * g.H, grain_for(g.W * g.C * holders), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item)
            for (int64_t w = 0; w < g.W; ++w) body(item / g.H, item % g.H, w);
    });
}

// Elements that window (p,q) averages over: inside the input, or inside the padded input. What a window
// overhangs beyond the padding (ceil_mode) never counts.
float share(const Pool2d& g, int64_t p, int64_t q) {
    const bool pads = g.count_include_pad != 0;
    const int64_t height = pads ? g.pad_top + g.H + g.pad_bottom : g.H;
    const int64_t width = pads ? g.pad_left + g.W + g.pad_right : g.W;
    const Taps rows(p, g.stride_h, pads ? 0 : g.pad_top, g.dilation_h, g.R, height);
    const Taps columns(q, g.stride_w, pads ? 0 : g.pad_left, g.dilation_w, g.S, width);
    return 1.0f / static_cast<float>(rows.count() * columns.count());
}

}  // namespace

void max_pool2d_forward(const Pool2d& g, const float* x, float* y, int32_t* indices) {
    const Kernels& k = kernels();
    for_each_window(g, [&](int64_t n, int64_t p, int64_t q, const Taps& rows, const Taps& columns) {
        const float* list[max_list];
        int32_t at[max_list];
        const int64_t out = ((n * g.P + p) * g.Q + q) * g.C;
        const auto flush = [&](int64_t count, bool more) {
            k.max_rows(count, list, at, g.C, more, y + out, indices ? indices + out : nullptr);
        };
        List to(flush);
        for (int64_t r = rows.begin; r < rows.end; ++r)
            for (int64_t s = columns.begin; s < columns.end; ++s) {
                const int64_t h = p * g.stride_h - g.pad_top + r * g.dilation_h;
                const int64_t w = q * g.stride_w - g.pad_left + s * g.dilation_w;
                const int i = to.next();
                at[i] = static_cast<int32_t>(h * g.W + w);
                list[i] = x + ((n * g.H + h) * g.W + w) * g.C;
            }
        to.finish();
    });
}

void max_pool2d_backward(const Pool2d& g, const float* gy, const int32_t* indices, float* gx) {
    const Kernels& k = kernels();
    for_each_input(g, [&](int64_t n, int64_t h, int64_t w) {
        const float* list[max_list];
        const int32_t* index[max_list];
        float* out = gx + ((n * g.H + h) * g.W + w) * g.C;
        const auto flush = [&](int64_t count, bool more) {
            k.sum_where(count, list, index, static_cast<int32_t>(h * g.W + w), g.C, more, out);
        };
        List to(flush);
        for_each_holder(g, h, w, [&](int64_t p, int64_t q) {
            const int64_t at = ((n * g.P + p) * g.Q + q) * g.C;
            const int i = to.next();
            list[i] = gy + at;
            index[i] = indices + at;
        });
        to.finish();
    });
}

void avg_pool2d_forward(const Pool2d& g, const float* x, float* y) {
    const Kernels& k = kernels();
    for_each_window(g, [&](int64_t n, int64_t p, int64_t q, const Taps& rows, const Taps& columns) {
        const float* list[max_list];
        float weights[max_list];
        const float weight = share(g, p, q);
        float* out = y + ((n * g.P + p) * g.Q + q) * g.C;
        const auto flush = [&](int64_t count, bool more) { k.weighted_sum(count, list, weights, g.C, more, out); };
        List to(flush);
        for (int64_t r = rows.begin; r < rows.end; ++r)
            for (int64_t s = columns.begin; s < columns.end; ++s) {
                const int64_t h = p * g.stride_h - g.pad_top + r * g.dilation_h;
                const int64_t w = q * g.stride_w - g.pad_left + s * g.dilation_w;
                const int i = to.next();
                weights[i] = weight;
                list[i] = x + ((n * g.H + h) * g.W + w) * g.C;
            }
        to.finish();
    });
}

void avg_pool2d_backward(const Pool2d& g, const float* gy, float* gx) {
    const Kernels& k = kernels();
    for_each_input(g, [&](int64_t n, int64_t h, int64_t w) {
        const float* list[max_list];
        float weights[max_list];
        float* out = gx + ((n * g.H + h) * g.W + w) * g.C;
        const auto flush = [&](int64_t count, bool more) { k.weighted_sum(count, list, weights, g.C, more, out); };
        List to(flush);
        for_each_holder(g, h, w, [&](int64_t p, int64_t q) {
            const int i = to.next();
            weights[i] = share(g, p, q);
            list[i] = gy + ((n * g.P + p) * g.Q + q) * g.C;
        });
        to.finish();
    });
}

}  // namespace nnlite
