// Tiles of operands in shared memory, and the finished tile on its way out.
//
// A row of a tile is 64 bytes of the depth (16 float32 or 32 numbers of 16 bits); rows lie 80 bytes apart. 80 i mod 128
// takes all eight multiples of 16 for i < 8: eight rows read at the same place lie in different banks, with no swizzle
// to follow, for a fifth of the memory. A float32 tile on its way out has rows 4 floats longer for the same reason.
#pragma once

#include "common.h"

namespace nnlite {
namespace cuda {

constexpr int block_threads = 256;
constexpr int tile_row_bytes = 64, tile_row_step = 80;

constexpr int longest_side = 1 << 14;  // of a picture with its padding: rows and columns are held in 16 bits
constexpr int nowhere = -2 * longest_side;

// `bytes` from global to shared memory, zeros where not valid; copies of 2 bytes are not asynchronous.
template <int bytes>
__device__ inline void copy(char* to, const void* from, bool valid) {
    if constexpr (bytes == 2)
        *reinterpret_cast<uint16_t*>(to) = valid ? *static_cast<const uint16_t*>(from) : uint16_t(0);
    else
        ptx::copy_async<bytes>(to, from, valid);
}

// What follows the sums, and where they go: y = act(sum + bias + residual).
template <class T, class Bias, class Out>
struct Destination {
    const Bias* bias;   // of the first column, or null
    const T* residual;  // like out, or null
    Out* out;
    Activation act;
    int columns;  // that exist
};

// `width` neighbours of a row of the output, those that exist; at once where `whole`.
template <int width, class T, class Bias, class Out>
__device__ inline void store_run(const Destination<T, Bias, Out>& to, int64_t row_at, int column, float (&z)[width],
                                 bool whole) {
    const int count = min(width, to.columns - column);
    const int64_t at = row_at + column;
#pragma unroll
    for (int i = 0; i < width; ++i)
        if (to.bias && i < count) z[i] += to_float(to.bias[column + i]);
    if (whole && count == width) {
        if (to.residual) {
            const auto beside = *reinterpret_cast<const Pack<T, width>*>(to.residual + at);
#pragma unroll
            for (int i = 0; i < width; ++i) z[i] += to_float(beside.at[i]);
        }
        Pack<Out, width> packed;
#pragma unroll
        for (int i = 0; i < width; ++i) store(&packed.at[i], activate(to.act, z[i]));
        *reinterpret_cast<Pack<Out, width>*>(to.out + at) = packed;
        return;
    }
#pragma unroll
    for (int i = 0; i < width; ++i)
        if (i < count) {
            if (to.residual) z[i] += to_float(to.residual[at + i]);
            store(to.out + at + i, activate(to.act, z[i]));
        }
}

// All sums of a block through shared memory to the output, half of the rows at a time, in runs of 16 bytes.
// row_at[row] is where a row begins in the output, below 0 where there is none.
template <class Math, class T, class Bias, class Out>
__device__ inline void store_tile(const Math& math, float* shared, const int64_t* row_at,
                                  const Destination<T, Bias, Out>& to, bool whole) {
    constexpr int step = Math::columns + 4, quads = Math::columns / 4;
    for (int half = 0; half < 2; ++half) {
        __syncthreads();
        math.put(half, shared, step);
        __syncthreads();
        for (int i = threadIdx.x; i < Math::rows / 2 * quads; i += block_threads) {
            const int row = i / quads, column = i % quads * 4;
            const int64_t at = row_at[half * Math::rows / 2 + row];
            if (at < 0 || column >= to.columns) continue;
            const float4 sums = *reinterpret_cast<const float4*>(shared + row * step + column);
            float z[4] = {sums.x, sums.y, sums.z, sums.w};
            store_run(to, at, column, z, whole);
        }
    }
}

// Bytes of dynamic shared memory of a block that multiplies such tiles.
template <class Math>
constexpr size_t row_tiles_bytes() {
    constexpr size_t operands = size_t(Math::stages) * (Math::rows + Math::columns) * tile_row_step;
    constexpr size_t result = sizeof(float) * Math::rows / 2 * (Math::columns + 4);
    return operands > result ? operands : result;
}

}  // namespace cuda
}  // namespace nnlite
