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

// Where every pixel meets itself alone, pictures are one long line: row pointers are then found tile by tile.
Conv2d in_one_line(Conv2d g) {
    const bool alone = g.taps() == 1 && g.stride_h == 1 && g.stride_w == 1 && g.P == g.H && g.Q == g.W;
    if (!alone || g.pad_top || g.pad_left) return g;
    g.W = g.Q = g.N * g.H * g.W;
    g.N = g.H = g.P = 1;
    return g;
}

struct Igemm {
    Workspace workspace;
    Panels panels;
    float *packed, *zeros;

    // g is in one line
    Igemm(const Conv2d& g, bool prepared, void* memory)
        : workspace(memory), panels(kernels(), g.group_K(), g.taps() * g.group_C()) {
        const Gather gather = forward_gather(g, nullptr, nullptr, nullptr);
        packed = workspace.take<float>(prepared ? 0 : gather_gemm_scratch(kernels(), gather, panels, g.groups));
        zeros = workspace.take<float>(g.C);
    }

    // w [K, R·S·C]
    static WeightView view(const Conv2d& g, const float* w) {
        const int64_t C = g.group_C(), row = g.taps() * C;
        return {w, C, g.group_K(), g.groups, 1, row, g.group_K() * row, g.S * C, C};
    }
};

void igemm(const Conv2d& picture, const float* x, const float* w, const float* packed, const Epilogue& epilogue,
           float* y, void* workspace) {
    const Conv2d g = in_one_line(picture);
    const Igemm plan(g, packed != nullptr, workspace);
    memset(plan.zeros, 0, static_cast<size_t>(g.C) * sizeof(float));
    const Gather gather = forward_gather(g, x, y, plan.zeros);
    gather_gemm(kernels(), gather, plan.panels, Igemm::view(g, w), packed, epilogue, plan.packed);
}

}  // namespace

size_t conv2d_forward_igemm_workspace(const Conv2d& g) {
    return Igemm(in_one_line(g), false, nullptr).workspace.size();
}
size_t conv2d_forward_igemm_prepared_workspace(const Conv2d& g) {
    return Igemm(in_one_line(g), true, nullptr).workspace.size();
}

size_t conv2d_forward_igemm_prepared_size(const Conv2d& g) {
    return static_cast<size_t>(g.groups * Igemm(g, true, nullptr).panels.floats()) * sizeof(float);
}

void conv2d_forward_igemm_prepare(const Conv2d& g, const float* w, void* prepared) {
    const Gather gather = forward_gather(g, nullptr, nullptr, nullptr);
    pack_weights(kernels(), Igemm(g, true, nullptr).panels, Igemm::view(g, w), gather.h, gather.w,
                 static_cast<float*>(prepared));
}

void conv2d_forward_igemm(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual,
                          float* y, void* workspace) {
    igemm(g, x, w, nullptr, epilogue_of(g.act, g.K, bias, residual), y, workspace);
}

void conv2d_forward_igemm_prepared(const Conv2d& g, const float* x, const void* prepared, const float* bias,
                                   const float* residual, float* y, void* workspace) {
    igemm(g, x, nullptr, static_cast<const float*>(prepared), epilogue_of(g.act, g.K, bias, residual), y, workspace);
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
    Border border;
    float *packed, *zeros, *copies;

    Stem(const Conv2d& g, bool prepared, void* memory)
        : workspace(memory), panels(kernels(), g.K, g.taps() * g.C) {
        zeros = workspace.take<float>(g.S * g.C);
        border.inner = forward_axis(g.Q, g.stride_w, g.W, g.S, g.pad_left, g.dilation_w).inside();
        border.length = g.S * g.C;
        copies = workspace.take<float>(g.N * g.H * border.columns(g.Q) * border.length);
        border.copies = copies;
        packed = workspace.take<float>(
            prepared ? 0 : gather_gemm_scratch(kernels(), gather(g, nullptr, nullptr), panels, 1));
    }

    Gather gather(const Conv2d& g, const float* x, float* y) const {
        Gather rows = forward_gather(g, x, y, zeros);
        rows.w.taps = 1;
        rows.border = border;
        return rows;
    }

    static WeightView view(const Conv2d& g, const float* weights) {
        const int64_t depth = g.S * g.C;
        return {weights, depth, g.K, 1, 1, g.R * depth, 0, depth, 0};
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

void stem(const Conv2d& g, const float* x, const float* w, const float* packed, const Epilogue& epilogue, float* y,
          void* workspace) {
    const Stem plan(g, packed != nullptr, workspace);
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
    gather_gemm(kernels(), plan.gather(g, x, y), plan.panels, Stem::view(g, w), packed, epilogue, plan.packed);
}

}  // namespace

size_t conv2d_forward_stem_workspace(const Conv2d& g) { return Stem(g, false, nullptr).workspace.size(); }
size_t conv2d_forward_stem_prepared_workspace(const Conv2d& g) { return Stem(g, true, nullptr).workspace.size(); }

size_t conv2d_forward_stem_prepared_size(const Conv2d& g) {
    return static_cast<size_t>(Stem(g, true, nullptr).panels.floats()) * sizeof(float);
}

void conv2d_forward_stem_prepare(const Conv2d& g, const float* w, void* prepared) {
    const Stem plan(g, true, nullptr);
    const Gather gather = plan.gather(g, nullptr, nullptr);
    pack_weights(kernels(), plan.panels, Stem::view(g, w), gather.h, gather.w, static_cast<float*>(prepared));
}

void conv2d_forward_stem(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual,
                         float* y, void* workspace) {
    stem(g, x, w, nullptr, epilogue_of(g.act, g.K, bias, residual), y, workspace);
}

void conv2d_forward_stem_prepared(const Conv2d& g, const float* x, const void* prepared, const float* bias,
                                  const float* residual, float* y, void* workspace) {
    stem(g, x, nullptr, static_cast<const float*>(prepared), epilogue_of(g.act, g.K, bias, residual), y, workspace);
}

}  // namespace nnlite
