// Kernels on rows [M,C] that see each row by itself. Chunks of rows go to threads; sums over rows, which only the
// parameters of layer normalisation have, are cut as in row_chunks.h.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "parallel.h"
#include "row_chunks.h"
#include "workspace.h"

namespace nnlite {
namespace {

// body(row begin, row end)
template <class Body>
void for_each_lines(const Norm& g, int64_t work_per_element, const Body& body) {
    parallel_for(g.M, grain_for(g.C * work_per_element, 1 << 16), body);
}

void softmax(const Norm& g, bool logarithm, const float* x, float* y) {
    for_each_lines(g, 8, [&](int64_t begin, int64_t end) {
        kernels().softmax_rows({end - begin, g.C, logarithm, x + begin * g.C, y + begin * g.C});
    });
}

void softmax_gradient(const Norm& g, bool logarithm, const float* gy, const float* y, float* gx) {
    for_each_lines(g, logarithm ? 8 : 2, [&](int64_t begin, int64_t end) {
        const int64_t at = begin * g.C;
        kernels().softmax_grad({end - begin, g.C, logarithm, gy + at, y + at, gx + at});
    });
}

}  // namespace

void softmax_forward(const Norm& g, const float* x, float* y) { softmax(g, false, x, y); }
void log_softmax_forward(const Norm& g, const float* x, float* y) { softmax(g, true, x, y); }

void softmax_backward(const Norm& g, const float* gy, const float* y, float* gx) {
    softmax_gradient(g, false, gy, y, gx);
}
void log_softmax_backward(const Norm& g, const float* gy, const float* y, float* gx) {
    softmax_gradient(g, true, gy, y, gx);
}

void cross_entropy(const Norm& g, const float* logits, const int64_t* labels, const float* weight,
                   const float* options, float* losses, float* gradient) {
    double total = weight ? 0.0 : static_cast<double>(g.C);
    for (int64_t c = 0; weight && c < g.C; ++c) total += static_cast<double>(weight[c]);
    for_each_lines(g, 8, [&](int64_t begin, int64_t end) {
        kernels().cross_entropy_rows({end - begin, g.C, logits + begin * g.C, labels + begin, weight, options[0],
                                      options[1], static_cast<float>(total), losses + begin,
                                      gradient ? gradient + begin * g.C : nullptr});
    });
}

void layer_norm_forward(const Norm& g, double epsilon, const float* x, const float* weight, const float* bias, float* y,
                        float* mean, float* inv_std) {
    for_each_lines(g, 2, [&](int64_t begin, int64_t end) {
        const int64_t at = begin * g.C;
        kernels().layer_norm_rows(
            {end - begin, g.C, epsilon, x + at, weight, bias, y + at, mean + begin, inv_std + begin});
    });
}

namespace {

struct LayerNormPlan {
    Workspace workspace;
    RowChunks chunks;
    float *weight_sums, *bias_sums;  // [chunk][C]

    LayerNormPlan(const Norm& g, void* memory) : workspace(memory), chunks(g) {
        weight_sums = workspace.take<float>(chunks.count * g.C);
        bias_sums = workspace.take<float>(chunks.count * g.C);
    }
};

}  // namespace

size_t layer_norm_backward_workspace(const Norm& g) { return LayerNormPlan(g, nullptr).workspace.size(); }

void layer_norm_backward(const Norm& g, const float* x, const float* gy, const float* weight, const float* mean,
                         const float* inv_std, float* gx, float* gweight, float* gbias, void* workspace) {
    const LayerNormPlan plan(g, workspace);
    const bool sums = gweight || gbias;
    parallel_for(plan.chunks.count, grain_for(plan.chunks.rows * g.C, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            const int64_t first = chunk * plan.chunks.rows, at = first * g.C;
            float *weight_sums = nullptr, *bias_sums = nullptr;
            if (sums) {
                const size_t bytes = static_cast<size_t>(g.C) * sizeof(float);
                weight_sums = plan.weight_sums + chunk * g.C, bias_sums = plan.bias_sums + chunk * g.C;
                memset(weight_sums, 0, bytes);
                memset(bias_sums, 0, bytes);
            }
            kernels().layer_norm_grad({plan.chunks.length(chunk, g.M), g.C, x + at, gy + at, weight, mean + first,
                                       inv_std + first, gx ? gx + at : nullptr, weight_sums, bias_sums});
        }
    });
    if (!sums) return;
    merge_sums(g.C, plan.chunks.count, plan.weight_sums, plan.bias_sums, [&](int64_t c, double dot, double sum) {
        if (gweight) gweight[c] = static_cast<float>(dot);
        if (gbias) gbias[c] = static_cast<float>(sum);
    });
}

}  // namespace nnlite
