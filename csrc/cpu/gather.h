// A convolution seen from its output: every output position gathers from a grid of source positions.
//
//   out[n,i,j,:] = sum over taps (a,b) of  source[n, i·step + offset_h(a), j·step + offset_w(b), :] · w(a,b)
//
// The forward convolution is one such gather over x. The input gradient is stride_h x stride_w of them
// over gy, one for each phase of the input positions: within a phase the same taps meet every position
// and the source moves by one, so that no zero is ever multiplied (a "dilated" gy would be full of them).
#pragma once

#include <stdint.h>

#include "../include/params.h"

namespace nnlite {

struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
};

// The integers i in [0, count) with 0 <= first + i·step < size, step > 0.
inline Range range_inside(int64_t first, int64_t step, int64_t size, int64_t count) {
    Range range = {first < 0 ? (-first + step - 1) / step : 0, first < size ? (size - first + step - 1) / step : 0};
    if (range.end > count) range.end = count;
    if (range.begin > range.end) range.begin = range.end;
    return range;
}

// One spatial axis. Tap a of the gather is tap first_tap + a·tap_step of the weight.
struct Axis {
    int64_t out;     // output positions
    int64_t step;    // source positions from one output position to the next
    int64_t source;  // source positions that exist
    int64_t taps;
    int64_t first_offset, offset_step;  // offset(a) = first_offset + a·offset_step
    int64_t first_tap, tap_step;

    // Output positions for which all taps lie in the source: [begin, end). Taps of output o that do: likewise.
    Range inside() const;
    Range inside(int64_t o) const;

    int64_t offset(int64_t tap) const { return first_offset + tap * offset_step; }
    int64_t weight_tap(int64_t tap) const { return first_tap + tap * tap_step; }
};

inline Range Axis::inside(int64_t o) const {
    return range_inside(o * step + first_offset, offset_step, source, taps);
}

inline Range Axis::inside() const {
    if (taps == 0) return {0, 0};
    const Range first = range_inside(offset(0), step, source, out);
    const Range last = range_inside(offset(taps - 1), step, source, out);
    const int64_t begin = first.begin > last.begin ? first.begin : last.begin;
    const int64_t end = first.end < last.end ? first.end : last.end;
    return {begin < end ? begin : end, end};
}

inline Axis forward_axis(int64_t out, int64_t stride, int64_t source, int64_t taps, int64_t pad, int64_t dilation) {
    return {out, stride, source, taps, -pad, dilation, 0, 1};
}

// The source positions phase - pad, phase - pad + stride, ... seen as a source of their own, from position `start` of
// the whole on: it is met by the taps phase, phase + stride, ..., and moves by one from output to output.
inline Axis source_phase_axis(int64_t phase, int64_t out, int64_t stride, int64_t source, int64_t taps, int64_t pad,
                              int64_t* start) {
    const int64_t first = phase - pad;
    *start = (first % stride + stride) % stride;
    const int64_t count = *start < source ? (source - *start + stride - 1) / stride : 0;
    return {out, 1, count, (taps - phase + stride - 1) / stride, (first - *start) / stride, 1, phase, stride};
}

inline int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// The input positions phase, phase + stride, ... of `size`. Position h meets output p through tap r where
// p·stride = h + pad - r·dilation; for h = phase + i·stride that holds for every stride/gcd-th tap, and
// then p = i + (phase + pad - r·dilation) / stride.
// Taps are listed from the last to the first, so that they meet the source in ascending order as in the
// forward convolution.
inline Axis phase_axis(int64_t phase, int64_t size, int64_t stride, int64_t out, int64_t taps, int64_t pad,
                       int64_t dilation) {
    const int64_t tap_step = stride / greatest_common_divisor(stride, dilation);
    int64_t first = 0;
    while (first < tap_step && (phase + pad - first * dilation) % stride != 0) ++first;
    const int64_t count = first < tap_step && first < taps ? (taps - first + tap_step - 1) / tap_step : 0;
    const int64_t positions = phase < size ? (size - phase + stride - 1) / stride : 0;
    const int64_t last = count > 0 ? first + (count - 1) * tap_step : 0;
    return {positions, 1, out, count, (phase + pad - last * dilation) / stride, tap_step * dilation / stride,
            last,      -tap_step};
}

// Where a grid [N, height, width, channels] lies: strides in elements.
struct Grid {
    int64_t image, row, pixel;
};

// For gathers of whole kernel rows (first layers): copies, with their padding, of the kernel rows that
// overhang the source at the left or the right. copies [N, source rows, columns, length]
struct Border {
    const float* copies;
    Range inner;  // output columns whose kernel rows do not overhang
    int64_t length;

    int64_t columns(int64_t out) const { return out - inner.size(); }
    int64_t column(int64_t j) const { return j < inner.begin ? j : j - inner.size(); }
};

struct Gather {
    int64_t N;
    Axis h, w;
    Grid source_grid, out_grid;
    const float* source;
    float* out;
    const float* zeros;  // what padding points to: as long as a source pixel (all its channels)
    Border border = {};

    int64_t rows() const { return N * h.out * w.out; }
    int64_t taps() const { return h.taps * w.taps; }

    // The source pixel that tap (a,b) meets from output (i,j) of image n, or zeros.
    const float* at(int64_t n, int64_t i, int64_t j, int64_t a, int64_t b) const {
        const int64_t y = i * h.step + h.offset(a), x = j * w.step + w.offset(b);
        if (y < 0 || y >= h.source) return zeros;
        if (border.copies) {
            if (j < border.inner.begin || j >= border.inner.end)
                return border.copies + ((n * h.source + y) * border.columns(w.out) + border.column(j)) * border.length;
        } else if (x < 0 || x >= w.source) {
            return zeros;
        }
        return source + n * source_grid.image + y * source_grid.row + x * source_grid.pixel;
    }
    float* to(int64_t n, int64_t i, int64_t j) const {
        return out + n * out_grid.image + i * out_grid.row + j * out_grid.pixel;
    }
};

inline Gather forward_gather(const Conv2d& g, const float* x, float* y, const float* zeros) {
    return {g.N,
            forward_axis(g.P, g.stride_h, g.H, g.R, g.pad_top, g.dilation_h),
            forward_axis(g.Q, g.stride_w, g.W, g.S, g.pad_left, g.dilation_w),
            {g.H * g.W * g.C, g.W * g.C, g.C},
            {g.P * g.Q * g.K, g.Q * g.K, g.K},
            x,
            y,
            zeros};
}

inline Gather grad_input_gather(const Conv2d& g, const float* gy, float* gx, const float* zeros, int64_t phase_h,
                                int64_t phase_w) {
    return {g.N,
            phase_axis(phase_h, g.H, g.stride_h, g.P, g.R, g.pad_top, g.dilation_h),
            phase_axis(phase_w, g.W, g.stride_w, g.Q, g.S, g.pad_left, g.dilation_w),
            {g.P * g.Q * g.K, g.Q * g.K, g.K},
            {g.H * g.W * g.C, g.stride_h * g.W * g.C, g.stride_w * g.C},
            gy,
            gx + (phase_h * g.W + phase_w) * g.C,
            zeros};
}

// The part of a forward convolution (no dilation) whose taps meet one phase of the source positions.
inline Gather source_phase_gather(const Conv2d& g, const float* x, float* y, int64_t phase_h, int64_t phase_w) {
    int64_t top, left;
    const Axis h = source_phase_axis(phase_h, g.P, g.stride_h, g.H, g.R, g.pad_top, &top);
    const Axis w = source_phase_axis(phase_w, g.Q, g.stride_w, g.W, g.S, g.pad_left, &left);
    return {g.N,
            h,
            w,
            {g.H * g.W * g.C, g.stride_h * g.W * g.C, g.stride_w * g.C},
            {g.P * g.Q * g.K, g.Q * g.K, g.K},
            x + (top * g.W + left) * g.C,
            y,
            nullptr};
}

// body(gather, offset) for each phase, whose first position lies so many elements into gx.
template <class Body>
void for_each_phase(const Conv2d& g, const float* gy, float* gx, const float* zeros, const Body& body) {
    for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
        for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w)
            body(grad_input_gather(g, gy, gx, zeros, phase_h, phase_w), (phase_h * g.W + phase_w) * g.C);
}

}  // namespace nnlite
