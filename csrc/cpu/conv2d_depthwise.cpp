// Depthwise convolution (one input channel per group): no matrix product in it, vectors run along channels.
//
// Work is cut into bands of output rows of one image, whose source fits the second-level cache. Kernel rows of
// adjacent pixels have kernels that compute a whole band; everything else goes run by run, pixels that
// meet the same taps together.

#include <string.h>

#include "after.h"
#include "bands.h"
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

// Packed weights are [multiplier][taps][C], C rounded up to whole vectors of any instruction set.
int64_t packed_channels(const Conv2d& g) { return (g.C + 15) / 16 * 16; }

// Where a gather finds its weights (or puts their sums): tap (a,b) at first + a·row + b·step.
struct TapGrid {
    int64_t first, row, step;

    TapGrid(const Conv2d& g, const Gather& gather) {
        const int64_t C = packed_channels(g);
        first = (gather.h.first_tap * g.S + gather.w.first_tap) * C;
        row = gather.h.tap_step * g.S * C;
        step = gather.w.tap_step * C;
    }
};

// The taps that a run of output pixels meets.
struct TapList {
    int64_t count;
    const float* source[max_taps];
    int64_t at[max_taps];  // where in the packed weights, or sums

    void find(const Gather& g, const TapGrid& grid, int64_t n, int64_t i, int64_t j) {
        const Range rows = g.h.inside(i), columns = g.w.inside(j);
        count = 0;
        for (int64_t a = rows.begin; a < rows.end; ++a)
            for (int64_t b = columns.begin; b < columns.end; ++b) {
                source[count] = g.at(n, i, j, a, b);
                at[count++] = grid.first + a * grid.row + b * grid.step;
            }
    }
};

// body(taps, i, j, pixels) for runs of output pixels of image n that meet the same taps: the inner part of a
// row as one run, pixels whose windows overhang left or right one by one.
template <class Body>
void for_each_run(const Gather& g, const TapGrid& grid, int64_t n, int64_t begin, int64_t end, const Body& body) {
    TapList taps;
    const Range inner = g.w.inside();
    for (int64_t i = begin; i < end; ++i)
        for (int64_t j = 0; j < g.w.out;) {
            const int64_t pixels = j == inner.begin && inner.size() > 0 ? inner.size() : 1;
            taps.find(g, grid, n, i, j);
            body(taps, i, j, pixels);
            j += pixels;
        }
}

bool has_band(const Gather& g) {
    return (g.w.offset_step == 1 || g.w.taps == 1) && has_depthwise_band(g.w.taps, g.w.step);
}

// Of rows [begin, end) of image n.
Windows windows(const Conv2d& g, const Gather& gather, int64_t n, int64_t begin, int64_t end) {
    const Axis &h = gather.h, &w = gather.w;
    return {g.C, w.out, begin, end, h.taps, w.taps, h.step, h.offset(0), h.offset_step, w.step, w.offset(0), 1,
            gather.source + n * gather.source_grid.image, h.source, w.source};
}

struct Depthwise {
    Workspace workspace;
    float* packed;

    Depthwise(const Conv2d& g, void* memory) : workspace(memory), packed(workspace.take<float>(floats(g))) {}

    static int64_t floats(const Conv2d& g) { return g.K / g.C * g.taps() * packed_channels(g); }
};

// w [C·multiplier][taps] -> packed [multiplier][taps][C]
void pack(const Kernels& k, const Conv2d& g, const float* w, float* packed) {
    const int64_t multiplier = g.K / g.C, taps = g.taps(), C = packed_channels(g);
    for (int64_t m = 0; m < multiplier; ++m)
        k.pack_transposed(taps, g.C, C, w + m * taps, multiplier * taps, packed + m * taps * C);
}

// Rows [begin, end) of what `gather` computes of image n.
void compute(const Kernels& k, const Conv2d& g, const Gather& gather, const float* packed, const Epilogue& epilogue,
             bool stream, int64_t n, int64_t begin, int64_t end) {
    const TapGrid grid(g, gather);
    const int64_t multiplier = g.K / g.C;
    if (multiplier == 1 && has_band(gather)) {
        float* image = gather.to(n, 0, 0);
        k.depthwise_band({windows(g, gather, n, begin, end), packed + grid.first, grid.row, grid.step, epilogue.bias,
                          image, gather.out_grid.row, gather.out_grid.pixel, stream,
                          epilogue.beside(gather.out, image), epilogue.act});
        return;
    }
    for_each_run(gather, grid, n, begin, end, [&](const TapList& taps, int64_t i, int64_t j, int64_t pixels) {
        const float* w[max_taps];
        for (int64_t t = 0; t < taps.count; ++t) w[t] = packed + taps.at[t];
        DepthwiseRow row;
        row.taps = taps.count, row.channels = g.C, row.pixels = pixels;
        row.source = taps.source, row.w = w, row.bias = epilogue.bias;
        row.out = gather.to(n, i, j);
        row.step = gather.w.step * gather.source_grid.pixel;
        row.out_step = gather.out_grid.pixel;
        row.multiplier = multiplier, row.multiplier_step = g.taps() * packed_channels(g);
        row.residual = epilogue.beside(gather.out, row.out), row.act = epilogue.act;
        k.depthwise_row(row);
    });
}

void depthwise(const Conv2d& g, const float* x, const float* packed, const Epilogue& epilogue, float* y) {
    const Kernels& k = kernels();
    const Gather gather = forward_gather(g, x, y, nullptr);
    const bool stream = !has_function(g.act) && streams(y, g.N * g.P * g.Q * g.K, g.K);
    const int64_t work = g.Q * g.K * (g.taps() + 1), bytes = 4 * (g.stride_h * g.W * g.C + g.Q * g.K);
    for_each_band(g.N, g.P, work, bytes, [&](int64_t n, int64_t begin, int64_t end) {
        compute(k, g, gather, packed, epilogue, stream, n, begin, end);
        apply_function(k, epilogue, gather.to(n, begin, 0), 0, g.K, (end - begin) * g.Q);
    });
}

}  // namespace

size_t conv2d_forward_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }
size_t conv2d_forward_depthwise_prepared_workspace(const Conv2d&) { return 0; }

size_t conv2d_forward_depthwise_prepared_size(const Conv2d& g) {
    return static_cast<size_t>(Depthwise::floats(g)) * sizeof(float);
}

void conv2d_forward_depthwise_prepare(const Conv2d& g, const float* w, void* prepared) {
    pack(kernels(), g, w, static_cast<float*>(prepared));
}

void conv2d_forward_depthwise(const Conv2d& g, const float* x, const float* w, const float* bias,
                              const float* residual, float* y, void* workspace) {
    const Depthwise plan(g, workspace);
    pack(kernels(), g, w, plan.packed);
    depthwise(g, x, plan.packed, epilogue_of(g.act, g.K, bias, residual), y);
}

void conv2d_forward_depthwise_prepared(const Conv2d& g, const float* x, const void* prepared, const float* bias,
                                       const float* residual, float* y, void*) {
    depthwise(g, x, static_cast<const float*>(prepared), epilogue_of(g.act, g.K, bias, residual), y);
}

namespace {

// All phases of a band of gy while it is in the cache: row i of each phase meets about the same rows of gy.
void grad_input(const Conv2d& g, const float* gy, const float* packed, const Epilogue& epilogue, float* gx) {
    const Kernels& k = kernels();
    const int64_t rows = (g.H + g.stride_h - 1) / g.stride_h;
    const int64_t work = g.Q * g.C * g.taps() + g.stride_h * g.W * g.C;
    const int64_t bytes = 4 * g.C * (g.Q + g.stride_h * g.W);
    const bool stream = !has_function(epilogue.act) && streams(gx, g.N * g.H * g.W * g.C, g.C);
    for_each_band(g.N, rows, work, bytes, [&](int64_t n, int64_t begin, int64_t end) {
        for (int64_t phase_h = 0; phase_h < g.stride_h; ++phase_h)
            for (int64_t phase_w = 0; phase_w < g.stride_w; ++phase_w) {
                const Gather gather = grad_input_gather(g, gy, gx, nullptr, phase_h, phase_w);
                Epilogue own = epilogue;
                if (own.residual) own.residual += gather.out - gx;
                compute(k, g, gather, packed, own, stream, n, begin, end < gather.h.out ? end : gather.h.out);
            }
        const int64_t first = begin * g.stride_h, last = end * g.stride_h < g.H ? end * g.stride_h : g.H;
        apply_function(k, epilogue, gx + (n * g.H + first) * g.W * g.C, 0, g.C, (last - first) * g.W);
    });
}

}  // namespace

size_t conv2d_grad_input_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }

void conv2d_grad_input_depthwise(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace) {
    const Depthwise plan(g, workspace);
    pack(kernels(), g, w, plan.packed);
    grad_input(g, gy, plan.packed, {}, gx);
}

size_t conv_transpose2d_forward_depthwise_workspace(const Conv2d& g) { return Depthwise(g, nullptr).workspace.size(); }
size_t conv_transpose2d_forward_depthwise_prepared_workspace(const Conv2d&) { return 0; }

size_t conv_transpose2d_forward_depthwise_prepared_size(const Conv2d& g) {
    return conv2d_forward_depthwise_prepared_size(g);
}

void conv_transpose2d_forward_depthwise_prepare(const Conv2d& g, const float* w, void* prepared) {
    conv2d_forward_depthwise_prepare(g, w, prepared);
}

void conv_transpose2d_forward_depthwise(const Conv2d& g, const float* x, const float* w, const float* bias,
                                        const float* residual, float* y, void* workspace) {
    const Depthwise plan(g, workspace);
    pack(kernels(), g, w, plan.packed);
    grad_input(g, x, plan.packed, epilogue_of(g.act, g.C, bias, residual), y);
}

void conv_transpose2d_forward_depthwise_prepared(const Conv2d& g, const float* x, const void* prepared,
                                                 const float* bias, const float* residual, float* y, void*) {
    grad_input(g, x, static_cast<const float*>(prepared), epilogue_of(g.act, g.C, bias, residual), y);
}

// ---- weight gradient: each chunk of output rows has its own sums [taps][C], added up in order at the end

namespace {

constexpr int64_t max_chunks = 16;

struct DepthwiseGrad {
    Workspace workspace;
    int64_t grain, chunks;  // output rows per chunk
    float* sums;            // [chunk][taps][C]

    DepthwiseGrad(const Conv2d& g, void* memory) : workspace(memory) {
        const int64_t rows = g.N * g.P;
        grain = grain_for(g.Q * g.C * g.taps());
        if ((rows + grain - 1) / grain > max_chunks) grain = (rows + max_chunks - 1) / max_chunks;
        chunks = (rows + grain - 1) / grain;
        sums = workspace.take<float>((chunks > 0 ? chunks : 1) * g.taps() * packed_channels(g));
    }
};

// Adds the products of rows [begin, end) of image n to `sums`.
void add_products(const Kernels& k, const Conv2d& g, const Gather& gather, const float* gy, float* sums, int64_t n,
                  int64_t begin, int64_t end) {
    const float* image = gy + n * g.P * g.Q * g.C;
    if (has_band(gather)) {
        k.depthwise_grad_band({windows(g, gather, n, begin, end), image, sums, packed_channels(g)});
        return;
    }
    const TapGrid grid(g, gather);
    for_each_run(gather, grid, n, begin, end, [&](const TapList& taps, int64_t i, int64_t j, int64_t pixels) {
        float* to[max_taps];
        for (int64_t t = 0; t < taps.count; ++t) to[t] = sums + taps.at[t];
        k.depthwise_grad_row(
            {taps.count, g.C, pixels, taps.source, image + (i * g.Q + j) * g.C, to, g.stride_w * g.C});
    });
}

// gw [C][taps] = sums over the chunks, one after the other, whoever computed them
void add_chunks(const Conv2d& g, const DepthwiseGrad& plan, float* gw) {
    constexpr int64_t block = 64;
    const int64_t taps = g.taps(), C = packed_channels(g);
    const int64_t work = plan.chunks * taps * block;
    parallel_for((g.C + block - 1) / block, grain_for(work, 1 << 15), [&](int64_t begin, int64_t end) {
        const int64_t first = begin * block, last = end * block < g.C ? end * block : g.C;
        for (int64_t low = first; low < last; low += block) {
            const int64_t high = low + block < last ? low + block : last;
            for (int64_t tap = 0; tap < taps; ++tap) {
                float* total = plan.sums + tap * C;
                for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
                    const float* from = total + chunk * taps * C;
                    for (int64_t c = low; c < high; ++c) total[c] += from[c];
                }
                for (int64_t c = low; c < high; ++c) gw[c * taps + tap] = total[c];
            }
        }
    });
}

}  // namespace

size_t conv2d_grad_weight_depthwise_workspace(const Conv2d& g) { return DepthwiseGrad(g, nullptr).workspace.size(); }

void conv2d_grad_weight_depthwise(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    const DepthwiseGrad plan(g, workspace);
    const Kernels& k = kernels();
    const int64_t weights = g.taps() * packed_channels(g);
    const Gather gather = forward_gather(g, x, nullptr, nullptr);
    const Bands bands(g.N, g.P, g.Q * g.C * g.taps(), 4 * g.C * (g.stride_h * g.W + g.Q));
    memset(plan.sums, 0, static_cast<size_t>(weights) * sizeof(float));  // for an empty batch
    parallel_for(g.N * g.P, plan.grain, [&](int64_t begin, int64_t end) {
        float* sums = plan.sums + begin / plan.grain * weights;
        memset(sums, 0, static_cast<size_t>(weights) * sizeof(float));
        while (begin < end) {  // bands that lie in one image
            const int64_t n = begin / g.P, first = begin % g.P;
            int64_t last = first + bands.rows;
            if (last > g.P) last = g.P;
            if (last > end - n * g.P) last = end - n * g.P;
            add_products(k, g, gather, gy, sums, n, first, last);
            begin = n * g.P + last;
        }
    });
    add_chunks(g, plan, gw);
}

}  // namespace nnlite
