// The gradient by the weights as one matrix product (implicit GEMM) over pixels:
//
//   gw[k][(r, s, c)] = sum over pixels (n, p, q) of gy[pixel][k] x[seen by pixel through r, s][c]
//
// Rows are output channels, columns run over (r, s, c) as the weights lie in memory, the depth is pixels: both operands
// have their depth down the tile, one pixel's channels to a row. A thread always copies the same columns, so that its
// tap is settled before the loop; where each pixel's window begins stands in a table in shared memory, filled for 256
// pixels at a time.
//
// There are few results and many pixels: `splits` blocks share a tile, each with a range of pixels and sums of its own
// in the workspace; a second kernel adds these up in order. No atomics: the same bits every time. How many splits there
// are follows from the geometry alone.
#pragma once

#include "tiles.h"

namespace nnlite {
namespace cuda {

template <class T>
struct Columns {
    int batch, height, width, channels, out_height, out_width, out_channels;
    int stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
    int groups, depth_channels, rows, taps_across, columns;  // rows and columns of a group
    int pixels, splits, of_split;                            // a whole number of pieces to a split
    const T *x, *gy;
    float* sums;  // [splits][out_channels][columns]

    Columns(const Conv2d& g, const T* x_, const T* gy_)
        : batch(int(g.N)), height(int(g.H)), width(int(g.W)), channels(int(g.C)), out_height(int(g.P)),
          out_width(int(g.Q)), out_channels(int(g.K)), stride_h(int(g.stride_h)), stride_w(int(g.stride_w)),
          pad_top(int(g.pad_top)), pad_left(int(g.pad_left)), dilation_h(int(g.dilation_h)),
          dilation_w(int(g.dilation_w)), groups(int(g.groups)), depth_channels(int(g.group_C())),
          rows(int(g.group_K())), taps_across(int(g.S)), columns(int(g.taps() * g.group_C())),
          pixels(int(g.N * g.P * g.Q)), splits(1), of_split(pixels), x(x_), gy(gy_), sums(nullptr) {}
};

// Where the window of a pixel begins: the place of its first channel, and row and column, 16 bits each.
struct Window {
    int start, place;
};

template <class T>
__device__ inline Window window_of(const Columns<T>& p, int pixel, int end) {
    const int line = pixel / p.out_width, n = line / p.out_height;
    int h = line % p.out_height * p.stride_h - p.pad_top;
    const int w = pixel % p.out_width * p.stride_w - p.pad_left;
    const int start = ((n * p.height + h) * p.width + w) * p.channels;
    if (pixel >= end) h = nowhere;
    return {start, h * 65536 + (w & 0xFFFF)};
}

// Tiles of `depth` pixels: rows of gy's channels, then rows of x's, each a little longer than its channels (`Math` says
// by how much) so that what a warp reads at once lies in different banks.
template <class Math, int vector>
struct ColumnLoader {
    using T = typename Math::Element;
    static constexpr int in_vector = vector / int(sizeof(T));
    static constexpr int gy_pieces = Math::rows / in_vector, x_pieces = Math::columns / in_vector;
    static constexpr int gy_step = block_threads / gy_pieces, x_step = block_threads / x_pieces;

    const T *gy, *x;
    int tap_h, tap_w;
    bool row_exists, column_exists;

    __device__ ColumnLoader(const Columns<T>& p, int group, int first_row, int first_column) {
        const int row = first_row + int(threadIdx.x) % gy_pieces * in_vector;
        row_exists = row < p.rows;
        gy = p.gy + (row_exists ? group * p.rows + row : 0);
        const int column = first_column + int(threadIdx.x) % x_pieces * in_vector;
        column_exists = column < p.columns;
        const int tap = column / p.depth_channels;
        tap_h = tap / p.taps_across * p.dilation_h;
        tap_w = tap % p.taps_across * p.dilation_w;
        x = p.x + (tap_h * p.width + tap_w) * int64_t(p.channels) + group * p.depth_channels + column % p.depth_channels;
    }

    __device__ void load(const Columns<T>& p, const Window* windows, int pixel, int end, char* tile) const {
        int row = int(threadIdx.x) / gy_pieces;
        char* to = tile + row * Math::row_bytes + int(threadIdx.x) % gy_pieces * vector;
#pragma unroll
        for (int i = 0; i < Math::depth / gy_step; ++i) {
            const int at = pixel + row + i * gy_step;
            const bool there = row_exists && at < end;
            copy<vector>(to + i * gy_step * Math::row_bytes, gy + (there ? at * p.out_channels : 0), there);
        }
        row = int(threadIdx.x) / x_pieces;
        to = tile + Math::depth * Math::row_bytes + row * Math::column_bytes + int(threadIdx.x) % x_pieces * vector;
#pragma unroll
        for (int i = 0; i < Math::depth / x_step; ++i) {
            const Window window = windows[row + i * x_step];
            const int h = (window.place >> 16) + tap_h, w = int16_t(window.place) + tap_w;
            const bool seen = column_exists && unsigned(h) < unsigned(p.height) && unsigned(w) < unsigned(p.width);
            copy<vector>(to + i * x_step * Math::column_bytes, seen ? x + window.start : p.x, seen);
        }
    }
};

template <class Math, int vector>
__global__ void __launch_bounds__(block_threads, 2) product_columns(const Columns<typename Math::Element> p, bool whole) {
    __shared__ int64_t row_at[Math::rows];
    __shared__ Window windows[2][block_threads];
    char* tiles = ptx::dynamic_shared();
    constexpr int tile_bytes = Math::depth * (Math::row_bytes + Math::column_bytes);
    constexpr int pieces_of_table = block_threads / Math::depth;

    const int group = int(blockIdx.z) % p.groups, split = int(blockIdx.z) / p.groups;
    const int first_row = int(blockIdx.x) * Math::rows, first_column = int(blockIdx.y) * Math::columns;
    const int begin = split * p.of_split, end = min(begin + p.of_split, p.pixels);
    for (int i = threadIdx.x; i < Math::rows; i += block_threads) {
        const int row = first_row + i;
        row_at[i] = row < p.rows ? (int64_t(split) * p.out_channels + group * p.rows + row) * p.columns : -1;
    }

    const ColumnLoader<Math, vector> loader(p, group, first_row, first_column);
    const int pieces = (end - begin + Math::depth - 1) / Math::depth;
    const auto load = [&](int piece, char* tile) {
        const int of_table = piece % pieces_of_table;
        Window* table = windows[piece / pieces_of_table % 2];
        if (of_table == 0) {  // the loads that read this half before are behind the last barrier
            table[threadIdx.x] = window_of(p, begin + piece * Math::depth + int(threadIdx.x), end);
            __syncthreads();
        }
        loader.load(p, table + of_table * Math::depth, begin + piece * Math::depth, end, tile);
    };
    Math math;
#pragma unroll
    for (int i = 0; i < Math::stages - 1; ++i) {
        if (i < pieces) load(i, tiles + i * tile_bytes);
        ptx::commit_copies();
    }
    int now = 0, next = Math::stages - 1;
    for (int i = 0; i < pieces; ++i) {
        ptx::wait_for_copies<Math::stages - 2>();
        __syncthreads();  // the piece is there for all, and all are done with the one before it
        if (i + Math::stages - 1 < pieces) load(i + Math::stages - 1, tiles + next * tile_bytes);
        ptx::commit_copies();
        const char* tile = tiles + now * tile_bytes;
        math.multiply(tile, tile + Math::depth * Math::row_bytes);
        now = now + 1 == Math::stages ? 0 : now + 1;
        next = next + 1 == Math::stages ? 0 : next + 1;
    }
    const Destination<float, float, float> to = {nullptr, nullptr, p.sums + first_column,
                                                 Activation{no_activation, 0, 0}, p.columns - first_column};
    store_tile(math, reinterpret_cast<float*>(tiles), row_at, to, whole);
}

// ---- cutting the work

// gw[i] = sum over splits of sums[split][i], in order, as the result's type
template <class Out>
__global__ void __launch_bounds__(256) sum_splits(int size, int splits, const float* sums, Out* gw) {
    const int i = int(blockIdx.x) * 256 + int(threadIdx.x);
    if (i >= size) return;
    float sum = sums[i];
    for (int split = 1; split < splits; ++split) sum += sums[int64_t(split) * size + i];
    store(gw + i, sum);
}

template <class Math>
constexpr size_t column_tiles_bytes() {
    constexpr size_t operands = size_t(Math::stages) * Math::depth * (Math::row_bytes + Math::column_bytes);
    constexpr size_t result = sizeof(float) * Math::rows / 2 * (Math::columns + 4);
    return operands > result ? operands : result;
}

struct Cut {
    bool large;  // tiles of 128 x 128, else of 64 x 64
    int64_t splits, of_split;
};

// Two blocks for each of 132 processors, as far as every split keeps 256 pixels.
inline Cut cut(const Conv2d& g) {
    const int64_t columns = g.taps() * g.group_C(), pixels = g.N * g.P * g.Q, table = 256;
    const bool large = g.group_K() > 64 && columns > 64;
    const int64_t side = large ? 128 : 64;
    const int64_t blocks = ceil_div(g.group_K(), side) * ceil_div(columns, side) * g.groups;
    int64_t splits = ceil_div(264, blocks);
    if (splits > ceil_div(pixels, table)) splits = ceil_div(pixels, table);
    if (splits < 1) splits = 1;
    const int64_t of_split = ceil_div(ceil_div(pixels, splits), table) * table;
    splits = pixels ? ceil_div(pixels, of_split) : 1;
    return {large, splits, of_split};
}

// Sums of several splits; with one they go to gw at once where it is float.
inline size_t columns_workspace(const Conv2d& g, bool direct) {
    const int64_t splits = cut(g).splits;
    return splits == 1 && direct ? 0 : sizeof(float) * size_t(ceil_div(splits * g.K * g.group_C() * g.taps(), 4) * 4);
}

template <class Math, int vector>
void launch_columns(const char* what, const Columns<typename Math::Element>& p, cudaStream_t stream) {
    const dim3 grid(unsigned(ceil_div(p.rows, Math::rows)), unsigned(ceil_div(p.columns, Math::columns)),
                    unsigned(p.groups * p.splits));
    const bool whole = p.columns % 4 == 0 && aligned(p.sums, 16);
    start({what, grid, block_threads, column_tiles_bytes<Math>(), stream}, product_columns<Math, vector>, p, whole);
}

template <template <int, int> class Math, int vector, class T, class Out>
void grad_weight(const char* what, const Conv2d& g, const T* x, const T* gy, Out* gw, void* workspace, cudaStream_t stream) {
    const Cut cut_ = cut(g);
    Columns<T> p(g, x, gy);
    p.splits = int(cut_.splits);
    p.of_split = int(cut_.of_split);
    constexpr bool direct = sizeof(Out) == sizeof(float);
    const bool second_pass = !direct || p.splits > 1;
    p.sums = second_pass ? static_cast<float*>(workspace) : reinterpret_cast<float*>(gw);
    if (cut_.large && vector >= 4)
        launch_columns<Math<vector >= 4 ? 128 : 64, vector >= 4 ? 128 : 64>, vector>(what, p, stream);
    else
        launch_columns<Math<64, 64>, vector>(what, p, stream);
    if (!second_pass) return;
    const int size = int(g.K * g.group_C() * g.taps());
    start({what, dim3(unsigned(ceil_div(size, 256))), 256, 0, stream}, sum_splits<Out>, size, p.splits, p.sums, gw);
}

}  // namespace cuda
}  // namespace nnlite
