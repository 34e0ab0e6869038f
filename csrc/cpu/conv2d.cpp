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
          packed(workspace.take<float>(
              gather_gemm_scratch(kernels(), forward_gather(g, nullptr, nullptr, nullptr), panels, g.groups))),
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
    gather_gemm(kernels(), gather, plan.panels, view, bias, plan.packed);
}

// ---- few input channels (a network's first layer)
//
// Three channels are too few to amortise a tap's row pointers. But the S taps of a kernel row meet S
// adjacent pixels, S·C contiguous elements: R taps of depth S·C instead of R·S of depth C. The few kernel
// rows that overhang the input at the left or right are copied out with their padding.

namespace {

struct Stem {
    Workspace workspace;
    Panels panels;
    Axis w;
    Border border;
    float *packed, *zeros, *copies;

    Stem(const Conv2d& g, void* memory)
        : workspace(memory),
          panels(kernels(), g.K, g.taps() * g.C),
          w(forward_axis(g.Q, g.stride_w, g.W, g.S, g.pad_left, g.dilation_w)),
          packed(workspace.take<float>(panels.floats())),
          zeros(workspace.take<float>(g.S * g.C)) {
        border.inner = w.inside();
        border.length = g.S * g.C;
        copies = workspace.take<float>(g.N * g.H * border.columns(g.Q) * border.length);
        border.copies = copies;
        w.taps = 1;
    }
};

// The kernel row of output column q over the input row x [W,C].
void copy_overhanging(const Conv2d& g, const float* x, int64_t q, float* to) {
    const int64_t first = q * g.stride_w - g.pad_left;
    for (int64_t s = 0; s < g.S; ++s)
        for (int64_t c = 0; c < g.C; ++c) {
            const int64_t column = first + s;
            *to++ = column >= 0 && column < g.W ? x[column * g.C + c] : 0.0f;
        }
}

}  // namespace

size_t conv2d_forward_stem_workspace(const Conv2d& g) { return Stem(g, nullptr).workspace.size(); }

void conv2d_forward_stem(const Conv2d& g, const float* x, const float* w, const float* bias, float* y,
                         void* workspace) {
    const Stem plan(g, workspace);
    const Border& border = plan.border;
    const int64_t depth = border.length, columns = border.columns(g.Q);
    memset(plan.zeros, 0, static_cast<size_t>(depth) * sizeof(float));
    parallel_for(g.N * g.H, grain_for(columns * depth, 1 << 16), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
            for (int64_t q = 0; q < g.Q; ++q)
                if (q < border.inner.begin || q >= border.inner.end)
                    copy_overhanging(g, x + row * g.W * g.C, q,
                                     plan.copies + (row * columns + border.column(q)) * depth);
    });
    Gather gather = forward_gather(g, x, y, plan.zeros);
    gather.w = plan.w;
    gather.border = border;
    const WeightView view = {w, depth, g.K, 1, 1, g.R * depth, 0, depth, 0};
    gather_gemm(kernels(), gather, plan.panels, view, bias, plan.packed);
}

}  // namespace nnlite
