#include "gemm.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "after.h"
#include "bands.h"
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
    const float* residual[max_block_rows];
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
void locate(const Gather& g, const Epilogue& epilogue, int64_t tile_rows, int64_t begin, int64_t end,
            int64_t tap_begin, int64_t tap_end, Block& block) {
    int64_t j = begin % g.w.out, i = begin / g.w.out % g.h.out, n = begin / g.w.out / g.h.out;
    const int64_t taps = tap_end - tap_begin;
    const int64_t first_a = tap_begin / (g.w.taps ? g.w.taps : 1), first_b = tap_begin - first_a * g.w.taps;
    for (int64_t m = begin; m < end;) {
        const int64_t row = m - begin, lane = row % tile_rows;
        int64_t count = tile_rows - lane;  // neighbours in this tile and this row of the output
        if (count > end - m) count = end - m;
        if (count > g.w.out - j) count = g.w.out - j;
        for (int64_t r = 0; r < count; ++r) {
            block.out[row + r] = g.to(n, i, j + r);
            block.residual[row + r] = epilogue.beside(g.out, block.out[row + r]);
        }
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

// Before anyone else reads what went past the caches.
void done_streaming() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

// ---- many rows: all weights are packed first

void with_many_rows(const Kernels& k, const Gather& gather, const Panels& panels, const WeightView& view,
                    const float* packed, const Epilogue& epilogue, float* scratch) {
    if (!packed) {
        pack_weights(k, panels, view, gather.h, gather.w, scratch);
        packed = scratch;
    }
    const int64_t rows = gather.rows(), taps = gather.taps(), depth = view.depth, groups = view.groups;
    const Cut cut(k, gather, panels, groups);
    // Every group's columns must be whole lines: their panels are stored apart.
    const bool stream = cut.tap_block >= taps && !has_function(epilogue.act) &&
                        streams(gather.out, rows * groups * panels.columns, panels.columns);
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
                locate(gather, epilogue, k.tile_rows, row_begin, row_end, tap, tap_end, block);
                const bool last = tap_end == taps;
                for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
                    const int64_t vectors = panels.vectors_of(panel);
                    GemmTile t = {};
                    t.taps = tap_end - tap, t.depth = depth;
                    t.a_offset = group * depth, t.a_step = 1;
                    t.b = packed + group * panels.floats() + panels.start(panel) +
                          tap * depth * vectors * panels.vector;
                    t.out_offset = group * panels.columns + panel * panels.width;
                    t.bias = epilogue.bias && tap == 0 ? epilogue.bias + t.out_offset : nullptr;
                    if (last) t.act = epilogue.act;
                    t.columns = panels.columns_of(panel);
                    t.accumulate = tap > 0, t.stream = stream;
                    for (int64_t row = row_begin; row < row_end; row += k.tile_rows) {
                        const int64_t left = row_end - row < k.tile_rows ? row_end - row : k.tile_rows;
                        t.a = block.rows + (row - row_begin) * t.taps;
                        t.out = block.out + (row - row_begin);
                        t.residual = last && epilogue.residual ? block.residual + (row - row_begin) : nullptr;
                        t.next = panel == panel_begin ? rows_after(t, k.tile_rows, row_end - row - left) : nullptr;
                        k.gemm_tile[vectors - 1][left - 1](t);
                    }
                }
                tap = tap_end;
            } while (tap < taps);
            if (has_function(epilogue.act)) {
                const int64_t first = panel_begin * panels.width, upto = panel_end * panels.width;
                const int64_t count = (upto < panels.columns ? upto : panels.columns) - first;
                apply_function(k, epilogue, block.out, row_end - row_begin, group * panels.columns + first, count);
            }
        }
        if (stream) done_streaming();
    });
}

// ---- few rows: packing all weights first would mean to write and read them once more than needed, so where they are
// not packed yet, each panel is packed piece by piece, and each piece used at once (a linear layer 4096-4096 of 1 or 8
// rows: 8 ms to 5)

constexpr int64_t lanes = 16;
constexpr int64_t piece_depth = 512;  // 64 KB of a panel

// Whether all row pointers fit one block and there are panels to share out.
bool are_few(const Kernels& k, const Gather& gather, const Panels& panels, int64_t groups) {
    const int64_t rows = (gather.rows() + k.tile_rows - 1) / k.tile_rows * k.tile_rows;
    return rows <= max_block_rows && rows * gather.taps() <= max_pointers && gather.taps() > 0 &&
           panels.count() * groups >= 8;
}

void with_few_rows(const Kernels& k, const Gather& gather, const Panels& panels, const WeightView& view,
                   const float* packed, const Epilogue& epilogue, float* scratch) {
    const int64_t rows = gather.rows(), taps = gather.taps(), depth = view.depth;
    const int64_t depth_blocks = (depth + piece_depth - 1) / piece_depth;
    const int64_t depth_block = (depth + depth_blocks - 1) / depth_blocks;
    const int64_t tap_block = depth_blocks > 1 ? 1 : piece_depth / depth;
    const int64_t items = view.groups * panels.count(), lane_count = items < lanes ? items : lanes;
    const int64_t work = items * panels.width * panels.length * rows / lane_count;
    parallel_for(lane_count, grain_for(work), [&](int64_t lane, int64_t end) {
        Block block;
        locate(gather, epilogue, k.tile_rows, 0, rows, 0, taps, block);
        const int64_t last = end * items / lane_count;
        for (int64_t item = lane * items / lane_count; item < last; ++item) {
            const int64_t group = item / panels.count(), panel = item % panels.count();
            const int64_t vectors = panels.vectors_of(panel), width = vectors * panels.vector;
            const float* w = view.w + group * view.group_stride + panel * panels.width * view.column_stride;
            GemmTile t = {};
            t.a_step = 1;
            t.out_offset = group * panels.columns + panel * panels.width;
            t.bias = epilogue.bias ? epilogue.bias + t.out_offset : nullptr;
            t.columns = panels.columns_of(panel);
            for (int64_t tap = 0; tap < taps; tap += tap_block)
                for (int64_t d = 0; d < depth; d += depth_block) {
                    WeightView piece = view;
                    piece.depth = t.depth = depth - d < depth_block ? depth - d : depth_block;
                    t.taps = taps - tap < tap_block ? taps - tap : tap_block;
                    t.a_offset = group * depth + d;
                    if (packed) {
                        t.b = packed + group * panels.floats() + panels.start(panel) + (tap * depth + d) * width;
                    } else {
                        float* to = scratch + lane * piece_depth * panels.width;
                        const float* from = w + d * view.depth_stride;
                        for (int64_t a = 0; a < t.taps; ++a)
                            pack_tap(k, piece,
                                     from + gather.h.weight_tap((tap + a) / gather.w.taps) * view.r_stride +
                                         gather.w.weight_tap((tap + a) % gather.w.taps) * view.s_stride,
                                     t.columns, width, to + a * t.depth * width);
                        t.b = to;
                    }
                    const bool ends = tap + t.taps == taps && d + t.depth == depth;
                    if (ends) t.act = epilogue.act;
                    for (int64_t row = 0; row < rows; row += k.tile_rows) {
                        const int64_t left = rows - row < k.tile_rows ? rows - row : k.tile_rows;
                        t.a = block.rows + row * taps + tap * k.tile_rows;
                        t.out = block.out + row;
                        t.residual = ends && epilogue.residual ? block.residual + row : nullptr;
                        k.gemm_tile[vectors - 1][left - 1](t);
                    }
                    t.bias = nullptr, t.accumulate = true;
                }
            if (has_function(epilogue.act)) apply_function(k, epilogue, block.out, rows, t.out_offset, t.columns);
        }
    });
}

}  // namespace

int64_t gather_gemm_scratch(const Kernels& k, const Gather& gather, const Panels& panels, int64_t groups) {
    return are_few(k, gather, panels, groups) ? lanes * piece_depth * panels.width : groups * panels.floats();
}

void gather_gemm(const Kernels& k, const Gather& gather, const Panels& panels, const WeightView& view,
                 const float* packed, const Epilogue& epilogue, float* scratch) {
    if (gather.rows() == 0) return;
    const auto run = are_few(k, gather, panels, view.groups) ? with_few_rows : with_many_rows;
    run(k, gather, panels, view, packed, epilogue, scratch);
}

}  // namespace nnlite
