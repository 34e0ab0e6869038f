// Depthwise convolution (one input channel per group): no matrix product in it, vectors run along channels.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gather.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

// Tap pointers live on the stack: 31 x 31 is the largest kernel that this variant serves (supports() in
// nnlite/kernels/native.py says so; larger ones go to the matrix product).
constexpr int64_t max_taps = 961;

struct Depthwise {
    Workspace workspace;
    float* packed;

    Depthwise(const Conv2d& g, void* memory) : workspace(memory), packed(workspace.take<float>(g.K * g.taps())) {}
};

// The taps that a run of output pixels meets, and for the gradient where their sums go.
struct TapList {
    int64_t count, adjacent;
    const float* source[max_taps];
    const float* w[max_taps];

    // From output (i,j) of image n: the taps inside the source, out of `weights` [taps][C].
    void find(const Gather& g, int64_t n, int64_t i, int64_t j, int64_t C, const float* weights) {
        const Range rows = g.h.inside(i), columns = g.w.inside(j);
        count = 0;
        adjacent = g.w.step == 1 && g.w.offset_step == 1 ? columns.size() : 0;
        for (int64_t a = rows.begin; a < rows.end; ++a)
            for (int64_t b = columns.begin; b < columns.end; ++b) {
                source[count] = g.at(n, i, j, a, b);
                w[count++] = weights + (a * g.w.taps + b) * C;
            }
    }
};

// body(taps, n, i, j, pixels) for runs of output pixels that meet the same taps: the inner part of a row
// as one run, pixels whose windows overhang left or right one by one.
template <class Body>
void for_each_run(const Gather& g, int64_t begin, int64_t end, int64_t C, const float* weights, const Body& body) {
    TapList taps;
    const Range inner = g.w.inside();
    for (int64_t item = begin; item < end; ++item) {
        const int64_t n = item / g.h.out, i = item % g.h.out;
        for (int64_t j = 0; j < g.w.out;) {
            const int64_t pixels = j == inner.begin && inner.size() > 0 ? inner.size() : 1;
            taps.find(g, n, i, j, C, weights);
            body(taps, item, j, pixels);
            j += pixels;
        }
    }
}

// w [C·multiplier][taps] -> [multiplier][gather's taps][C]
void pack(const Conv2d& g, const Gather& gather, const float* w, float* packed) {
    const int64_t multiplier = g.K / g.C;
    for (int64_t m = 0; m < multiplier; ++m)
        for (int64_t a = 0; a < gather.h.taps; ++a)
            for (int64_t b = 0; b < gather.w.taps; ++b) {
                const int64_t tap = gather.h.weight_tap(a) * g.S + gather.w.weight_tap(b);
                for (int64_t c = 0; c < g.C; ++c) *packed++ = w[(c * multiplier + m) * g.taps() + tap];
            }
}

void run(const Kernels& k, const Conv2d& g, const Gather& gather, const float* packed, const float* bias) {
    const int64_t work = gather.w.out * g.K * (gather.taps() + 1);
    parallel_for(gather.N * gather.h.out, grain_for(work), [&](int64_t begin, int64_t end) {
        for_each_run(gather, begin, end, g.C, packed,
                     [&](const TapList& taps, int64_t item, int64_t j, int64_t pixels) {
                         DepthwiseRow row;
                         row.taps = taps.count, row.channels = g.C, row.pixels = pixels;
                         row.adjacent = taps.adjacent;
                         row.source = taps.source, row.w = taps.w, row.bias = bias;
                         row.out = gather.to(item / gather.h.out, item % gather.h.out, j);
                         row.step = gather.w.step * gather.source_grid.pixel;
                         row.out_step = gather.out_grid.pixel;
                         row.multiplier = g.K / g.C, row.multiplier_step = gather.taps() * g.C;
                         k.depthwise_row(row);
                     });
    });
}

}  // namespace

size_t conv2d_forward_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }

void conv2d_forward_depthwise(const Conv2d& g, const float* x, const float* w, const float* bias, float* y,
                              void* workspace) {
    const Depthwise plan(g, workspace);
    const Gather gather = forward_gather(g, x, y, nullptr);
    pack(g, gather, w, plan.packed);
    run(kernels(), g, gather, plan.packed, bias);
}

size_t conv2d_grad_input_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }

void conv2d_grad_input_depthwise(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace) {
    const Depthwise plan(g, workspace);
    for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
        for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
            const Gather gather = grad_input_gather(g, gy, gx, nullptr, phase_h, phase_w);
            pack(g, gather, w, plan.packed);
            run(kernels(), g, gather, plan.packed, nullptr);
        }
}

// ---- weight gradient: each chunk of output rows has its own sums [taps][C], added up in order at the end

namespace {

constexpr int64_t max_chunks = 32;

struct DepthwiseGrad {
    Workspace workspace;
    int64_t grain, chunks;  // output rows per chunk
    float* sums;            // [chunk][taps][C]

    DepthwiseGrad(const Conv2d& g, void* memory) : workspace(memory) {
        const int64_t rows = g.N * g.P;
        grain = grain_for(g.Q * g.C * g.taps());
        if ((rows + grain - 1) / grain > max_chunks) grain = (rows + max_chunks - 1) / max_chunks;
        chunks = (rows + grain - 1) / grain;
        sums = workspace.take<float>((chunks > 0 ? chunks : 1) * g.taps() * g.C);
    }
};

}  // namespace

size_t conv2d_grad_weight_depthwise_workspace(const Conv2d& g) { return DepthwiseGrad(g, nullptr).workspace.size(); }

void conv2d_grad_weight_depthwise(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    const DepthwiseGrad plan(g, workspace);
    const Kernels& k = kernels();
    const int64_t taps = g.taps(), weights = taps * g.C;
    const Gather gather = forward_gather(g, x, nullptr, nullptr);
    memset(plan.sums, 0, static_cast<size_t>(weights) * sizeof(float));  // for an empty batch
    parallel_for(g.N * g.P, plan.grain, [&](int64_t begin, int64_t end) {
        float* sums = plan.sums + begin / plan.grain * weights;
        memset(sums, 0, static_cast<size_t>(weights) * sizeof(float));
        for_each_run(gather, begin, end, g.C, sums, [&](const TapList& list, int64_t item, int64_t j, int64_t pixels) {
            float* to[max_taps];
            for (int64_t tap = 0; tap < list.count; ++tap) to[tap] = sums + (list.w[tap] - sums);
            k.depthwise_grad_row({list.count, g.C, pixels, list.adjacent, list.source, gy + (item * g.Q + j) * g.C, to,
                                  g.stride_w * g.C});
        });
    });
    // Chunk after chunk, whoever computed them; then [taps][C] -> [C][taps].
    parallel_for(weights, grain_for(plan.chunks, 1 << 16), [&](int64_t begin, int64_t end) {
        for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
            const float* from = plan.sums + chunk * weights;
            for (int64_t i = begin; i < end; ++i) plan.sums[i] += from[i];
        }
    });
    for (int64_t c = 0; c < g.C; ++c)
        for (int64_t tap = 0; tap < taps; ++tap) gw[c * taps + tap] = plan.sums[tap * g.C + c];
}

}  // namespace nnlite
