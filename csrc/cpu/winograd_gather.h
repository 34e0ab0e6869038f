// Gathers at step 1 by Winograd: how they are cut up, and what they need (winograd_gather.cpp).
#pragma once

#include "dispatch.h"
#include "gemm.h"
#include "winograd.h"
#include "workspace.h"

namespace nnlite {

// F(m x m, r x r), and its place in Kernels::winograd.
struct WinogradForm {
    int64_t m, r;
    int at;
};
constexpr WinogradForm winograd_2x3 = {2, 3, 0}, winograd_4x3 = {4, 3, 1}, winograd_4x2 = {4, 2, 2};

// Gathers whose sums add up to one output. An axis may have a tap less than r: then its weight is 0, and so are the
// products at the point of infinity. Sources for which that is so lie beside each other, for rows and for columns,
// and for one of them it is not so.
constexpr int64_t max_sources = 4;
struct Sources {
    int64_t count;
    Gather of[max_sources];
    const Gather& out() const { return of[0]; }
};

// A forward convolution: one source for each phase of x that a stride makes.
inline Sources source_phases(const Conv2d& g, const float* x, float* y) {
    Sources s = {};
    for (int64_t h = 0; h < g.stride_h; ++h)
        for (int64_t i = 0; i < g.stride_w; ++i)  // there and back: earlier phases have more taps
            s.of[s.count++] = source_phase_gather(g, x, y, h, h % 2 ? i : g.stride_w - 1 - i);
    return s;
}

struct Winograd {
    enum Order { tiles_outside, panels_outside, points_outside };

    Workspace workspace;
    const Kernels& k;
    WinogradForm form;
    const WinogradKernels& maps;
    Tiles map;
    int64_t edge, points, tiles;
    int64_t channels, depth;  // of one source, of all
    Range parts[2][2];        // of the depth: what is not 0 at points of which row and column are infinity or not
    Panels panels;
    Order order;
    int64_t block, blocks;      // tiles in a block
    int64_t piece;              // rows of U that are made at a time
    int64_t data_plane;  // of V, which is [depth / piece][point][tile][piece]
    int64_t weight_plane;  // of U [panel or lane][point][piece][width]
    int64_t row, all_plane;  // of M with all its panels [point][tile][row]
    int64_t lane_count, lane_data, lane_weights, lane_products, lane_packed;
    float *data, *weights, *products, *packed;  // packed weights [lane][r][r][weight_rows][width]
    const float* ready;                         // U [panel][point][depth][width], or null

    // With `prepared`, U of all panels is there already.
    Winograd(WinogradForm form_, const Sources& s, int64_t channels_, int64_t columns, const void* prepared,
             void* memory);

    // U of one panel, where all are there.
    const float* weights_of(int64_t panel) const { return (ready ? ready : weights) + panel * lane_weights; }

    // The part of the rows [begin, end) of U that is not 0 at a point.
    Range rows_at(int64_t point, int64_t begin, int64_t end) const {
        const Range& part = parts[point / edge == edge - 1][point % edge == edge - 1];
        Range rows = {begin > part.begin ? begin : part.begin, end < part.end ? end : part.end};
        if (rows.begin > rows.end) rows.begin = rows.end;
        return rows;
    }

    int64_t product_plane() const { return odd_lines(block * panels.width); }

    size_t prepared_size() const { return static_cast<size_t>(panels.count() * lane_weights) * sizeof(float); }

   private:
    void choose_block();
};

// out = act(sum of gather · weights + bias + residual); no function: its items write tiles, scattered over the picture.
void convolve(const Winograd& plan, const Sources& s, const WeightView& view, const Epilogue& epilogue);

// U of all panels, Winograd::prepared_size() bytes.
void prepare(const Winograd& plan, const Sources& s, const WeightView& view, void* prepared);

}  // namespace nnlite
