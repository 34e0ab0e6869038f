// Forward convolution as a matrix product over gathered rows (implicit im2col).
// Dukhan 2019, "The Indirect Convolution Algorithm", https://arxiv.org/abs/1907.02129

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

struct Igemm {
    Workspace workspace;
    Panels panels;
    float *packed, *zeros;

    Igemm(const Conv2d& g, void* memory)
        : workspace(memory),
          panels(kernels(), g.group_K(), g.taps() * g.group_C()),
          packed(workspace.take<float>(g.groups * panels.floats())),
          zeros(workspace.take<float>(g.C)) {}
};

}  // namespace

size_t conv2d_forward_igemm_workspace(const Conv2d& g) { return Igemm(g, nullptr).workspace.size(); }

void conv2d_forward_igemm(const Conv2d& g, const float* x, const float* w, const float* bias, float* y,
                          void* workspace) {
    const Igemm plan(g, workspace);
    memset(plan.zeros, 0, static_cast<size_t>(g.C) * sizeof(float));
    const Gather gather = forward_gather(g, x, y, plan.zeros);
    const int64_t C = g.group_C(), row = g.taps() * C;  // w [K, R·S·C]
    const WeightView view = {w, C, g.group_K(), g.groups, 1, row, g.group_K() * row, g.S * C, C};
    pack_weights(plan.panels, view, gather.h, gather.w, plan.packed);
    gather_gemm(kernels(), gather, plan.panels, plan.packed, C, g.groups, bias);
}

// ---- few input channels (a network's first layer)
//
// Three channels are too few to amortise a tap's row pointers. In a copy of x with its padding the S taps
// of a kernel row meet S·C contiguous elements: R taps of depth S·C instead of R·S of depth C.

namespace {

struct Stem {
    Workspace workspace;
    int64_t rows, columns;  // of the padded copy, as much of it as windows reach
    Panels panels;
    float *packed, *padded;

    Stem(const Conv2d& g, void* memory)
        : workspace(memory),
          rows((g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1),
          columns((g.Q - 1) * g.stride_w + g.S),
          panels(kernels(), g.K, g.taps() * g.C),
          packed(workspace.take<float>(panels.floats())),
          padded(workspace.take<float>(g.N * rows * columns * g.C)) {}
};

void copy_padded_row(const Conv2d& g, const float* x, int64_t h, int64_t columns, float* to) {
    if (h < 0 || h >= g.H) {
        memset(to, 0, static_cast<size_t>(columns * g.C) * sizeof(float));
        return;
    }
    const int64_t left = g.pad_left < columns ? g.pad_left : columns;
    const int64_t middle = g.W < columns - left ? g.W : columns - left;
    const int64_t right = columns - left - middle;
    memset(to, 0, static_cast<size_t>(left * g.C) * sizeof(float));
    memcpy(to + left * g.C, x + h * g.W * g.C, static_cast<size_t>(middle * g.C) * sizeof(float));
    memset(to + (left + middle) * g.C, 0, static_cast<size_t>(right * g.C) * sizeof(float));
}

}  // namespace

size_t conv2d_forward_stem_workspace(const Conv2d& g) { return Stem(g, nullptr).workspace.size(); }

void conv2d_forward_stem(const Conv2d& g, const float* x, const float* w, const float* bias, float* y,
                         void* workspace) {
    const Stem plan(g, workspace);
    const int64_t row = plan.columns * g.C;
    parallel_for(g.N * plan.rows, grain_for(row, 1 << 16), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t n = item / plan.rows, h = item % plan.rows - g.pad_top;
            copy_padded_row(g, x + n * g.H * g.W * g.C, h, plan.columns, plan.padded + item * row);
        }
    });
    const Gather gather = {g.N,
                           forward_axis(g.P, g.stride_h, plan.rows, g.R, 0, g.dilation_h),
                           forward_axis(g.Q, g.stride_w, plan.columns, 1, 0, 1),
                           {plan.rows * row, row, g.C},
                           {g.P * g.Q * g.K, g.Q * g.K, g.K},
                           plan.padded,
                           y,
                           nullptr};
    const int64_t depth = g.S * g.C;
    const WeightView view = {w, depth, g.K, 1, 1, g.R * depth, 0, depth, 0};
    pack_weights(plan.panels, view, gather.h, gather.w, plan.packed);
    gather_gemm(kernels(), gather, plan.panels, plan.packed, depth, 1, bias);
}

}  // namespace nnlite
