// Input gradient of the convolution, dense and grouped: a gather over gy per phase of the input positions (gather.h).

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "workspace.h"

namespace nnlite {
namespace {

struct GradInput {
    Workspace workspace;
    float *packed, *zeros;

    GradInput(const Conv2d& g, void* memory) : workspace(memory) {
        int64_t most = 0;  // one phase at a time
        for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
            for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
                const Gather gather = grad_input_gather(g, nullptr, nullptr, nullptr, phase_h, phase_w);
                const int64_t floats = gather_gemm_scratch(kernels(), gather, panels(g, gather), g.groups);
                if (floats > most) most = floats;
            }
        packed = workspace.take<float>(most);
        zeros = workspace.take<float>(g.K);
    }

    static Panels panels(const Conv2d& g, const Gather& gather) {
        return Panels(kernels(), g.group_C(), gather.taps() * g.group_K());
    }
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
            gather_gemm(kernels(), gather, GradInput::panels(g, gather), view, nullptr, {}, plan.packed);
        }
}

}  // namespace nnlite
