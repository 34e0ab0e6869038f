// Weight gradient of the convolution, dense and grouped: gw [K, R·S·C] = gy^T [K, N·P·Q] · im2col(x) [N·P·Q, R·S·C].
//
// The work is cut into ranges of pixels, blocks of rows k and blocks of columns (r,s,c); within one such item:
//
//   for each block of pixels
//       for each panel of 32 columns: copy it from x, with its padding, to stay in the first-level cache
//           for each tile of rows k: gw (+)= gy^T · panel, walking down gy's columns; ask for what the next block needs
//
// Each range of pixels has a partial gw of its own, added up in order: the cut depends on the geometry alone, so the
// bits do not depend on the threads. Copying gy too, to walk down strips as wide as a tile, costs more than it saves.
// Limited by multiplications, except where maps are large and channels few: there by memory.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

constexpr int64_t pixel_block = 256;  // a panel of 256 x 32 floats fills two thirds of a 48 KB first-level cache
constexpr int64_t max_rows = 576, max_columns = 512;  // of an item
constexpr int64_t least_pixels = 768;                 // of an item, where there are several ranges
constexpr int64_t least_items = 16;                   // for two to eight threads
constexpr int64_t lanes = 16;                         // runs of items with a scratch of their own
// x and gy are asked for ahead where they come from memory and few products per float would hide that.
constexpr int64_t far = 3 << 20, few_products = 320;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A 1x1 convolution that takes every pixel is one long row of pixels.
Conv2d flattened(const Conv2d& g) {
    if (g.taps() != 1 || g.stride_h != 1 || g.stride_w != 1 || g.P != g.H || g.Q != g.W || g.pad_top || g.pad_left)
        return g;
    Conv2d flat = g;
    flat.N = flat.H = flat.P = 1;
    flat.W = flat.Q = g.N * g.H * g.W;
    return flat;
}

struct GradWeight {
    Workspace workspace;
    const Kernels& k;
    Conv2d g;
    Panels panels;  // of im2col(x)
    int64_t pixels, splits, split_pixels;
    int64_t tiles, row_blocks;  // of gy's columns
    int64_t column_blocks;
    int64_t items, lane_count;
    bool ask;
    int64_t lane_panel;
    float *partial, *panel;  // [splits - 1][K][R·S·C], [lane][pixel][width]

    GradWeight(const Conv2d& g_, void* memory)
        : workspace(memory),
          k(kernels()),
          g(flattened(g_)),
          panels(k, g.taps() * g.group_C(), 0),
          pixels(g.N * g.P * g.Q) {
        tiles = ceil_div(g.group_K(), k.tile_rows);
        row_blocks = ceil_div(g.group_K(), max_rows);
        column_blocks = ceil_div(panels.columns, max_columns);
        const int64_t weights = g.K * panels.columns;
        splits = ceil_div(least_items, g.groups * row_blocks * column_blocks);
        const int64_t affordable = (int64_t{4} << 20) / weights;  // 16 MB of partial sums
        if (splits > affordable) splits = affordable;
        if (splits > pixels / least_pixels) splits = pixels / least_pixels;
        if (splits < 1) splits = 1;
        split_pixels = ceil_div(pixels, splits);
        const int64_t wanted = ceil_div(least_items, splits * g.groups * row_blocks);
        if (column_blocks < wanted) column_blocks = wanted < panels.count() ? wanted : panels.count();
        items = splits * g.groups * row_blocks * column_blocks;
        lane_count = items < lanes ? items : lanes;
        const int64_t floats = g.N * g.H * g.W * g.C + pixels * g.K;
        ask = floats > far && pixels * weights / floats < few_products;
        lane_panel = pixel_block * panels.width;
        partial = workspace.take<float>((splits - 1) * weights);
        panel = workspace.take<float>(lane_count * lane_panel);
    }
};

// The floats [from, upto) of a kernel row as they lie in im2col(x). Where its taps are adjacent pixels with all their
// channels, a kernel row of S·C floats is one piece of memory; else it is a tap with the C channels of its group.
struct Piece {
    int64_t row_offset, column;  // of input rows and columns: what output (0,0) meets
    int64_t from, upto;
    Range rows, columns;  // outputs whose pixels from the first to the last that is needed lie in the input

    Piece(const Conv2d& g, int64_t row_taps, int64_t tap, int64_t from_, int64_t most) : from(from_) {
        const int64_t C = g.group_C(), length = row_taps * C;
        upto = from + most < length ? from + most : length;
        row_offset = tap / g.S * g.dilation_h - g.pad_top;
        column = tap % g.S * g.dilation_w - g.pad_left;
        const int64_t first = from / C, last = (upto - 1) / C;
        rows = range_inside(row_offset, g.stride_h, g.H, g.P);
        columns = range_inside(column + first, g.stride_w, g.W - (last - first), g.Q);
    }
};

// A piece for the outputs [q, q_end) of an output row that meets the input row x, or none: to [q][width].
void copy_piece(const GradWeight& plan, const Piece& piece, const float* x, int64_t q, int64_t q_end, int64_t width,
                float* to) {
    const Conv2d& g = plan.g;
    const int64_t C = g.group_C();
    for (; q < q_end; to += width) {
        const int64_t w = piece.column + q * g.stride_w;
        if (x && q >= piece.columns.begin && q < piece.columns.end) {
            const int64_t end = piece.columns.end < q_end ? piece.columns.end : q_end;
            plan.k.copy_strip(end - q, piece.upto - piece.from, x + w * g.C + piece.from, g.stride_w * g.C, to, width);
            to += (end - q - 1) * width, q = end;
            continue;
        }
        // Of the floats [from, upto) those in [low, high) lie in the input.
        int64_t low = w < 0 ? -w * C : 0, high = x ? (g.W - w) * C : 0;
        if (high > piece.upto) high = piece.upto;
        if (low < piece.from) low = piece.from;
        if (high < low) low = high = piece.upto;
        float* target = to - piece.from;
        for (int64_t i = piece.from; i < low; ++i) target[i] = 0.0f;
        for (int64_t i = low; i < high; ++i) target[i] = x[w * g.C + i];
        for (int64_t i = high; i < piece.upto; ++i) target[i] = 0.0f;
        ++q;
    }
}

// Columns [first, first + columns) of im2col(x) for the pixels [begin, end): to [pixel][width].
void copy_panel(const GradWeight& plan, const float* x, int64_t group, int64_t first, int64_t columns, int64_t width,
                int64_t begin, int64_t end, float* to) {
    const Conv2d& g = plan.g;
    const int64_t C = g.group_C(), row_taps = g.dilation_w == 1 && g.groups == 1 ? g.S : 1;
    for (int64_t done = 0; done < columns;) {
        const int64_t at = first + done, length = row_taps * C;
        const Piece piece(g, row_taps, at / length * row_taps, at % length, columns - done);
        int64_t q = begin % g.Q, p = begin / g.Q % g.P, n = begin / g.Q / g.P;
        for (int64_t m = begin; m < end;) {
            const int64_t count = g.Q - q < end - m ? g.Q - q : end - m;
            const float* row = nullptr;
            if (p >= piece.rows.begin && p < piece.rows.end)
                row = x + (n * g.H + p * g.stride_h + piece.row_offset) * g.W * g.C + group * C;
            copy_piece(plan, piece, row, q, q + count, width, to + (m - begin) * width + done);
            m += count, q = 0;
            if (++p == g.P) p = 0, ++n;
        }
        done += piece.upto - piece.from;
    }
}

// What an item will read next: for each of its pixels to come the rows of x and gy, in parts of `depth` floats. Of a
// larger kernel than 1x1 only the last tap is asked for, the first to reach a row of x.
struct Ahead {
    const GradWeight& plan;
    const float *x, *gy;
    int64_t end, depth;
    int64_t x_parts, parts;  // of a pixel
    int64_t pixel, part;     // the next

    Ahead(const GradWeight& plan_, const float* x_, int64_t columns, const float* gy_, int64_t rows, int64_t begin,
          int64_t end_, int64_t depth_)
        : plan(plan_), x(x_), gy(gy_), end(end_), depth(depth_), pixel(begin), part(0) {
        x_parts = ceil_div(columns, depth);
        parts = x_parts + ceil_div(rows, depth);
    }

    const float* next() {
        const Conv2d& g = plan.g;
        const float* row = gy + pixel * g.K + (part - x_parts) * depth;
        if (part < x_parts) {
            const int64_t q = pixel % g.Q, p = pixel / g.Q % g.P, n = pixel / g.Q / g.P;
            const int64_t h = p * g.stride_h - g.pad_top + (g.R - 1) * g.dilation_h;
            const int64_t w = q * g.stride_w - g.pad_left + (g.S - 1) * g.dilation_w;
            row = x;
            if (h >= 0 && h < g.H && w >= 0 && w < g.W) row += ((n * g.H + h) * g.W + w) * g.C + part * depth;
        }
        if (++part == parts) part = 0, ++pixel;
        return row;
    }

    // The next `count` of them, or false where all have been asked for.
    bool take(const float** rows, int64_t count) {
        for (int64_t i = 0; i < count; ++i) rows[i] = pixel < end ? next() : gy;
        return pixel < end;
    }
};

// One item: the pixels [first, last), the tiles [tile_begin, tile_end) and the panels [panel_begin, panel_end) of
// `to` [K, R·S·C].
void add_products(const GradWeight& plan, const float* x, const float* gy, int64_t group, int64_t first, int64_t last,
                  int64_t tile_begin, int64_t tile_end, int64_t panel_begin, int64_t panel_end, float* copied,
                  float* to) {
    const Conv2d& g = plan.g;
    const Kernels& k = plan.k;
    const int64_t K = g.group_K(), columns = plan.panels.columns;
    // 64 rows as 11+11+11+11+10+10: a last tile of 4 rows would have too few chains to hide latency.
    const auto row = [&](int64_t tile) { return tile * K / plan.tiles; };
    const int64_t blocks = ceil_div(last - first, pixel_block), block = ceil_div(last - first, blocks);
    for (int64_t begin = first; begin < last; begin += block) {
        const int64_t end = begin + block < last ? begin + block : last, pixels = end - begin;
        const int64_t column = panel_begin * plan.panels.width;
        const int64_t upto = panel_end * plan.panels.width < columns ? panel_end * plan.panels.width : columns;
        const bool alone = g.taps() == 1;
        const int64_t channels = alone ? upto - column : upto == columns ? g.group_C() : 0;
        Ahead ahead(plan, x + group * g.group_C() + (alone ? column : 0), channels, gy + group * K + row(tile_begin),
                    row(tile_end) - row(tile_begin), end, end + block < last ? end + block : last, pixels);
        for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
            const int64_t width = plan.panels.vectors_of(panel) * plan.panels.vector;
            copy_panel(plan, x, group, panel * plan.panels.width, plan.panels.columns_of(panel), width, begin, end,
                       copied);
            const float *a[max_tile_rows], *next[max_tile_rows];
            float* out[max_tile_rows];
            GemmTile t = {};
            t.taps = 1, t.depth = pixels;
            t.a = a, t.b = copied;
            t.out = out, t.out_offset = panel * plan.panels.width;
            t.columns = plan.panels.columns_of(panel);
            t.accumulate = begin > first;
            for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
                const int64_t rows = row(tile + 1) - row(tile);
                t.a_step = g.K;
                for (int64_t i = 0; i < rows; ++i) {
                    a[i] = gy + begin * g.K + group * K + row(tile) + i;
                    out[i] = to + (group * K + row(tile) + i) * columns;
                }
                t.next = plan.ask && ahead.take(next, rows) ? next : nullptr;
                k.gemm_tile[plan.panels.vectors_of(panel) - 1][rows - 1](t);
            }
        }
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
    parallel_for(plan.lane_count, 1, [&](int64_t lane, int64_t) {
        float* copied = plan.panel + lane * plan.lane_panel;
        memset(copied, 0, static_cast<size_t>(plan.lane_panel) * sizeof(float));  // columns behind the last
        const int64_t item_end = (lane + 1) * plan.items / plan.lane_count;
        for (int64_t item = lane * plan.items / plan.lane_count; item < item_end; ++item) {
            const int64_t column_block = item % plan.column_blocks;
            const int64_t row_block = item / plan.column_blocks % plan.row_blocks;
            const int64_t group = item / plan.column_blocks / plan.row_blocks % plan.g.groups;
            const int64_t split = item / plan.column_blocks / plan.row_blocks / plan.g.groups;
            const int64_t first = split * plan.split_pixels;
            const int64_t last = first + plan.split_pixels < plan.pixels ? first + plan.split_pixels : plan.pixels;
            float* to = split == 0 ? gw : plan.partial + (split - 1) * weights;
            add_products(plan, x, gy, group, first, last, row_block * plan.tiles / plan.row_blocks,
                         (row_block + 1) * plan.tiles / plan.row_blocks,
                         column_block * plan.panels.count() / plan.column_blocks,
                         (column_block + 1) * plan.panels.count() / plan.column_blocks, copied, to);
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
