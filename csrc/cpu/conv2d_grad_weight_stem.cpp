// Weight gradient of a first layer, with its few input channels: the product the other way round,
// gw^T [R·S·C, K] = im2col(x)^T [R·S·C, N·P·Q] · gy [N·P·Q, K].
//
// Element (r,s,c) of the kernel meets, along a row of outputs, every (stride_w·C)-th float of one row of x from s·C + c
// on: once the rows of x are copied with their padding, nothing need be gathered.
//
//   for each band of output rows
//       copy the rows of x it meets, with padding; copy gy as panels of 32 columns k
//       for each panel, for each tile of elements (r,s,c): gw^T (+)= x^T · panel, over all outputs of the band
//
// Bands are dealt to at most 16 lanes, each with a gw^T of its own, added up in order. Limited by multiplications at
// 7x7 (in both directions hardly a lane is empty), by reading x and gy at 3x3.

#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

constexpr int64_t lanes = 16;
constexpr int64_t max_pixels = 1024;  // of a band: 128 KB of gy in a panel, for the second-level cache
constexpr int64_t max_band = 32;      // output rows

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct GradWeightStem {
    Workspace workspace;
    const Kernels& k;
    Panels panels;                     // of gy
    int64_t elements, tiles;           // R·S·C, and tiles of them
    int64_t band, per_image, items;    // output rows of a band; bands
    int64_t pitch, x_rows, x_length;   // rows of x from one output row to the next as copied; of a band
    int64_t row, lane_count;           // floats of a row of gw^T
    bool in_place;                     // gy is one panel as it lies
    int64_t lane_sums, lane_x, lane_gy;
    float *sums, *x, *gy;  // [lane][R·S·C][row], [lane][x_rows][x_length], [lane][panel][pixel][width]

    GradWeightStem(const Conv2d& g, void* memory)
        : workspace(memory), k(kernels()), panels(k, g.K, 0), elements(g.taps() * g.C) {
        tiles = (elements + k.tile_rows - 1) / k.tile_rows;
        band = smaller(max_band, g.Q > 0 ? max_pixels / g.Q : 1);
        band = smaller(band, (g.N * g.P + lanes - 1) / lanes);
        band = smaller(band, g.P);
        if (band < 1) band = 1;
        per_image = (g.P + band - 1) / band;
        items = g.Q > 0 ? g.N * per_image : 0;
        lane_count = smaller(items, lanes);
        pitch = smaller(g.stride_h, g.R);  // rows that no window meets are not copied
        x_rows = (band - 1) * pitch + g.R;
        x_length = ((g.Q - 1) * g.stride_w + g.S) * g.C;
        row = panels.count() * panels.width;
        lane_sums = elements * row;
        lane_x = x_rows * x_length;
        in_place = panels.vectors_of(0) * panels.vector == g.K;
        lane_gy = in_place ? 0 : band * g.Q * row;
        sums = workspace.take<float>(lane_count * lane_sums);
        x = workspace.take<float>(lane_count * lane_x);
        gy = workspace.take<float>(lane_count * lane_gy);
    }
};

// Row h of image x [H,W,C] as the windows see it, with padding: to [x_length].
void copy_row(const Conv2d& g, const float* x, int64_t h, int64_t length, float* to) {
    int64_t begin = g.pad_left * g.C, end = begin + g.W * g.C;  // where x lies in `to`
    if (h < 0 || h >= g.H) begin = end = length;
    begin = smaller(begin, length), end = smaller(end, length);
    memset(to, 0, static_cast<size_t>(begin) * sizeof(float));
    memcpy(to + begin, x + (begin < end ? h * g.W * g.C : 0), static_cast<size_t>(end - begin) * sizeof(float));
    memset(to + end, 0, static_cast<size_t>(length - end) * sizeof(float));
}

// The output rows [first, last) of one image: gw^T (+)= x^T gy.
void add_band(const GradWeightStem& plan, const Conv2d& g, const float* x, const float* gy, int64_t first,
              int64_t last, bool accumulate, float* x_copy, float* gy_copy, float* sums) {
    const Kernels& k = plan.k;
    for (int64_t p = first; p < last; ++p)
        for (int64_t r = p == first ? 0 : g.R - plan.pitch; r < g.R; ++r)
            copy_row(g, x, p * g.stride_h - g.pad_top + r, plan.x_length,
                     x_copy + ((p - first) * plan.pitch + r) * plan.x_length);

    const int64_t pixels = (last - first) * g.Q, row_floats = g.S * g.C;
    const float* a[max_band * max_tile_rows];
    float* out[max_tile_rows];
    GemmTile t = {};
    t.taps = last - first, t.depth = g.Q;
    t.a = a, t.a_step = g.stride_w * g.C;
    t.out = out, t.accumulate = accumulate;
    for (int64_t panel = 0; panel < plan.panels.count(); ++panel) {
        const int64_t columns = plan.panels.columns_of(panel), vectors = plan.panels.vectors_of(panel);
        const int64_t width = vectors * plan.panels.vector;
        float* copied = gy_copy + panel * pixels * plan.panels.width;
        t.b = plan.in_place ? gy + first * g.Q * g.K : copied;
        if (!plan.in_place)
            k.copy_strip(pixels, columns, gy + first * g.Q * g.K + panel * plan.panels.width, g.K, copied, width);
        t.columns = width;
        t.out_offset = panel * plan.panels.width;
        for (int64_t tile = 0; tile < plan.tiles; ++tile) {
            const int64_t begin = tile * plan.elements / plan.tiles;
            const int64_t rows = (tile + 1) * plan.elements / plan.tiles - begin;
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t r = (begin + i) / row_floats, at = (begin + i) % row_floats;
                out[i] = sums + (begin + i) * plan.row;
                for (int64_t p = 0; p < t.taps; ++p)
                    a[p * k.tile_rows + i] = x_copy + (p * plan.pitch + r) * plan.x_length + at;
            }
            k.gemm_tile[vectors - 1][rows - 1](t);
        }
    }
}

}  // namespace

size_t conv2d_grad_weight_stem_workspace(const Conv2d& g) { return GradWeightStem(g, nullptr).workspace.size(); }

void conv2d_grad_weight_stem(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace) {
    const GradWeightStem plan(g, workspace);
    parallel_for(plan.lane_count, 1, [&](int64_t lane, int64_t) {
        float* gy_copy = plan.gy + lane * plan.lane_gy;
        memset(gy_copy, 0, static_cast<size_t>(plan.lane_gy) * sizeof(float));  // columns behind the last
        const int64_t begin = lane * plan.items / plan.lane_count, end = (lane + 1) * plan.items / plan.lane_count;
        for (int64_t item = begin; item < end; ++item) {
            const int64_t n = item / plan.per_image, first = item % plan.per_image * plan.band;
            add_band(plan, g, x + n * g.H * g.W * g.C, gy + n * g.P * g.Q * g.K, first,
                     smaller(first + plan.band, g.P), item > begin, plan.x + lane * plan.lane_x, gy_copy,
                     plan.sums + lane * plan.lane_sums);
        }
    });
    parallel_for(plan.elements, grain_for(g.K * (plan.lane_count + 4), 1 << 16), [&](int64_t begin, int64_t end) {
        for (int64_t element = begin; element < end; ++element)
            for (int64_t c = 0; c < g.K; ++c) {
                float sum = 0.0f;
                for (int64_t lane = 0; lane < plan.lane_count; ++lane)
                    sum += plan.sums[lane * plan.lane_sums + element * plan.row + c];
                gw[c * plan.elements + element] = sum;
            }
    });
}

}  // namespace nnlite
