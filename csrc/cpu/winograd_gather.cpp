// Gathers at step 1 (gather.h) of r x r taps through Winograd's F(m x m, r x r). Lavin & Gray 2015,
// https://arxiv.org/abs/1509.09308; the transforms are in isa/winograd.inl.
//
// The output is cut into tiles of m x m, each computed from (m + r - 1)^2 source pixels. With t over tiles, c over
// the reduced channels, k over output channels and one matrix product for each of the (m + r - 1)^2 points xi:
//
//   V[xi][t][c] = B^T x B      M[xi][t][k] = sum_c V[xi][t][c] U[xi][c][k]      y = A^T M A
//
// For r = 3, m = 4 V and M are 36/16 times as large as source and output, and U is four times the weights: a program
// that writes them out is slower than the direct one. So M mostly exists for a block of tiles and one panel of 32
// columns only, and of V and U the larger one only piecewise:
//
//   tiles outside:   U first; each block of tiles makes its V, then runs over all panels   (more tiles than channels)
//   panels outside:  V first; each panel makes its U in pieces of some rows, then runs over the tiles
//   points outside:  U and V first, then one M after the other, then y: the panels of as many tiles as channels would
//                    read V again and again from afar
//
// Relative error on unit-scale data: 3e-7 for m = 2, 1.6e-6 for m = 4, r = 3 and less for r = 2 (direct: 1e-6), a
// sixth of what the spec allows. Limited by multiplications in wide layers, and by the transforms' loads and stores in
// narrow ones.

#include "winograd_gather.h"

#include "parallel.h"

namespace nnlite {
namespace {

constexpr int64_t max_block = 192;   // tiles
constexpr int64_t lanes = 16;        // pieces of work with a scratch of their own
constexpr int64_t max_width = 32;    // of a panel, over all instruction sets
constexpr int64_t weight_rows = 64;  // that are packed and transformed at a time: 16 take a tenth longer

// V of the tiles [begin, end); tile `begin` becomes row `row`.
void transform_data(const Winograd& plan, const Sources& s, int64_t begin, int64_t end, float* data, int64_t row) {
    WinogradMap map = {};
    map.to_row = plan.edge * plan.data_plane, map.to_column = plan.data_plane;
    for (int64_t tile = begin; tile < end; ++tile, ++row) {
        const Tiles::Place place = plan.map.place(tile);
        for (int64_t source = 0; source < s.count; ++source) {
            const Gather& g = s.of[source];
            const int64_t y = place.i + g.h.offset(0), x = place.j + g.w.offset(0);
            map.top = -y, map.bottom = g.h.source - y, map.left = -x, map.right = g.w.source - x;
            map.from_row = g.source_grid.row, map.from_column = g.source_grid.pixel;
            const float* from = g.source + place.n * g.source_grid.image + y * map.from_row + x * map.from_column;
            prefetch_pixels<0>(from + plan.form.m * map.from_column, g.source_grid, plan.edge, 2, plan.edge,
                               plan.channels);
            // Up to the end of a piece, or of the source's channels.
            for (int64_t c = 0; c < plan.channels; c += map.channels) {
                const int64_t at = source * plan.channels + c, inside = at % plan.piece;
                map.channels = plan.piece - inside < plan.channels - c ? plan.piece - inside : plan.channels - c;
                map.from = from + c;
                map.to = data + at / plan.piece * plan.points * plan.data_plane + row * plan.piece + inside;
                plan.maps.data(map);
            }
        }
    }
}

// U of rows [begin, end) of a panel: [point][end - begin][width]; by way of packed [r][r][rows][width]
void transform_weights(const Winograd& plan, const Sources& s, WeightView view, int64_t panel, int64_t begin,
                       int64_t end, int64_t rows, float* packed, float* weights) {
    const int64_t width = plan.panels.vectors_of(panel) * plan.panels.vector, r = plan.form.r;
    WinogradMap map = {};
    map.to_row = plan.edge * plan.weight_plane, map.to_column = plan.weight_plane;
    for (int64_t row = begin; row < end; row += view.depth) {
        const int64_t source = row / plan.channels, channel = row % plan.channels;
        const Gather& g = s.of[source];
        view.depth = end - row < rows ? end - row : rows;
        if (view.depth > plan.channels - channel) view.depth = plan.channels - channel;
        const float* w = view.w + channel * view.depth_stride + panel * plan.panels.width * view.column_stride;
        for (int64_t a = 0; a < r; ++a)
            for (int64_t b = 0; b < r; ++b)
                if (a < g.h.taps && b < g.w.taps)
                    pack_tap(plan.k, view, w + g.h.weight_tap(a) * view.r_stride + g.w.weight_tap(b) * view.s_stride,
                             plan.panels.columns_of(panel), width, packed + (a * r + b) * view.depth * width);
                else
                    pack_tap(plan.k, view, w, 0, width, packed + (a * r + b) * view.depth * width);
        map.channels = view.depth * width;
        map.from = packed, map.from_row = r * map.channels, map.from_column = map.channels;
        map.to = weights + (row - begin) * width;
        plan.maps.weight(map);
    }
}

// M (+)= V U for `count` tiles, one panel, rows [begin, end) of U.
void multiply(const Winograd& plan, int64_t panel, int64_t count, const float* data, const float* weights,
              int64_t begin, int64_t end, float* products) {
    const float* a[max_block];
    float* out[max_block];
    for (int64_t i = 0; i < count; ++i) {
        a[i] = data + i * plan.piece;
        out[i] = products + i * plan.panels.width;
    }
    const int64_t vectors = plan.panels.vectors_of(panel), rows = plan.k.tile_rows;
    GemmTile t = {};
    t.taps = 1, t.a_step = 1, t.bias = nullptr;
    t.columns = vectors * plan.panels.vector;
    for (int64_t point = 0; point < plan.points; ++point) {
        const Range now = plan.rows_at(point, begin, end);
        if (now.size() == 0) continue;
        t.depth = now.size(), t.accumulate = now.begin > plan.rows_at(point, 0, plan.depth).begin;
        t.a_offset = point * plan.data_plane + now.begin - begin, t.out_offset = point * plan.product_plane();
        t.b = weights + point * plan.weight_plane + (now.begin - begin) * t.columns;
        for (int64_t tile = 0; tile < count; tile += rows) {
            const int64_t left = count - tile < rows ? count - tile : rows;
            t.a = a + tile, t.out = out + tile;
            if (plan.order == Winograd::panels_outside) {  // V comes from afar
                const float* next = tile + rows < count ? t.a[0] + t.a_offset + rows * plan.piece
                                                        : data + (point + 1) * plan.data_plane;
                const int64_t ahead = (count < rows ? count : rows) * plan.piece;
                for (int64_t i = 0; i < ahead; i += 16) __builtin_prefetch(next + i);
            }
            plan.k.gemm_tile[vectors - 1][left - 1](t);
        }
    }
}

// Output of the tiles [begin, end), one panel.
void transform_output(const Winograd& plan, const Sources& s, int64_t panel, int64_t begin, int64_t end,
                      const float* products, const Epilogue& epilogue) {
    const int64_t first = panel * plan.panels.width, plane = plan.product_plane();
    const Gather& g = s.out();
    WinogradMap map = {};
    map.channels = plan.panels.columns_of(panel);
    map.bias = epilogue.bias ? epilogue.bias + first : nullptr, map.act = epilogue.act;
    map.from = products, map.from_row = plan.edge * plane, map.from_column = plane;
    map.to_row = g.out_grid.row, map.to_column = g.out_grid.pixel;
    for (int64_t tile = begin; tile < end; ++tile, map.from += plan.panels.width) {
        const Tiles::Place place = plan.map.place(tile);
        map.bottom = g.h.out - place.i, map.right = g.w.out - place.j;
        map.to = g.to(place.n, place.i, place.j) + first;
        map.residual = epilogue.beside(g.out, map.to);
        prefetch_pixels<1>(map.to + plan.form.m * map.to_column, g.out_grid, plan.form.m, 0, plan.form.m, map.channels);
        plan.maps.output(map);
    }
}

// U of all panels.
void transform_all_weights(const Winograd& plan, const Sources& s, const WeightView& view) {
    const int64_t panels = plan.panels.count(), weight_lanes = panels < lanes ? panels : lanes;
    parallel_for(weight_lanes, 1, [&](int64_t lane, int64_t) {
        const int64_t last = (lane + 1) * panels / weight_lanes;
        for (int64_t panel = lane * panels / weight_lanes; panel < last; ++panel)
            transform_weights(plan, s, view, panel, 0, plan.depth, weight_rows, plan.packed + lane * plan.lane_packed,
                              plan.weights + panel * plan.lane_weights);
    });
}

// V of all tiles.
void transform_all_data(const Winograd& plan, const Sources& s) {
    parallel_for(plan.tiles, grain_for(plan.points * plan.depth * 8), [&](int64_t begin, int64_t end) {
        transform_data(plan, s, begin, end, plan.data, begin);
    });
}

void run_tiles_outside(const Winograd& plan, const Sources& s, const WeightView& view, const Epilogue& epilogue) {
    const int64_t panels = plan.panels.count();
    if (!plan.ready) transform_all_weights(plan, s, view);
    parallel_for(plan.lane_count, 1, [&](int64_t lane, int64_t) {
        float* data = plan.data + lane * plan.lane_data;
        float* products = plan.products + lane * plan.lane_products;
        const int64_t last = (lane + 1) * plan.blocks / plan.lane_count;
        for (int64_t block = lane * plan.blocks / plan.lane_count; block < last; ++block) {
            const int64_t begin = block * plan.block;
            const int64_t end = begin + plan.block < plan.tiles ? begin + plan.block : plan.tiles;
            transform_data(plan, s, begin, end, data, 0);
            for (int64_t panel = 0; panel < panels; ++panel) {
                multiply(plan, panel, end - begin, data, plan.weights_of(panel), 0, plan.depth, products);
                transform_output(plan, s, panel, begin, end, products, epilogue);
            }
        }
    });
}

void run_panels_outside(const Winograd& plan, const Sources& s, const WeightView& view, const Epilogue& epilogue) {
    transform_all_data(plan, s);
    parallel_for(plan.lane_count, 1, [&](int64_t lane, int64_t) {
        float* made = plan.weights + lane * plan.lane_weights;
        float* products = plan.products + lane * plan.lane_products;
        const int64_t last = (lane + 1) * plan.panels.count() / plan.lane_count;
        for (int64_t panel = lane * plan.panels.count() / plan.lane_count; panel < last; ++panel) {
            for (int64_t row = 0; row < plan.depth; row += plan.piece) {
                const int64_t upto = row + plan.piece < plan.depth ? row + plan.piece : plan.depth;
                if (!plan.ready)
                    transform_weights(plan, s, view, panel, row, upto, weight_rows,
                                      plan.packed + lane * plan.lane_packed, made);
                const float* weights = plan.ready ? plan.weights_of(panel) : made;
                multiply(plan, panel, plan.tiles, plan.data + row / plan.piece * plan.points * plan.data_plane, weights,
                         row, upto, products);
            }
            transform_output(plan, s, panel, 0, plan.tiles, products, epilogue);
        }
    });
}

// M = V U of one point, block by block of tiles, for all panels.
void multiply_point(const Winograd& plan, int64_t point) {
    constexpr int64_t point_block = 96;
    const float* a[point_block];
    float* out[point_block];
    const int64_t rows = plan.k.tile_rows;
    GemmTile t = {};
    const Range part = plan.rows_at(point, 0, plan.depth);
    t.taps = 1, t.depth = part.size(), t.a_step = 1, t.a_offset = part.begin;
    for (int64_t first = 0; first < plan.tiles; first += point_block) {
        const int64_t count = plan.tiles - first < point_block ? plan.tiles - first : point_block;
        for (int64_t i = 0; i < count; ++i) {
            a[i] = plan.data + point * plan.data_plane + (first + i) * plan.depth;
            out[i] = plan.products + point * plan.all_plane + (first + i) * plan.row;
        }
        for (int64_t panel = 0; panel < plan.panels.count(); ++panel) {
            const int64_t vectors = plan.panels.vectors_of(panel);
            t.columns = vectors * plan.panels.vector, t.out_offset = panel * plan.panels.width;
            t.b = plan.weights_of(panel) + point * plan.weight_plane + part.begin * t.columns;
            for (int64_t tile = 0; tile < count; tile += rows) {
                const int64_t left = count - tile < rows ? count - tile : rows;
                t.a = a + tile, t.out = out + tile;
                t.next = panel == 0 && tile + 2 * rows <= count ? t.a + rows : nullptr;
                plan.k.gemm_tile[vectors - 1][left - 1](t);
            }
        }
    }
}

void run_points_outside(const Winograd& plan, const Sources& s, const WeightView& view, const Epilogue& epilogue) {
    if (!plan.ready) transform_all_weights(plan, s, view);
    transform_all_data(plan, s);
    parallel_for(plan.points, 1, [&](int64_t point, int64_t) { multiply_point(plan, point); });
    const Gather& g = s.out();
    parallel_for(plan.tiles, grain_for(plan.points * plan.row * 8), [&](int64_t begin, int64_t end) {
        WinogradMap map = {};
        map.channels = plan.panels.columns, map.bias = epilogue.bias, map.act = epilogue.act;
        map.from_row = plan.edge * plan.all_plane, map.from_column = plan.all_plane;
        map.to_row = g.out_grid.row, map.to_column = g.out_grid.pixel;
        for (int64_t tile = begin; tile < end; ++tile) {
            const Tiles::Place place = plan.map.place(tile);
            map.from = plan.products + tile * plan.row;
            map.bottom = g.h.out - place.i, map.right = g.w.out - place.j;
            map.to = g.to(place.n, place.i, place.j);
            map.residual = epilogue.beside(g.out, map.to);
            plan.maps.output(map);
        }
    });
}

}  // namespace

Winograd::Winograd(WinogradForm form_, const Sources& s, int64_t channels_, int64_t columns, const void* prepared,
                   void* memory)
    : workspace(memory),
      k(kernels()),
      form(form_),
      maps(k.winograd[form.at]),
      map(form.m, s.out()),
      edge(form.m + form.r - 1),
      points(edge * edge),
      tiles(map.count),
      channels(channels_),
      depth(s.count * channels_),
      panels(k, columns, depth) {
    for (const bool last_row : {false, true})
        for (const bool last_column : {false, true}) {
            int64_t first = 0, last = s.count;
            const auto zero = [&](const Gather& g) {
                return (last_row && g.h.taps < form.r) || (last_column && g.w.taps < form.r);
            };
            while (first < last && zero(s.of[first])) ++first;
            while (last > first && zero(s.of[last - 1])) --last;
            parts[last_row][last_column] = {first * channels, last * channels};
        }
    order = tiles > columns ? tiles_outside : tiles > max_block ? points_outside : panels_outside;
    choose_block();
    blocks = (tiles + block - 1) / block;
    piece = prepared || order != panels_outside || depth < 64 ? depth : 64;
    data_plane = odd_lines((order == tiles_outside ? block : tiles) * piece);
    const int64_t items = order == tiles_outside ? blocks : panels.count();
    lane_count = items < lanes ? items : lanes;
    lane_data = order == tiles_outside ? points * data_plane : 0;
    weight_plane = odd_lines(piece * panels.width);
    lane_weights = points * weight_plane;
    lane_products = points * product_plane();
    data = workspace.take<float>(order == tiles_outside ? lane_count * lane_data
                                               : (depth + piece - 1) / piece * points * data_plane);
    ready = static_cast<const float*>(prepared);
    weights = workspace.take<float>(
        prepared ? 0 : (order == panels_outside ? lane_count : panels.count()) * lane_weights);
    row = panels.count() * panels.width;
    all_plane = odd_lines(tiles * row);
    products = workspace.take<float>(order == points_outside ? points * all_plane : lane_count * lane_products);
    lane_packed = form.r * form.r * weight_rows * panels.width;
    packed = workspace.take<float>(prepared ? 0 : lanes * lane_packed);
}

void Winograd::choose_block() {
    const int64_t rows = k.tile_rows;
    int64_t wanted = max_block / rows * rows;
    if (order == tiles_outside) {
        // V and M of a block: half of a second-level cache of 1 MB
        wanted = (int64_t{1} << 17) / (points * (depth + 48)) / rows * rows;
        if (wanted < 2 * rows) wanted = 2 * rows;
        if (wanted > 48) wanted = 48 / rows * rows;
    }
    const int64_t all = (tiles + rows - 1) / rows;
    const int64_t count = (all * rows + wanted - 1) / wanted;
    block = count > 0 ? (all + count - 1) / count * rows : rows;
}

void convolve(const Winograd& plan, const Sources& s, const WeightView& view, const Epilogue& epilogue) {
    if (plan.tiles == 0) return;
    const auto run = plan.order == Winograd::tiles_outside    ? run_tiles_outside
                     : plan.order == Winograd::panels_outside ? run_panels_outside
                                                    : run_points_outside;
    run(plan, s, view, epilogue);
}

void prepare(const Winograd& plan, const Sources& s, const WeightView& view, void* prepared) {
    constexpr int64_t rows = 16;  // on the stack
    parallel_for(plan.panels.count(), 1, [&](int64_t panel, int64_t) {
        float packed[9 * rows * max_width];
        transform_weights(plan, s, view, panel, 0, plan.depth, rows, packed,
                          static_cast<float*>(prepared) + panel * plan.lane_weights);
    });
}

}  // namespace nnlite
