// Convolution as one matrix product (implicit GEMM): forward, and its gradient by the input.
//
//   out[pixel, k] = act(bias[k] + sum over (r, s, c) of source[seen by pixel through r, s][c] weights[k][r][s][c] + ...)
//
// Rows are pixels of the result, columns its channels, the depth runs over (r, s, c) as the weights lie in memory, and
// neither operand is ever laid out as a matrix: a thread that copies a piece of a row to shared memory works out where
// the pixel lies that it comes from, and padding is a piece of zeros. Both operands are runs of the depth.
//
// A block of 256 threads makes a tile of rows x columns (256x128 to 64x64, `Math`), going through the depth
// 64 bytes at a time: `stages` pieces are on their way by cp.async while one is multiplied, one barrier per piece.
// Blocks that share rows (pixels) follow one another, so that L2 serves all but the first of them.
//
// After Chetlur et al. 2014 (cuDNN, https://arxiv.org/abs/1410.0759) and CUTLASS's description of implicit GEMM.
#pragma once

#include "rows.h"

namespace nnlite {
namespace cuda {

// A place in the depth (r, s, c): taps of the class, channels of the group.
struct Depth {
    int r = 0, s = 0, c = 0;
    __device__ void advance(int by, int channels, int taps_across) {
        for (c += by; c >= channels; c -= channels)
            if (++s == taps_across) s = 0, ++r;
    }
};

// The pieces that one thread copies: `vector` bytes wide, always at the same place of the depth's 64 bytes, of every
// row_step-th row of both tiles. The axes lie in shared memory: they are the same for all, and registers are few.
template <class Math, int vector>
struct RowLoader {
    using T = typename Math::Element;
    static constexpr int pieces = tile_row_bytes / vector, row_step = block_threads / pieces;
    static constexpr int source_rows = Math::rows / row_step, weight_rows = Math::columns / row_step;
    static constexpr int elements = tile_row_bytes / int(sizeof(T));

    const T *source, *weights;
    int place[source_rows];  // row and column of the first pixel seen, 16 bits each; it may lie outside
    int start[source_rows];  // where its channels would begin
    int filter, columns_left;
    Depth depth;

    template <class Problem>
    __device__ RowLoader(const Problem& p, const Axis& down, const Axis& across, int group, int first_row,
                         int first_column) {
        const int row = threadIdx.x / pieces, size = p.depth_channels * p.kernel_across * int(p.g.R);
        source = p.source + group * p.depth_channels;
        weights = p.weights + int64_t(group) * p.columns * size;
        filter = (first_column + row) * size;
        columns_left = p.columns - first_column - row;
#pragma unroll
        for (int i = 0; i < source_rows; ++i) {
            const int at = first_row + row + i * row_step, line = at / across.count, n = line / down.count;
            int h = line % down.count * down.step + down.base;
            const int w = at % across.count * across.step + across.base;
            start[i] = ((n * p.height + h) * p.width + w) * p.source_channels;
            if (n >= p.batch) h = nowhere;
            place[i] = h * 65536 + (w & 0xFFFF);
        }
        depth.advance(threadIdx.x % pieces * (vector / int(sizeof(T))), p.depth_channels, across.taps);
    }

    // Copies the next piece of the depth of both tiles.
    template <class Problem>
    __device__ void load(const Problem& p, const Axis& down, const Axis& across, char* tile) {
        const bool inside = depth.r < down.taps;
        const int tap_h = depth.r * down.reach, tap_w = depth.s * across.reach;
        const int away = (tap_h * p.width + tap_w) * p.source_channels + depth.c;
        char* to = tile + int(threadIdx.x) / pieces * tile_row_step + int(threadIdx.x) % pieces * vector;
#pragma unroll
        for (int i = 0; i < source_rows; ++i) {
            const int y = (place[i] >> 16) + tap_h, x = int16_t(place[i]) + tap_w;
            const bool seen = inside && unsigned(y) < unsigned(p.height) && unsigned(x) < unsigned(p.width);
            copy<vector>(to + i * row_step * tile_row_step, source + (seen ? start[i] + away : 0), seen);
        }
        const int r = down.tap_first + depth.r * down.tap_step, s = across.tap_first + depth.s * across.tap_step;
        const int of_filter = filter + (r * p.kernel_across + s) * p.depth_channels + depth.c;
        const int filter_step = row_step * p.depth_channels * p.kernel_across * int(p.g.R);
        to += Math::rows * tile_row_step;
#pragma unroll
        for (int i = 0; i < weight_rows; ++i) {
            const bool exists = inside && i * row_step < columns_left;
            copy<vector>(to + i * row_step * tile_row_step, weights + (exists ? of_filter + i * filter_step : 0), exists);
        }
        depth.advance(elements, p.depth_channels, across.taps);
    }
};

template <class Math, int vector, class Bias, class Out>
__global__ void __launch_bounds__(block_threads, Math::rows > 128 ? 1 : 2)
    product_rows(const Rows<typename Math::Element, Bias, Out> p, int column_tiles, bool whole) {
    __shared__ int64_t row_at[Math::rows];
    __shared__ Axis down, across;
    char* tiles = ptx::dynamic_shared();
    constexpr int tile_bytes = (Math::rows + Math::columns) * tile_row_step;

    const int group = int(blockIdx.z) % p.groups, which = int(blockIdx.z) / p.groups;
    if (threadIdx.x == 0) {
        down = p.down(which / p.classes_across());
        across = p.across(which % p.classes_across());
    }
    __syncthreads();
    const int first_row = int(blockIdx.x) / column_tiles * Math::rows;
    const int first_column = int(blockIdx.x) % column_tiles * Math::columns;
    if (first_row >= p.batch * down.count * across.count) return;  // a smaller class than the first

    for (int i = threadIdx.x; i < Math::rows; i += block_threads) {
        const int at = first_row + i, line = at / across.count, n = line / down.count;
        row_at[i] = n < p.batch ? p.result_at(down, across, n, line % down.count, at % across.count) : -1;
    }

    RowLoader<Math, vector> loader(p, down, across, group, first_row, first_column);
    const int length = down.taps * across.taps * p.depth_channels;
    const int pieces = (length + loader.elements - 1) / loader.elements;
    Math math;
#pragma unroll
    for (int i = 0; i < Math::stages - 1; ++i) {
        if (i < pieces) loader.load(p, down, across, tiles + i * tile_bytes);
        ptx::commit_copies();
    }
    int now = 0, next = Math::stages - 1;
    for (int i = 0; i < pieces; ++i) {
        ptx::wait_for_copies<Math::stages - 2>();
        __syncthreads();  // the piece is there for all, and all are done with the one before it
        if (i + Math::stages - 1 < pieces) loader.load(p, down, across, tiles + next * tile_bytes);
        ptx::commit_copies();
        const char* tile = tiles + now * tile_bytes;
        math.multiply(tile, tile + Math::rows * tile_row_step);
        now = now + 1 == Math::stages ? 0 : now + 1;
        next = next + 1 == Math::stages ? 0 : next + 1;
    }

    const auto to = p.destination(group * p.columns + first_column, p.columns - first_column);
    store_tile(math, reinterpret_cast<float*>(tiles), row_at, to, whole);
}

template <class Math, int vector, class Bias, class Out>
void launch_rows(const char* what, const Rows<typename Math::Element, Bias, Out>& p, cudaStream_t stream) {
    using T = typename Math::Element;
    const int64_t column_tiles = ceil_div(p.columns, Math::columns), row_tiles = ceil_div(p.largest_class(), Math::rows);
    // Runs of four elements, where the output's rows consist of such.
    const bool whole = p.columns % 4 == 0 && p.out_channels % 4 == 0 && aligned(p.out, 4 * sizeof(Out)) &&
                       aligned(p.residual, 4 * sizeof(T));
    const dim3 grid(unsigned(column_tiles * row_tiles), 1, unsigned(p.g.groups * p.classes()));
    start({what, grid, block_threads, row_tiles_bytes<Math>(), stream}, product_rows<Math, vector, Bias, Out>, p,
          int(column_tiles), whole);
}

// The tile: as large as leaves a block for each of 128 processors, by geometry alone: a result must not depend on the
// GPU. The largest is for copies of 16 bytes: others take more registers than it leaves.
template <template <int, int> class Math, int vector, class Bias, class Out, class T>
void launch_rows_tiled(const char* what, const Rows<T, Bias, Out>& p, cudaStream_t stream) {
    const int64_t many = p.g.groups * p.classes();
    const auto blocks = [&](int64_t high, int64_t wide) {
        return ceil_div(p.largest_class(), high) * ceil_div(p.columns, wide) * many;
    };
    // Twice the products for each byte from L2, and all of a processor's registers: for tensor cores, which L2 cannot feed
    // otherwise.
    if constexpr (vector == 16 && Math<64, 64>::has_large)
        if (p.columns > 64 && blocks(256, 128) >= 128)
            return launch_rows<Math<256, 128>, vector, Bias, Out>(what, p, stream);
    if constexpr (vector == 16)
        if (p.columns > 64 && blocks(128, 128) >= 128)
            return launch_rows<Math<128, 128>, vector, Bias, Out>(what, p, stream);
    if constexpr (vector >= 4)
        if (blocks(128, 64) >= 128) return launch_rows<Math<128, 64>, vector, Bias, Out>(what, p, stream);
    launch_rows<Math<64, 64>, vector, Bias, Out>(what, p, stream);
}

}  // namespace cuda
}  // namespace nnlite
