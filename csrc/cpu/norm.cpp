// Batch normalisation on rows [M,C]. Sums over M run per chunk of rows in float32, where each chunk fits
// the second-level cache, and over the chunks in float64; the cut depends on M and C alone.

#include <math.h>
#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

struct RowChunks {
    int64_t rows, count;  // rows per chunk

    explicit RowChunks(const Norm& g) {
        rows = (int64_t{1} << 14) / (g.C > 0 ? g.C : 1);  // 64 KB of x
        if (rows < 16) rows = 16;
        if (rows > 256) rows = 256;  // float32 sums of more terms would lose digits
        count = (g.M + rows - 1) / rows;
    }
    int64_t length(int64_t chunk, int64_t M) const { return (chunk + 1) * rows <= M ? rows : M - chunk * rows; }
};

constexpr int64_t channel_block = 64;

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
                                 const float* bias, float* y, float* mean, float* inv_std, void* workspace) {
    const Kernels& k = kernels();
    const Forward plan(g, workspace);
    parallel_for(plan.chunks.count, grain_for(plan.chunks.rows * g.C, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            const int64_t at = chunk * g.C;
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
    for_each_rows(g, [&](int64_t begin, int64_t end) {
        k.scale_rows(end - begin, g.C, x + begin * g.C, mean, plan.scale, bias, y + begin * g.C);
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

// gbias = sum gy, gweight = sum gy (x - mean) inv_std; each may be null.
void parameter_gradients(const Norm& g, const Backward& plan, const float* x, const float* gy, const float* mean,
                         const float* inv_std, float* gweight, float* gbias) {
    const Kernels& k = kernels();
    parallel_for(plan.chunks.count, grain_for(plan.chunks.rows * g.C, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            const int64_t at = chunk * g.C, from = chunk * plan.chunks.rows * g.C;
            k.grad_sums(plan.chunks.length(chunk, g.M), g.C, x + from, gy + from, mean, inv_std, plan.sum + at,
                        plan.dot + at);
        }
    });
    const int64_t blocks = (g.C + channel_block - 1) / channel_block;
    parallel_for(blocks, grain_for(plan.chunks.count * channel_block), [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block * channel_block;
            const int64_t last = first + channel_block < g.C ? first + channel_block : g.C;
            double sum[channel_block] = {}, dot[channel_block] = {};
            for (int64_t chunk = 0; chunk < plan.chunks.count; ++chunk)
                for (int64_t c = first; c < last; ++c) {
                    sum[c - first] += plan.sum[chunk * g.C + c];
                    dot[c - first] += plan.dot[chunk * g.C + c];
                }
            for (int64_t c = first; c < last; ++c) {
                if (gbias) gbias[c] = static_cast<float>(sum[c - first]);
                if (gweight) gweight[c] = static_cast<float>(dot[c - first]);
            }
        }
    });
}

}  // namespace

size_t batch_norm_training_backward_workspace(const Norm& g) { return Backward(g, nullptr).workspace.size(); }

void batch_norm_training_backward(const Norm& g, const float* x, const float* gy, const float* weight,
                                  const float* mean, const float* inv_std, float* gx, float* gweight, float* gbias,
                                  void* workspace) {
    const Backward plan(g, workspace);
    parameter_gradients(g, plan, x, gy, mean, inv_std, gweight, gbias);
    if (!gx) return;
    // gx = a (gy - gbias/M - (x - mean) inv_std gweight/M) with a = weight inv_std
    const float inverse = 1.0f / static_cast<float>(g.M > 0 ? g.M : 1);
    for (int64_t c = 0; c < g.C; ++c) {
        plan.a[c] = weight[c] * inv_std[c];
        plan.b[c] = -plan.a[c] * inv_std[c] * (gweight[c] * inverse);
        plan.d[c] = -plan.a[c] * (gbias[c] * inverse);
    }
    for_each_rows(g, [&](int64_t begin, int64_t end) {
        kernels().grad_rows(end - begin, g.C, x + begin * g.C, gy + begin * g.C, mean, plan.a, plan.b, plan.d,
                            gx + begin * g.C);
    });
}

void batch_norm_inference_forward(const Norm& g, const float* x, const float* scale, const float* shift, float* y) {
    for_each_rows(g, [&](int64_t begin, int64_t end) {
        kernels().scale_rows(end - begin, g.C, x + begin * g.C, nullptr, scale, shift, y + begin * g.C);
    });
}

size_t batch_norm_inference_backward_workspace(const Norm& g) { return Backward(g, nullptr).workspace.size(); }

void batch_norm_inference_backward(const Norm& g, const float* x, const float* gy, const float* scale,
                                   const float* mean, const float* inv_std, float* gx, float* gweight, float* gbias,
                                   void* workspace) {
    const Backward plan(g, workspace);
    if (gweight || gbias) parameter_gradients(g, plan, x, gy, mean, inv_std, gweight, gbias);
    if (!gx) return;
    for_each_rows(g, [&](int64_t begin, int64_t end) {
        kernels().grad_rows(end - begin, g.C, x + begin * g.C, gy + begin * g.C, mean, scale, nullptr, nullptr,
                            gx + begin * g.C);
    });
}

}  // namespace nnlite
