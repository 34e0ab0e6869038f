// Gradients of the convolution, dense and grouped.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {

// ---- input gradient: a gather over gy per phase of the input positions (gather.h)

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

// ---- weight gradient: gw [K, R·S·C] = gy^T [K, N·P·Q] · im2col(x) [N·P·Q, R·S·C]
//
// The pixels are cut into `splits` ranges with a partial gw each, added up in order: the cut depends on
// the geometry alone, so the bits do not depend on the threads. Within a range, panels of im2col(x) are
// packed a few hundred pixels at a time; gy needs no packing, its columns are walked with a_step = K.

namespace {

constexpr int64_t pixel_block = 256;  // a panel of 256 x 32 floats fills two thirds of a 48 KB first-level cache

struct GradWeight {
    Workspace workspace;
    Panels panels;
    int64_t pixels, splits, split_pixels;
    int64_t panel_block, panel_blocks;
    float *partial, *scratch;  // [splits - 1][K][R·S·C], [chunk][pixel_block][width]

    int64_t chunks(const Conv2d& g) const { return splits * g.groups * panel_blocks; }

    GradWeight(const Conv2d& g, void* memory)
        : workspace(memory), panels(kernels(), g.taps() * g.group_C(), pixel_block), pixels(g.N * g.P * g.Q) {
        const int64_t weights = g.K * panels.columns;
        splits = pixels / 1024;
        const int64_t affordable = (int64_t{4} << 20) / weights;  // 16 MB of partial sums
        if (splits > affordable) splits = affordable;
        if (splits > 16) splits = 16;
        if (splits < 1) splits = 1;
        split_pixels = (pixels + splits - 1) / splits;
        int64_t wanted = 16 / (splits * g.groups);
        if (wanted < 1) wanted = 1;
        panel_block = (panels.count() + wanted - 1) / wanted;
        panel_blocks = (panels.count() + panel_block - 1) / panel_block;
        partial = workspace.take<float>((splits - 1) * weights);
        scratch = workspace.take<float>(chunks(g) * pixel_block * panels.width);
    }
};

// A kernel row as it lies in im2col(x): where its taps are adjacent pixels with all their channels, S·C
// floats that are one piece of memory too; else one tap with the C channels of its group.
struct Row {
    int64_t taps, length;  // taps per row, floats per row

    explicit Row(const Conv2d& g) {
        taps = g.dilation_w == 1 && g.groups == 1 ? g.S : 1;
        length = taps * g.group_C();
    }
};

// Columns [first, first + columns) of im2col(x) for the pixels [begin, end): to [pixel][width].
void pack_im2col(const Conv2d& g, const float* x, int64_t group, int64_t first, int64_t columns, int64_t width,
                 int64_t begin, int64_t end, float* to) {
    const Row row(g);
    const int64_t C = g.group_C();
    int64_t q = begin % g.Q, p = begin / g.Q % g.P, n = begin / g.Q / g.P;
    for (int64_t m = begin; m < end; ++m, to += width) {
        int64_t tap = first / row.length * row.taps, from = first % row.length, done = 0;
        for (; done < columns; tap += row.taps, from = 0) {
            const int64_t h = p * g.stride_h - g.pad_top + tap / g.S * g.dilation_h;
            const int64_t w = q * g.stride_w - g.pad_left + tap % g.S * g.dilation_w;
            const int64_t upto = from + columns - done < row.length ? from + columns - done : row.length;
            // Of the row's floats [from, upto) those in [low, high) lie in the input.
            int64_t low = w < 0 ? -w * C : 0, high = (g.W - w) * C;
            if (h < 0 || h >= g.H) high = 0;
            if (high > upto) high = upto;
            if (low < from) low = from;
            if (high < low) low = high = upto;
            const float* source = x + ((n * g.H + h) * g.W + w) * g.C + group * C;
            float* target = to + done - from;
            for (int64_t i = from; i < low; ++i) target[i] = 0.0f;
            if (high - low >= 16)
                memcpy(target + low, source + low, static_cast<size_t>(high - low) * sizeof(float));
            else
                for (int64_t i = low; i < high; ++i) target[i] = source[i];
            for (int64_t i = high; i < upto; ++i) target[i] = 0.0f;
            done += upto - from;
        }
        for (; done < width; ++done) to[done] = 0.0f;
        if (++q == g.Q) {
            q = 0;
            if (++p == g.P) p = 0, ++n;
        }
    }
}

// Adds the products of the pixels [begin, end) to one panel of `to` [K, R·S·C].
void add_products(const Conv2d& g, const Panels& panels, int64_t panel, int64_t group, const float* packed,
                  const float* gy, int64_t pixels, bool accumulate, float* to) {
    const Kernels& k = kernels();
    const int64_t K = g.group_K();
    const int64_t tiles = (K + k.tile_rows - 1) / k.tile_rows;
    const float* a[max_tile_rows];
    float* out[max_tile_rows];
    GemmTile t = {};
    t.taps = 1, t.depth = pixels;
    t.a = a, t.a_offset = 0, t.a_step = g.K;
    t.b = packed, t.bias = nullptr;
    t.out = out, t.out_offset = panel * panels.width;
    t.columns = panels.columns_of(panel);
    t.accumulate = accumulate;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        // 64 rows as 11+11+11+11+10+10: a last tile of 4 rows would have too few chains to hide latency.
        const int64_t begin = tile * K / tiles, rows = (tile + 1) * K / tiles - begin;
        for (int64_t i = 0; i < rows; ++i) {
            a[i] = gy + group * K + begin + i;
            out[i] = to + (group * K + begin + i) * panels.columns;
        }
        k.gemm_tile[panels.vectors_of(panel) - 1][rows - 1](t);
    }
}

}  // namespace

size_t conv2d_grad_weight_gemm_workspace(const Conv2d& g) { return GradWeight(g, nullptr).workspace.size(); }

void conv2d_grad_weight_gemm(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    const GradWeight plan(g, workspace);
    const int64_t weights = g.K * plan.panels.columns;
    if (plan.pixels == 0) {
        memset(gw, 0, static_cast<size_t>(weights) * sizeof(float));
        return;
    }
    parallel_for(plan.chunks(g), 1, [&](int64_t chunk, int64_t) {
        const int64_t panel_begin = chunk % plan.panel_blocks * plan.panel_block;
        const int64_t group = chunk / plan.panel_blocks % g.groups;
        const int64_t split = chunk / plan.panel_blocks / g.groups;
        int64_t panel_end = panel_begin + plan.panel_block;
        if (panel_end > plan.panels.count()) panel_end = plan.panels.count();
        const int64_t first = split * plan.split_pixels;
        const int64_t last = first + plan.split_pixels < plan.pixels ? first + plan.split_pixels : plan.pixels;
        float* to = split == 0 ? gw : plan.partial + (split - 1) * weights;
        float* packed = plan.scratch + chunk * pixel_block * plan.panels.width;
        for (int64_t begin = first; begin < last; begin += pixel_block) {
            const int64_t end = begin + pixel_block < last ? begin + pixel_block : last;
            for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
                const int64_t width = plan.panels.vectors_of(panel) * plan.panels.vector;
                pack_im2col(g, x, group, panel * plan.panels.width, plan.panels.columns_of(panel), width, begin,
                            end, packed);
                add_products(g, plan.panels, panel, group, packed, gy + begin * g.K, end - begin, begin > first, to);
            }
        }
    });
    if (plan.splits == 1) return;
    parallel_for(weights, grain_for(plan.splits, 1 << 16), [&](int64_t begin, int64_t end) {
        for (int64_t split = 1; split < plan.splits; ++split) {
            const float* from = plan.partial + (split - 1) * weights;
            for (int64_t i = begin; i < end; ++i) gw[i] += from[i];
        }
    });
}

}  // namespace nnlite
