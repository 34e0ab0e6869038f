// Input gradient of the convolution, dense and grouped: a gather over gy per phase of the input positions (gather.h).
// The transposed convolution is the same with what may follow a sum.

#include <string.h>

#include "after.h"
#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "workspace.h"

namespace nnlite {
namespace {

Panels panels_of(const Conv2d& g, const Gather& gather) {
    return Panels(kernels(), g.group_C(), gather.taps() * g.group_K());
}

// w [K, R·S·C]
WeightView view_of(const Conv2d& g, const float* w) {
    const int64_t C = g.group_C(), K = g.group_K(), row = g.taps() * C;
    return {w, K, C, g.groups, row, 1, K * row, g.S * C, C};
}

struct GradInput {
    Workspace workspace;
    float *packed, *zeros;

    GradInput(const Conv2d& g, bool prepared, void* memory) : workspace(memory) {
        int64_t most = 0;  // one phase at a time
        for_each_phase(g, nullptr, nullptr, nullptr, [&](const Gather& gather, int64_t) {
            const int64_t floats = gather_gemm_scratch(kernels(), gather, panels_of(g, gather), g.groups);
            if (floats > most) most = floats;
        });
        packed = workspace.take<float>(prepared ? 0 : most);
        zeros = workspace.take<float>(g.K);
    }
};

void grad_input(const Conv2d& g, const float* gy, const float* w, const float* packed, const Epilogue& epilogue,
                float* gx, void* workspace) {
    const GradInput plan(g, packed != nullptr, workspace);
    memset(plan.zeros, 0, static_cast<size_t>(g.K) * sizeof(float));
    // A phase's pixels lie apart: a function of a few channels at a time takes longer than another pass.
    const bool later = has_function(epilogue.act) && g.stride_w > 1 && g.group_C() < 16;
    for_each_phase(g, gy, gx, plan.zeros, [&](const Gather& gather, int64_t offset) {
        const Panels panels = panels_of(g, gather);
        Epilogue own = epilogue;
        if (own.residual) own.residual += offset;
        if (later) own.act.kind = no_activation;
        gather_gemm(kernels(), gather, panels, view_of(g, w), packed, own, plan.packed);
        if (packed) packed += g.groups * panels.floats();
    });
    if (later) apply_function_to_all(epilogue, gx, g.N * g.H, g.W, g.C);
}

}  // namespace

size_t conv2d_grad_input_igemm_workspace(const Conv2d& g) { return GradInput(g, false, nullptr).workspace.size(); }

void conv2d_grad_input_igemm(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace) {
    grad_input(g, gy, w, nullptr, {}, gx, workspace);
}

size_t conv_transpose2d_forward_igemm_workspace(const Conv2d& g) { return conv2d_grad_input_igemm_workspace(g); }
size_t conv_transpose2d_forward_igemm_prepared_workspace(const Conv2d& g) {
    return GradInput(g, true, nullptr).workspace.size();
}

size_t conv_transpose2d_forward_igemm_prepared_size(const Conv2d& g) {
    int64_t floats = 0;
    for_each_phase(g, nullptr, nullptr, nullptr,
                   [&](const Gather& gather, int64_t) { floats += g.groups * panels_of(g, gather).floats(); });
    return static_cast<size_t>(floats) * sizeof(float);
}

void conv_transpose2d_forward_igemm_prepare(const Conv2d& g, const float* w, void* prepared) {
    float* to = static_cast<float*>(prepared);
    for_each_phase(g, nullptr, nullptr, nullptr, [&](const Gather& gather, int64_t) {
        const Panels panels = panels_of(g, gather);
        pack_weights(kernels(), panels, view_of(g, w), gather.h, gather.w, to);
        to += g.groups * panels.floats();
    });
}

void conv_transpose2d_forward_igemm(const Conv2d& g, const float* x, const float* w, const float* bias,
                                    const float* residual, float* y, void* workspace) {
    grad_input(g, x, w, nullptr, epilogue_of(g.act, g.C, bias, residual), y, workspace);
}

void conv_transpose2d_forward_igemm_prepared(const Conv2d& g, const float* x, const void* prepared, const float* bias,
                                             const float* residual, float* y, void* workspace) {
    grad_input(g, x, nullptr, static_cast<const float*>(prepared), epilogue_of(g.act, g.C, bias, residual), y,
               workspace);
}

}  // namespace nnlite
