#include "gemm.h"

#include <string.h>

#include "parallel.h"

namespace nnlite {

void pack_tap(const Kernels& k, const WeightView& v, const float* w, int64_t columns, int64_t width, float* to) {
    if (v.depth_stride == 1 && v.column_stride != 1)
        return k.pack_transposed(v.depth, columns, width, w, v.column_stride, to);
    for (int64_t d = 0; d < v.depth; ++d, to += width) {
        const float* from = w + d * v.depth_stride;
        if (v.column_stride == 1)
            memcpy(to, from, static_cast<size_t>(columns) * sizeof(float));
        else
            for (int64_t c = 0; c < columns; ++c) to[c] = from[c * v.column_stride];
        for (int64_t c = columns; c < width; ++c) to[c] = 0.0f;
    }
}

void pack_weights(const Kernels& k, const Panels& panels, const WeightView& view, const Axis& h, const Axis& w,
                  float* packed) {
    const int64_t count = panels.count();
    const int64_t work = panels.length * panels.width;
    parallel_for(view.groups * count, grain_for(work, 1 << 15), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t group = item / count, panel = item % count;
            const int64_t width = panels.vectors_of(panel) * panels.vector;
            const float* from = view.w + group * view.group_stride + panel * panels.width * view.column_stride;
            float* to = packed + group * panels.floats() + panels.start(panel);
            for (int64_t a = 0; a < h.taps; ++a)
                for (int64_t b = 0; b < w.taps; ++b, to += view.depth * width)
                    pack_tap(k, view, from + h.weight_tap(a) * view.r_stride + w.weight_tap(b) * view.s_stride,
                             panels.columns_of(panel), width, to);
        }
    });
}

namespace {

// Row pointers of one block of output rows. They live on the stack, 32 KB at most: threads of some C
// libraries have 128 KB in all.
constexpr int64_t max_pointers = 4096;
constexpr int64_t max_block_rows = 384;

struct Block {
    const float* rows[max_pointers];  // [tile][tap][tile_rows]
    float* out[max_block_rows];
};

// The pointers of one tap (a,b) for `count` neighbours from output (i,j) of image n on.
void locate_run(const Gather& g, int64_t n, int64_t i, int64_t j, int64_t a, int64_t b, int64_t count,
                const float** to) {
    const int64_t y = i * g.h.step + g.h.offset(a), x = j * g.w.step + g.w.offset(b);
    if (y < 0 || y >= g.h.source) {
        for (int64_t r = 0; r < count; ++r) to[r] = g.zeros;
        return;
    }
    const bool whole = g.border.copies ? j >= g.border.inner.begin && j + count <= g.border.inner.end
                                       : x >= 0 && x + (count - 1) * g.w.step < g.w.source;
    if (whole) {
        const float* from = g.source + n * g.source_grid.image + y * g.source_grid.row + x * g.source_grid.pixel;
        const int64_t step = g.w.step * g.source_grid.pixel;
        for (int64_t r = 0; r < count; ++r) to[r] = from + r * step;
    } else {
        for (int64_t r = 0; r < count; ++r) to[r] = g.at(n, i, j + r, a, b);
    }
}

// Fills the pointers of output rows [begin, end) for the taps [tap_begin, tap_end), neighbours together:
// with few channels the pointers would cost as much as the products.
void locate(const Gather& g, int64_t tile_rows, int64_t begin, int64_t end, int64_t tap_begin, int64_t tap_end,
            Block& block) {
    int64_t j = begin % g.w.out, i = begin / g.w.out % g.h.out, n = begin / g.w.out / g.h.out;
    const int64_t taps = tap_end - tap_begin;
    const int64_t first_a = tap_begin / (g.w.taps ? g.w.taps : 1), first_b = tap_begin - first_a * g.w.taps;
    for (int64_t m = begin; m < end;) {
        const int64_t row = m - begin, lane = row % tile_rows;
        int64_t count = tile_rows - lane;  // neighbours in this tile and this row of the output
        if (count > end - m) count = end - m;
        if (count > g.w.out - j) count = g.w.out - j;
        for (int64_t r = 0; r < count; ++r) block.out[row + r] = g.to(n, i, j + r);
        const float** to = block.rows + row / tile_rows * taps * tile_rows + lane;
        int64_t a = first_a, b = first_b;
        for (int64_t t = 0; t < taps; ++t, to += tile_rows) {
            locate_run(g, n, i, j, a, b, count, to);
            if (++b == g.w.taps) b = 0, ++a;
        }
        m += count;
        if ((j += count) == g.w.out) {
            j = 0;
            if (++i == g.h.out) i = 0, ++n;
        }
    }
}

// The source rows that the next tile will read through its last tap, for the microkernel to ask for, or null where
// no whole tile is left. Going down an image, the last tap is the first to reach a source row, so that each is
// asked for about once. Twelve rows in twelve places are too many streams for the hardware to foresee.
const float* const* rows_after(const GemmTile& t, int64_t tile_rows, int64_t left) {
    return left >= tile_rows && t.taps > 0 ? t.a + (2 * t.taps - 1) * tile_rows : nullptr;
}

// How the output is cut: by geometry and tile shape alone.
struct Cut {
    int64_t block_rows, blocks;
    int64_t tap_block;
    int64_t panel_block, panel_blocks;

    Cut(const Kernels& k, const Gather& g, const Panels& panels, int64_t groups) {
        const int64_t taps = g.taps() > 0 ? g.taps() : 1;
        tap_block = max_pointers / k.tile_rows;
        if (tap_block > taps) tap_block = taps;
        int64_t tiles = max_pointers / (tap_block * k.tile_rows);
        if (tiles > max_block_rows / k.tile_rows) tiles = max_block_rows / k.tile_rows;
        // Some 32 pieces of work, so that two to eight threads share them evenly. Fewer rows per piece first;
        // but where the weights are large (512 -> 512 3x3: 9 MB) they would stream through every piece, so that
        // there pieces keep their rows and share out the panels.
        constexpr int64_t pieces = 32;
        const int64_t least = panels.floats() > (1 << 17) ? 16 : 4;
        const int64_t all_tiles = (g.rows() + k.tile_rows - 1) / k.tile_rows;
        while (tiles > least && (all_tiles + tiles - 1) / tiles * groups < pieces) --tiles;
        blocks = (all_tiles + tiles - 1) / tiles;
        block_rows = (all_tiles + blocks - 1) / blocks * k.tile_rows;
        blocks = (g.rows() + block_rows - 1) / block_rows;
        const int64_t wanted = (pieces + blocks * groups - 1) / (blocks * groups);
        panel_block = (panels.count() + wanted - 1) / wanted;
        panel_blocks = (panels.count() + panel_block - 1) / panel_block;
    }
};

}  // namespace

void gather_gemm(const Kernels& k, const Gather& gather, const Panels& panels, const float* packed, int64_t depth,
                 int64_t groups, const float* bias) {
    const int64_t rows = gather.rows(), taps = gather.taps();
    if (rows == 0) return;
    const Cut cut(k, gather, panels, groups);
    const int64_t work = cut.block_rows * cut.panel_block * panels.width * panels.length;
    parallel_for(cut.blocks * groups * cut.panel_blocks, grain_for(work), [&](int64_t begin, int64_t end) {
        Block block;
        for (int64_t item = begin; item < end; ++item) {
            const int64_t panel_begin = item % cut.panel_blocks * cut.panel_block;
            const int64_t group = item / cut.panel_blocks % groups;
            const int64_t row_begin = item / cut.panel_blocks / groups * cut.block_rows;
            const int64_t row_end = row_begin + cut.block_rows < rows ? row_begin + cut.block_rows : rows;
            int64_t panel_end = panel_begin + cut.panel_block;
            if (panel_end > panels.count()) panel_end = panels.count();
            int64_t tap = 0;
            do {  // once even where no tap reaches the output: it gets its bias or zeros
                const int64_t tap_end = tap + cut.tap_block < taps ? tap + cut.tap_block : taps;
                locate(gather, k.tile_rows, row_begin, row_end, tap, tap_end, block);
                for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
                    const int64_t vectors = panels.vectors_of(panel);
                    GemmTile t;
                    t.taps = tap_end - tap, t.depth = depth;
                    t.a_offset = group * depth, t.a_step = 1;
                    t.b = packed + group * panels.floats() + panels.start(panel) +
                          tap * depth * vectors * panels.vector;
                    t.out_offset = group * panels.columns + panel * panels.width;
                    t.bias = bias && tap == 0 ? bias + t.out_offset : nullptr;
                    t.columns = panels.columns_of(panel);
                    t.accumulate = tap > 0;
                    for (int64_t row = row_begin; row < row_end; row += k.tile_rows) {
                        const int64_t left = row_end - row < k.tile_rows ? row_end - row : k.tile_rows;
                        t.a = block.rows + (row - row_begin) * t.taps;
                        t.out = block.out + (row - row_begin);
                        t.next = panel == panel_begin ? rows_after(t, k.tile_rows, row_end - row - left) : nullptr;
                        k.gemm_tile[vectors - 1][left - 1](t);
                    }
                }
                tap = tap_end;
            } while (tap < taps);
        }
    });
}

}  // namespace nnlite
