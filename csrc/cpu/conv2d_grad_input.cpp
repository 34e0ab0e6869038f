// Input gradient of the convolution, dense and grouped: a gather over gy per phase of the input positions (gather.h).

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {

namespace {

struct GradInput {
    Workspace workspace;
    float *packed, *zeros;

    // One phase's panels at a time; phase (0,0) need not have the most taps, so room for all of them.
    GradInput(const Conv2d& g, void* memory)
        : workspace(memory),
          packed(workspace.take<float>(g.groups *
                                       Panels(kernels(), g.group_C(), g.taps() * g.group_K()).floats())),
          zeros(workspace.take<float>(g.K)) {}
};

}  // namespace

size_t conv2d_grad_input_igemm_workspace(const Conv2d& g) { return GradInput(g, nullptr).workspace.size(); }

void conv2d_grad_input_igemm(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace) {
    const GradInput plan(g, workspace);
    memset(plan.zeros, 0, static_cast<size_t>(g.K) * sizeof(float));
    const int64_t C = g.group_C(), K = g.group_K(), row = g.taps() * C;  // w [K, R·S·C]
    const WeightView view = {w, K, C, g.groups, row, 1, K * row, g.S * C, C};
    for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
        for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
            const Gather gather = grad_input_gather(g, gy, gx, plan.zeros, phase_h, phase_w);
            const Panels panels(kernels(), C, gather.taps() * K);
            if (gather.rows() == 0) continue;
            pack_weights(kernels(), panels, view, gather.h, gather.w, plan.packed);
            gather_gemm(kernels(), gather, panels, plan.packed, K, g.groups, nullptr);
        }
}

}  // namespace nnlite
