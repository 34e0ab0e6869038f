// The table of inner kernels that every instruction set provides.
//
// Everything above this table (cutting work into chunks, packing, borders) is ordinary C++ compiled
// once for the plainest CPU. Everything below it is compiled once per instruction set, holds
// internal-linkage code only and uses no STL: an inline std function compiled with AVX flags may be
// the copy that the linker keeps for the whole library, and then crashes on a CPU without AVX.
#pragma once

#include <stdint.h>

namespace nnlite {

constexpr int max_tile_rows = 12;  // over all instruction sets

// out[i][j] (+)= bias[j] + sum_t sum_d a[t][i][d·a_step] b[t·depth + d][j]
//
// The one matrix product of the library: convolution passes a row pointer per output pixel and tap
// (padding is a pointer to zeros), the weight gradient walks down columns with a_step.
struct GemmTile {
    int64_t taps, depth;
    const float* const* a;  // [taps][tile_rows] row pointers
    int64_t a_offset;       // added to every row pointer: the channel offset of a group
    int64_t a_step;
    const float* b;     // packed panel [taps·depth][width]
    const float* bias;  // [columns] or null
    float* const* out;  // [rows]
    int64_t out_offset;
    int64_t columns;  // columns that exist, at most the panel's width
    bool accumulate;  // add to out instead of replacing it
};

// A run of output pixels that all meet the same taps:
// out[q][c·multiplier + m] = bias[c·multiplier + m] + sum_t source[t][q·step + c] w[t][m·multiplier_step + c]
struct DepthwiseRow {
    int64_t taps, channels, pixels;
    int64_t adjacent;            // S where taps come in kernel rows of S pixels `step` apart, else 0
    const float* const* source;  // [taps] what the first pixel meets
    const float* const* w;       // [taps]
    const float* bias;           // [channels·multiplier] or null
    float* out;
    int64_t step, out_step;  // from pixel to pixel
    int64_t multiplier, multiplier_step;
};

// sums[t][c] += sum_q source[t][q·step + c] gy[q][c] over such a run
struct DepthwiseGradRow {
    int64_t taps, channels, pixels;
    int64_t adjacent;
    const float* const* source;
    const float* gy;     // [pixels][channels]
    float* const* sums;  // [taps]
    int64_t step;
};

struct Kernels {
    const char* name;
    // `rounds` of fused multiply-adds on registers, for measuring the ceiling
    float (*fma_rounds)(int64_t rounds);
    int64_t flops_per_round;
    int vector_length;
    int tile_rows;     // rows of the largest GEMM tile
    int tile_vectors;  // its columns, in vectors

    // gemm_tile[vectors - 1][rows - 1]
    void (*gemm_tile[2][max_tile_rows])(const GemmTile&);

    void (*depthwise_row)(const DepthwiseRow&);
    void (*depthwise_grad_row)(const DepthwiseGradRow&);

    // y[c] = max over rows[i][c], index[c] = at[i] of the first maximum; a NaN wins.
    // With `more` the rows compete with what y and index (null: not wanted) already hold.
    void (*max_rows)(int64_t count, const float* const* rows, const int32_t* at, int64_t C, bool more, float* y,
                     int32_t* index);
    // gx[c] = sum_i gy[i][c] where index[i][c] == at
    void (*sum_where)(int64_t count, const float* const* gy, const int32_t* const* index, int32_t at, int64_t C,
                      bool more, float* gx);
    // y[c] = sum_i rows[i][c] weights[i]
    void (*weighted_sum)(int64_t count, const float* const* rows, const float* weights, int64_t C, bool more,
                         float* y);

    // Over rows of x [rows,C]: centre[c] near the mean, sum[c] = sum (x - centre), square[c] = sum (x - centre)^2
    void (*moments)(int64_t rows, int64_t C, const float* x, float* centre, float* sum, float* square);
    // y = (x - mean) scale + shift; mean may be null
    void (*scale_rows)(int64_t rows, int64_t C, const float* x, const float* mean, const float* scale,
                       const float* shift, float* y);
    // sum[c] = sum gy, dot[c] = sum gy (x - mean) inv_std
    void (*grad_sums)(int64_t rows, int64_t C, const float* x, const float* gy, const float* mean,
                      const float* inv_std, float* sum, float* dot);
    // gx = gy a + (x - mean) b + d; b null: gx = gy a
    void (*grad_rows)(int64_t rows, int64_t C, const float* x, const float* gy, const float* mean, const float* a,
                      const float* b, const float* d, float* gx);
};

extern const Kernels kernels_baseline;  // SSE2 on x86-64, plain vectors elsewhere
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const Kernels kernels_neon;

}  // namespace nnlite
