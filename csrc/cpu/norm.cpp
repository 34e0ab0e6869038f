// Batch normalisation on rows [M,C]. Sums over M run per chunk of rows in float32, where each chunk fits
// the second-level cache, and over the chunks in float64; the cut depends on M and C alone.

#include <math.h>
#include <string.h>

#include "bands.h"
#include "cpu.h"
#include "dispatch.h"
#include "parallel.h"
#include "row_chunks.h"
#include "workspace.h"

namespace nnlite {
namespace {

template <class T>
T* from(T* array, int64_t offset) {
    return array ? array + offset : nullptr;
}

// body(row begin, row end) for elementwise work.
template <class Body>
void for_each_rows(const Norm& g, const Body& body) {
    parallel_for(g.M, grain_for(g.C, 1 << 16), body);
}

}  // namespace

// ---- training, forward

namespace {

struct Forward {
    Workspace workspace;
    RowChunks chunks;
    float *centre, *sum, *square;  // [chunk][C]
    float* scale;                  // [C]

    Forward(const Norm& g, void* memory) : workspace(memory), chunks(g) {
        centre = workspace.take<float>(chunks.count * g.C);
        sum = workspace.take<float>(chunks.count * g.C);
        square = workspace.take<float>(chunks.count * g.C);
        scale = workspace.take<float>(g.C);
    }
};

// Mean and sum of squared deviations of the channels [begin, end), merged chunk by chunk.
// Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"
void merge_moments(const Norm& g, const Forward& plan, int64_t begin, int64_t end, double* mean, double* square) {
    for (int64_t c = begin; c < end; ++c) mean[c - begin] = square[c - begin] = 0.0;
    int64_t before = 0;
    for (int64_t chunk = 0; chunk < plan.chunks.count; ++chunk) {
        const int64_t rows = plan.chunks.length(chunk, g.M);
        const double part = static_cast<double>(rows) / static_cast<double>(before + rows);
        const double weight = static_cast<double>(before) * part, inverse = 1.0 / static_cast<double>(rows);
        const int64_t at = chunk * g.C;
        for (int64_t c = begin; c < end; ++c) {
            const double rest = plan.sum[at + c];  // what centre misses of the chunk's mean, times rows
            const double chunk_mean = plan.centre[at + c] + rest * inverse;
            const double chunk_square = plan.square[at + c] - rest * rest * inverse;
            const double delta = chunk_mean - mean[c - begin];
            mean[c - begin] += delta * part;
            square[c - begin] += chunk_square + delta * delta * weight;
        }
        before += rows;
    }
}

}  // namespace

size_t batch_norm_training_forward_workspace(const Norm& g) { return Forward(g, nullptr).workspace.size(); }

void batch_norm_training_forward(const Norm& g, double epsilon, const float* x, const float* weight,
                                 const float* bias, const float* residual, float* y, float* mean, float* inv_std,
                                 void* workspace) {
    const Kernels& k = kernels();
    const Forward plan(g, workspace);
    parallel_for(plan.chunks.count, grain_for(plan.chunks.rows * g.C, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t chunk = plan.chunks.from_the_end(i), at = chunk * g.C;
            k.moments(plan.chunks.length(chunk, g.M), g.C, x + chunk * plan.chunks.rows * g.C, plan.centre + at,
                      plan.sum + at, plan.square + at);
        }
    });
    const int64_t blocks = (g.C + channel_block - 1) / channel_block;
    const int64_t block_work = plan.chunks.count * channel_block * 4;
    parallel_for(blocks, grain_for(block_work), [&](int64_t begin, int64_t end) {
        double m[channel_block], square[channel_block];
        for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block * channel_block;
            const int64_t last = first + channel_block < g.C ? first + channel_block : g.C;
            merge_moments(g, plan, first, last, m, square);
            for (int64_t c = first; c < last; ++c) {
                const double variance = square[c - first] / static_cast<double>(g.M);
                mean[c] = static_cast<float>(m[c - first]);
                inv_std[c] = static_cast<float>(1.0 / sqrt((variance > 0 ? variance : variance * 0) + epsilon));
                plan.scale[c] = inv_std[c] * weight[c];
            }
        }
    });
    const bool stream = streams(y, g.M * g.C, g.C);
    for_each_rows(g, [&](int64_t begin, int64_t end) {
        k.scale_rows({end - begin, g.C, x + begin * g.C, mean, plan.scale, bias, from(residual, begin * g.C), g.act,
                      y + begin * g.C, stream});
    });
}

// ---- gradients

namespace {

struct Backward {
    Workspace workspace;
    RowChunks chunks;
    float *sum, *dot;  // [chunk][C]
    float *a, *b, *d;  // [C]

    Backward(const Norm& g, void* memory) : workspace(memory), chunks(g) {
        sum = workspace.take<float>(chunks.count * g.C);
        dot = workspace.take<float>(chunks.count * g.C);
        a = workspace.take<float>(g.C);
        b = workspace.take<float>(g.C);
        d = workspace.take<float>(g.C);
    }
};

// The rows from `begin` on.
NormGrad rows_of(const NormGrad& all, int64_t begin, int64_t rows) {
    NormGrad part = all;
    const int64_t at = begin * all.C;
    part.rows = rows;
    part.x = from(all.x, at), part.gy = from(all.gy, at), part.y = from(all.y, at);
    part.gx = from(all.gx, at), part.gresidual = from(all.gresidual, at);
    return part;
}

// gbias = sum g, gweight = sum g (x - mean) inv_std, each may be null; g is stored in gresidual if that is not.
void parameter_gradients(const Norm& g, const Backward& plan, const NormGrad& all, float* gweight, float* gbias) {
    const Kernels& k = kernels();
    parallel_for(plan.chunks.count, grain_for(plan.chunks.rows * g.C, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t chunk = plan.chunks.from_the_end(i);
            k.grad_sums(rows_of(all, chunk * plan.chunks.rows, plan.chunks.length(chunk, g.M)),
                        plan.sum + chunk * g.C, plan.dot + chunk * g.C);
        }
    });
    merge_sums(g.C, plan.chunks.count, plan.sum, plan.dot, [&](int64_t c, double sum, double dot) {
        if (gbias) gbias[c] = static_cast<float>(sum);
        if (gweight) gweight[c] = static_cast<float>(dot);
    });
}

void input_gradient(const Norm& g, NormGrad all) {
    if (all.gresidual) {  // what passes the activation was stored: no need to look at y again
        all.gy = all.gresidual;
        all.act.kind = no_activation;
    }
    for_each_rows(g, [&](int64_t begin, int64_t end) { kernels().grad_rows(rows_of(all, begin, end - begin)); });
}

}  // namespace

size_t batch_norm_training_backward_workspace(const Norm& g) { return Backward(g, nullptr).workspace.size(); }

void batch_norm_training_backward(const Norm& g, const float* x, const float* gy, const float* y,
                                  const float* weight, const float* bias, const float* mean, const float* inv_std,
                                  float* gx, float* gweight, float* gbias, float* gresidual, void* workspace) {
    const Backward plan(g, workspace);
    for (int64_t c = 0; c < g.C; ++c) plan.a[c] = inv_std[c] * weight[c];
    NormGrad all = {g.M, g.C, x, gy, y, mean, inv_std, mean, plan.a, bias, g.act, plan.a, plan.b, plan.d, gx, gresidual,
                    streams(gx, g.M * g.C, g.C)};
    parameter_gradients(g, plan, all, gweight, gbias);
    if (!gx) return;
    // gx = a (g - gbias/M - (x - mean) inv_std gweight/M) with a = weight inv_std
    const float inverse = 1.0f / static_cast<float>(g.M > 0 ? g.M : 1);
    for (int64_t c = 0; c < g.C; ++c) {
        plan.b[c] = -plan.a[c] * inv_std[c] * (gweight[c] * inverse);
        plan.d[c] = -plan.a[c] * (gbias[c] * inverse);
    }
    input_gradient(g, all);
}

void batch_norm_inference_forward(const Norm& g, const float* x, const float* mean, const float* scale,
                                  const float* shift, const float* residual, float* y) {
    const bool stream = streams(y, g.M * g.C, g.C);
    for_each_rows(g, [&](int64_t begin, int64_t end) {
        kernels().scale_rows({end - begin, g.C, x + begin * g.C, mean, scale, shift, from(residual, begin * g.C),
                              g.act, y + begin * g.C, stream});
    });
}

size_t batch_norm_inference_backward_workspace(const Norm& g) { return Backward(g, nullptr).workspace.size(); }

void batch_norm_inference_backward(const Norm& g, const float* x, const float* gy, const float* y,
                                   const float* scale, const float* shift, const float* mean, const float* inv_std,
                                   float* gx, float* gweight, float* gbias, float* gresidual, void* workspace) {
    const Backward plan(g, workspace);
    const NormGrad all = {g.M,   g.C,   x,     gy,      y,       mean, inv_std,  nullptr,
                          scale, shift, g.act, scale,   nullptr, nullptr, gx, gresidual,
                          streams(gx, g.M * g.C, g.C)};
    if (gweight || gbias || gresidual) parameter_gradients(g, plan, all, gweight, gbias);
    if (gx) input_gradient(g, all);
}

// ---- sums per channel

size_t channel_sum_workspace(const Norm& g) {
    Workspace workspace(nullptr);
    workspace.take<float>(RowChunks(g).count * g.C);
    return workspace.size();
}

void channel_sum(const Norm& g, const float* x, float* total, void* memory) {
    const Kernels& k = kernels();
    const RowChunks chunks(g);
    Workspace workspace(memory);
    float* sum = workspace.take<float>(chunks.count * g.C);
    parallel_for(chunks.count, grain_for(chunks.rows * g.C, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
            k.sum_rows(chunks.length(chunk, g.M), g.C, x + chunk * chunks.rows * g.C, sum + chunk * g.C);
    });
    merge_sums(g.C, chunks.count, sum, nullptr,
               [&](int64_t c, double value, double) { total[c] = static_cast<float>(value); });
}

}  // namespace nnlite
