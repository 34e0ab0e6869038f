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
            pack_weights(panels, view, gather.h, gather.w, plan.packed);
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

// Columns [first, first + columns) of im2col(x) for the pixels [begin, end): to [pixel][width].
void pack_im2col(const Conv2d& g, const Gather& gather, int64_t group, int64_t first, int64_t columns, int64_t width,
                 int64_t begin, int64_t end, float* to) {
    const int64_t C = g.group_C();
    int64_t j = begin % g.Q, i = begin / g.Q % g.P, n = begin / g.Q / g.P;
    for (int64_t m = begin; m < end; ++m, to += width) {
        int64_t tap = first / C, c = first % C, done = 0;
        while (done < columns) {
            const int64_t count = C - c < columns - done ? C - c : columns - done;
            const float* from = gather.at(n, i, j, tap / g.S, tap % g.S);
            if (from)
                memcpy(to + done, from + group * C + c, static_cast<size_t>(count) * sizeof(float));
            else
                memset(to + done, 0, static_cast<size_t>(count) * sizeof(float));
            done += count, c = 0, ++tap;
        }
        for (; done < width; ++done) to[done] = 0.0f;
        if (++j == g.Q) {
            j = 0;
            if (++i == g.P) i = 0, ++n;
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
    GemmTile t;
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
    const Gather gather = forward_gather(g, x, nullptr, nullptr);
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
                pack_im2col(g, gather, group, panel * plan.panels.width, plan.panels.columns_of(panel), width, begin,
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
