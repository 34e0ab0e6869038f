// Depthwise convolution (one input channel per group): no matrix product in it, vectors run along channels.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gather.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

// Row pointers live on the stack: 31 x 31 is the largest kernel that this variant serves (supports() in
// nnlite/kernels/native.py says so; larger ones go to the matrix product).
constexpr int64_t max_taps = 961;

struct Depthwise {
    Workspace workspace;
    float *packed, *zeros;

    Depthwise(const Conv2d& g, void* memory)
        : workspace(memory), packed(workspace.take<float>(g.K * g.taps())), zeros(workspace.take<float>(g.K)) {}
};

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
    const int64_t taps = gather.taps();
    const int64_t work = gather.w.out * g.K * (taps + 1);
    parallel_for(gather.N * gather.h.out, grain_for(work), [&](int64_t begin, int64_t end) {
        const float* rows[max_taps * depthwise_pixels];
        float* out[depthwise_pixels];
        for (int64_t item = begin; item < end; ++item) {
            const int64_t n = item / gather.h.out, i = item % gather.h.out;
            for (int64_t j = 0; j < gather.w.out; j += depthwise_pixels) {
                const int64_t left = gather.w.out - j;
                const int pixels = left < depthwise_pixels ? static_cast<int>(left) : depthwise_pixels;
                for (int q = 0; q < pixels; ++q) {
                    out[q] = gather.to(n, i, j + q);
                    const float** to = rows + q;
                    for (int64_t a = 0; a < gather.h.taps; ++a)
                        for (int64_t b = 0; b < gather.w.taps; ++b, to += depthwise_pixels)
                            *to = gather.at(n, i, j + q, a, b);
                }
                k.depthwise_tile({taps, g.C, g.K / g.C, rows, packed, bias, out, pixels});
            }
        }
    });
}

}  // namespace

size_t conv2d_forward_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }

void conv2d_forward_depthwise(const Conv2d& g, const float* x, const float* w, const float* bias, float* y,
                              void* workspace) {
    const Depthwise plan(g, workspace);
    memset(plan.zeros, 0, static_cast<size_t>(g.C) * sizeof(float));
    const Gather gather = forward_gather(g, x, y, plan.zeros);
    pack(g, gather, w, plan.packed);
    run(kernels(), g, gather, plan.packed, bias);
}

size_t conv2d_grad_input_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }

void conv2d_grad_input_depthwise(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace) {
    const Depthwise plan(g, workspace);
    memset(plan.zeros, 0, static_cast<size_t>(g.C) * sizeof(float));
    for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
        for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
            const Gather gather = grad_input_gather(g, gy, gx, plan.zeros, phase_h, phase_w);
            pack(g, gather, w, plan.packed);
            run(kernels(), g, gather, plan.packed, nullptr);
        }
}

// ---- weight gradient: each chunk of output rows has its own sums [taps][C], added up in order at the end

namespace {

constexpr int64_t max_chunks = 64;
constexpr int64_t pixel_block = 64;

struct DepthwiseGrad {
    Workspace workspace;
    int64_t grain, chunks;  // output rows per chunk
    float *sums, *zeros;

    DepthwiseGrad(const Conv2d& g, void* memory) : workspace(memory) {
        const int64_t rows = g.N * g.P;
        grain = grain_for(g.Q * g.C * g.taps());
        if ((rows + grain - 1) / grain > max_chunks) grain = (rows + max_chunks - 1) / max_chunks;
        chunks = (rows + grain - 1) / grain;
        sums = workspace.take<float>(chunks * g.taps() * g.C);
        zeros = workspace.take<float>(g.C);
    }
};

// One row of output pixels against the taps [tap, tap + count).
void add_row(const Conv2d& g, const Gather& gather, const float* gy, int64_t item, int64_t tap, int64_t count,
             float* sums) {
    const float* rows[pixel_block * depthwise_taps];
    const int64_t n = item / g.P, p = item % g.P;
    for (int64_t begin = 0; begin < g.Q; begin += pixel_block) {
        const int64_t pixels = g.Q - begin < pixel_block ? g.Q - begin : pixel_block;
        const float** to = rows;
        for (int64_t q = begin; q < begin + pixels; ++q)
            for (int64_t t = tap; t < tap + count; ++t) *to++ = gather.at(n, p, q, t / g.S, t % g.S);
        kernels().depthwise_grad_weight(
            {count, g.C, pixels, rows, gy + (item * g.Q + begin) * g.C, sums + tap * g.C});
    }
}

}  // namespace

size_t conv2d_grad_weight_depthwise_workspace(const Conv2d& g) { return DepthwiseGrad(g, nullptr).workspace.size(); }

void conv2d_grad_weight_depthwise(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    const DepthwiseGrad plan(g, workspace);
    const int64_t weights = g.taps() * g.C;
    memset(plan.zeros, 0, static_cast<size_t>(g.C) * sizeof(float));
    const Gather gather = forward_gather(g, x, nullptr, plan.zeros);
    parallel_for(g.N * g.P, plan.grain, [&](int64_t begin, int64_t end) {
        float* sums = plan.sums + begin / plan.grain * weights;
        memset(sums, 0, static_cast<size_t>(weights) * sizeof(float));
        for (int64_t item = begin; item < end; ++item)
            for (int64_t tap = 0; tap < g.taps(); tap += depthwise_taps) {
                const int64_t left = g.taps() - tap;
                add_row(g, gather, gy, item, tap, left < depthwise_taps ? left : depthwise_taps, sums);
            }
    });
    for (int64_t c = 0; c < g.C; ++c)
        for (int64_t tap = 0; tap < g.taps(); ++tap) {
            float sum = 0.0f;
            for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) sum += plan.sums[chunk * weights + tap * g.C + c];
            gw[c * g.taps() + tap] = sum;
        }
}

}  // namespace nnlite
