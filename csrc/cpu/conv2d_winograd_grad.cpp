// Weight gradient of a convolution: the adjoint of Winograd's F(4x4, r x r) with respect to w, for 3x3 kernels at
// stride 1 and for kernels twice as large as their stride, each phase of which meets 2x2 taps. Lavin & Gray 2015, https://arxiv.org/abs/1509.09308; the transforms are in isa/winograd.inl.
//
//   V[xi][t][c] = B^T x B     Z[xi][t][k] = A gy A^T     D[xi][k][c] = sum_t Z[xi][t][k] V[xi][t][c]     gw = G^T D G
//
// with t over tiles of 4x4 output pixels and one matrix product for each of the (r + 3)^2 points xi. Tiles go in
// rounds whose V and Z are a few megabytes, but twice as large as D, which every round reads and writes: what one
// core gets of a third-level cache is less than it looks (20 MB took twice the time). In a round one point after the
// other runs over all panels of 32 columns c and all blocks of rows k. Where weights are many, one round holds all
// tiles, and the D of a panel and a block turns into gw while it is still in the second-level cache. Sums run over
// the tiles in order, whoever computes them.
//
// Relative error on unit-scale data: 2e-6. Limited by multiplications, and by writing V and Z where channels
// are few.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel.h"
#include "winograd_gather.h"

namespace nnlite {
namespace {

constexpr int64_t round_floats = 1 << 20;           // V and Z: 4 MB
constexpr int64_t depth_block = 256;                // tiles: 32 KB of V, within the first-level cache
constexpr int64_t lanes = 16;
constexpr int64_t max_rows = 96;

struct WinogradGrad {
    Workspace workspace;
    const Kernels& k;
    WinogradForm form;
    const WinogradKernels& maps;
    Sources sources;
    int64_t edge, points;
    Tiles tiles;
    Panels panels;              // of one source's channels
    int64_t panel_count;        // of V, which is [source, panel][point][tile][width]
    int64_t blocks, rows;       // of Z: [block][point][tile][rows]
    int64_t round, rounds;      // tiles in a round
    bool apart;                 // D of all weights is stored, and transformed at the end
    int64_t lane_count;
    int64_t data_plane, output_plane, sum_plane;
    float *data, *outputs, *sums;

    WinogradGrad(WinogradForm form_, const Conv2d& g, const float* x, void* memory)
        : workspace(memory),
          k(kernels()),
          form(form_),
          maps(k.winograd[form.at]),
          sources(source_phases(g, x, nullptr)),
          edge(form.m + form.r - 1),
          points(edge * edge),
          tiles(form.m, sources.out()),
          panels(k, g.C, 0),
          panel_count(sources.count * panels.count()) {
        blocks = (g.K + max_rows - 1) / max_rows;
        rows = (g.K + blocks - 1) / blocks;
        blocks = (g.K + rows - 1) / rows;
        const int64_t sums_floats = points * panel_count * panels.width * blocks * rows;
        const int64_t wanted = 2 * sums_floats > round_floats ? 2 * sums_floats : round_floats;
        const int64_t affordable = wanted / (points * (panel_count * panels.width + blocks * rows));
        rounds = (tiles.count + affordable) / (affordable + 1);
        round = rounds > 0 ? (tiles.count + rounds - 1) / rounds : 0;
        apart = rounds > 1 || panel_count * blocks < lanes;
        lane_count = panel_count * blocks;
        if (!apart && lane_count > lanes) lane_count = lanes;
        data_plane = odd_lines(round * panels.width);
        output_plane = odd_lines(round * rows);
        sum_plane = odd_lines(rows * panels.width);
        data = workspace.take<float>(panel_count * points * data_plane);
        outputs = workspace.take<float>(blocks * points * output_plane);
        sums = workspace.take<float>(lane_count * points * sum_plane);
    }

    int64_t source_of(int64_t panel) const { return panel / panels.count(); }
    int64_t first_channel(int64_t panel) const { return panel % panels.count() * panels.width; }
    int64_t channels_of(int64_t panel) const { return panels.columns_of(panel % panels.count()); }
    int64_t rows_of(const Conv2d& g, int64_t block) const {
        return (block + 1) * rows < g.K ? rows : g.K - block * rows;
    }
};

// One square of pixels of an image of H x W, from (y, x) on, in pieces of `width` channels, to row `row` of each
// piece's planes.
void transform(const WinogradGrad& plan, void (*map)(const WinogradMap&), const float* image, const Grid& grid, int64_t H,
               int64_t W, int64_t channels, int64_t y, int64_t x, int64_t width, int64_t plane, int64_t row, float* to) {
    WinogradMap t = {};
    t.from_row = grid.row, t.from_column = grid.pixel;
    t.to_row = plan.edge * plane, t.to_column = plane;
    t.top = -y, t.bottom = H - y, t.left = -x, t.right = W - x;
    for (int64_t c = 0; c < channels; c += width, to += plan.points * plane) {
        t.channels = channels - c < width ? channels - c : width;
        t.from = image + y * t.from_row + x * t.from_column + c;
        t.to = to + row * width;
        map(t);
    }
}

// V and Z of the tiles [first, last).
void transform_tiles(const WinogradGrad& plan, const Conv2d& g, const float* gy, int64_t first, int64_t last) {
    const Grid gy_grid = plan.sources.out().out_grid;
    const int64_t m = plan.form.m, edge = plan.edge;
    const int64_t work = (plan.sources.count * g.C + g.K) * plan.points * 8;
    parallel_for(last - first, grain_for(work), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const Tiles::Place at = plan.tiles.place(first + row);
            for (int64_t number = 0; number < plan.sources.count; ++number) {
                const Gather& source = plan.sources.of[number];
                const Grid& grid = source.source_grid;
                const int64_t top = at.i + source.h.offset(0), left = at.j + source.w.offset(0);
                const float* image = source.source + at.n * grid.image;
                prefetch_pixels<0>(image + top * grid.row + (left + m) * grid.pixel, grid, edge, 2, edge, g.C);
                transform(plan, plan.maps.data, image, grid, source.h.source, source.w.source, g.C, top, left,
                          plan.panels.width, plan.data_plane, row,
                          plan.data + number * plan.panels.count() * plan.points * plan.data_plane);
            }
            const float* gy_image = gy + at.n * gy_grid.image;
            prefetch_pixels<0>(gy_image + at.i * gy_grid.row + (at.j + m) * g.K, gy_grid, m, 0, m, g.K);
            transform(plan, plan.maps.output_adjoint, gy_image, gy_grid, g.P, g.Q, g.K, at.i, at.j, plan.rows,
                      plan.output_plane, row, plan.outputs);
        }
    });
}

// D (+)= Z^T V of one panel and block over `count` tiles, at the points [begin, end).
void multiply(const WinogradGrad& plan, const Conv2d& g, int64_t panel, int64_t block, int64_t count, int64_t begin,
              int64_t end, bool accumulate, float* sums) {
    const Kernels& k = plan.k;
    const int64_t K = plan.rows_of(g, block), tile_count = (K + k.tile_rows - 1) / k.tile_rows;
    const int64_t width = plan.panels.width, points = plan.points;
    const float* a[max_tile_rows];
    float* out[max_tile_rows];
    GemmTile t = {};
    t.taps = 1, t.a = a, t.a_offset = 0, t.a_step = plan.rows;
    t.bias = nullptr, t.out = out, t.out_offset = 0, t.columns = plan.channels_of(panel);
    for (int64_t point = begin; point < end; ++point)
        for (int64_t first = 0; first < count; first += depth_block) {
            t.depth = count - first < depth_block ? count - first : depth_block;
            t.accumulate = accumulate || first > 0;
            t.b = plan.data + (panel * points + point) * plan.data_plane + first * width;
            const float* z = plan.outputs + (block * points + point) * plan.output_plane + first * plan.rows;
            for (int64_t tile = 0; tile < tile_count; ++tile) {
                const int64_t row = tile * K / tile_count, count_ = (tile + 1) * K / tile_count - row;
                for (int64_t i = 0; i < count_; ++i) {
                    a[i] = z + row + i;
                    out[i] = sums + point * plan.sum_plane + (row + i) * width;
                }
                k.gemm_tile[k.tile_vectors - 1][count_ - 1](t);
            }
        }
}

// gw of one panel and block: the taps that its source meets.
void transform_sums(const WinogradGrad& plan, const Conv2d& g, int64_t panel, int64_t block, const float* sums,
                    float* gw) {
    const Gather& source = plan.sources.of[plan.source_of(panel)];
    const int64_t rows = plan.rows_of(g, block), r = plan.form.r, weights = g.taps() * g.C;
    WinogradMap t = {};
    t.channels = plan.channels_of(panel);
    t.from_row = plan.edge * plan.sum_plane, t.from_column = plan.sum_plane;
    t.to_row = source.h.tap_step * g.S * g.C, t.to_column = source.w.tap_step * g.C;
    gw += (source.h.first_tap * g.S + source.w.first_tap) * g.C + plan.first_channel(panel);
    for (int64_t row = 0; row < rows; ++row) {
        t.from = sums + row * plan.panels.width;
        t.to = gw + (block * plan.rows + row) * weights;
        if (row + 1 < rows)  // the next row's lines of D and gw, too many runs for the hardware to foresee
            for (int64_t c = 0; c < t.channels; c += 16) {
                for (int64_t point = 0; point < plan.points; ++point)
                    __builtin_prefetch(t.from + plan.panels.width + point * plan.sum_plane + c);
                for (int64_t tap = 0; tap < r * r; ++tap)
                    __builtin_prefetch(t.to + weights + tap / r * t.to_row + tap % r * t.to_column + c, 1);
            }
        plan.maps.weight_adjoint(t);
    }
}

void grad_weight(WinogradForm form, const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    const WinogradGrad plan(form, g, x, workspace);
    if (plan.tiles.count == 0) {
        memset(gw, 0, static_cast<size_t>(g.K * g.taps() * g.C) * sizeof(float));
        return;
    }
    const int64_t items = plan.panel_count * plan.blocks, lane_sums = plan.points * plan.sum_plane;
    for (int64_t first = 0; first < plan.tiles.count; first += plan.round) {
        const int64_t last = first + plan.round < plan.tiles.count ? first + plan.round : plan.tiles.count;
        transform_tiles(plan, g, gy, first, last);
        if (plan.apart)
            parallel_for(plan.points, 1, [&](int64_t point, int64_t) {
                for (int64_t pair = 0; pair < items; ++pair)
                    multiply(plan, g, pair / plan.blocks, pair % plan.blocks, last - first, point, point + 1, first > 0,
                             plan.sums + pair * lane_sums);
            });
    }
    parallel_for(plan.lane_count, 1, [&](int64_t lane, int64_t) {
        float* sums = plan.sums + lane * lane_sums;
        for (int64_t item = lane * items / plan.lane_count; item < (lane + 1) * items / plan.lane_count; ++item) {
            const int64_t panel = item / plan.blocks, block = item % plan.blocks;
            if (!plan.apart) multiply(plan, g, panel, block, plan.tiles.count, 0, plan.points, false, sums);
            transform_sums(plan, g, panel, block, sums, gw);
        }
    });
}

}  // namespace

size_t conv2d_grad_weight_winograd_workspace(const Conv2d& g) {
    return WinogradGrad(winograd_4x3, g, nullptr, nullptr).workspace.size();
}
void conv2d_grad_weight_winograd(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    grad_weight(winograd_4x3, g, x, gy, gw, workspace);
}

size_t conv2d_grad_weight_winograd4x2_workspace(const Conv2d& g) {
    return WinogradGrad(winograd_4x2, g, nullptr, nullptr).workspace.size();
}
void conv2d_grad_weight_winograd4x2(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    grad_weight(winograd_4x2, g, x, gy, gw, workspace);
}

}  // namespace nnlite
