// The inner product of the exact float32 path: ordinary fused multiply-adds on registers.
//
// 256 threads as 16 x 16; each holds (rows / 16) x (columns / 16) sums. For four steps of the depth a thread reads
// one float4 per row and per column, 16 of them for 256 multiply-adds at 8 x 8 sums: arithmetic and shared memory are
// about even. A warp is 4 x 8 threads, so that the 8 columns that a quarter of it reads at once lie in different banks
// (rows of a tile are 80 bytes apart: see tiles.h). Limited by the FP32 pipes: 67 TFLOP/s on an H100.
//
// After Volkov and Demmel 2008, "Benchmarking GPUs to tune dense linear algebra": few threads, many registers.
#pragma once

#include "tiles.h"

namespace nnlite {
namespace cuda {

template <int rows_, int columns_>
struct Exact {
    using Element = float;
    static constexpr int rows = rows_, columns = columns_, stages = 3;
    static constexpr bool has_large = false;  // tiles of 256 x 128
    static constexpr int high = rows / 16, wide = columns / 16;

    float sums[high][wide] = {};
    int row, column;  // the first of each; the others follow 16 apart

    __device__ Exact() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        row = warp / 2 * 4 + lane / 8;
        column = warp % 2 * 8 + lane % 8;
    }

    // sums += A B^T for tiles of depth 16 whose rows are runs of the depth.
    __device__ void multiply(const char* a, const char* b) {
#pragma unroll 1
        for (int at = 0; at < tile_row_bytes; at += 16) {
            float4 left[high];
#pragma unroll
            for (int i = 0; i < high; ++i)
                left[i] = *reinterpret_cast<const float4*>(a + (row + 16 * i) * tile_row_step + at);
#pragma unroll
            for (int j = 0; j < wide; ++j) {
                const float4 right = *reinterpret_cast<const float4*>(b + (column + 16 * j) * tile_row_step + at);
#pragma unroll
                for (int i = 0; i < high; ++i) {
                    sums[i][j] += left[i].x * right.x;
                    sums[i][j] += left[i].y * right.y;
                    sums[i][j] += left[i].z * right.z;
                    sums[i][j] += left[i].w * right.w;
                }
            }
        }
    }

    // One half of the rows to shared memory, [rows / 2][step].
    __device__ void put(int half, float* to, int step) const {
#pragma unroll
        for (int i = 0; i < high; ++i)
            if (i / (high / 2) == half)
#pragma unroll
                for (int j = 0; j < wide; ++j) to[(row + 16 * i - half * rows / 2) * step + column + 16 * j] = sums[i][j];
    }
};

// The same for tiles whose depth runs down: [depth][rows] and [depth][columns]. A thread's rows are runs of four, 64
// apart; for each step of the depth it reads them, and its columns, as one or two float4.
template <int rows_, int columns_>
struct ExactColumns {
    using Element = float;
    static constexpr int rows = rows_, columns = columns_, stages = 3, depth = 16;
    static constexpr int row_bytes = rows * 4 + 16, column_bytes = columns * 4 + 16;
    static constexpr int high = rows / 64, wide = columns / 64;  // in runs of four

    float sums[4 * high][4 * wide] = {};
    int row, column;

    __device__ ExactColumns() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        row = 4 * (warp / 2 * 4 + lane / 8);
        column = 4 * (warp % 2 * 8 + lane % 8);
    }

    __device__ void multiply(const char* a, const char* b) {
#pragma unroll 2
        for (int d = 0; d < depth; ++d) {
            Pack<float, 4> left[high], right[wide];
#pragma unroll
            for (int i = 0; i < high; ++i)
                left[i] = *reinterpret_cast<const Pack<float, 4>*>(a + d * row_bytes + 4 * (row + 64 * i));
#pragma unroll
            for (int j = 0; j < wide; ++j)
                right[j] = *reinterpret_cast<const Pack<float, 4>*>(b + d * column_bytes + 4 * (column + 64 * j));
#pragma unroll
            for (int i = 0; i < 4 * high; ++i)
#pragma unroll
                for (int j = 0; j < 4 * wide; ++j) sums[i][j] += left[i / 4].at[i % 4] * right[j / 4].at[j % 4];
        }
    }

    __device__ void put(int half, float* to, int step) const {
#pragma unroll
        for (int i = 0; i < 4 * high; ++i) {
            const int at = row + 64 * (i / 4) + i % 4;
            if (at / (rows / 2) == half)
#pragma unroll
                for (int j = 0; j < 4 * wide; ++j)
                    to[(at - half * rows / 2) * step + column + 64 * (j / 4) + j % 4] = sums[i][j];
        }
    }
};

}  // namespace cuda
}  // namespace nnlite
