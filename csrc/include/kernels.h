// The table of inner kernels that every instruction set provides.
//
// Everything above this table (cutting work into chunks, packing, borders) is ordinary C++ compiled
// once for the plainest CPU. Everything below it is compiled once per instruction set, holds
// internal-linkage code only and uses no STL: an inline std function compiled with AVX flags may be
// the copy that the linker keeps for the whole library, and then crashes on a CPU without AVX.
#pragma once

#include <stdint.h>

#include "params.h"
#include "reduced_kernels.h"

namespace nnlite {

constexpr int max_tile_rows = 12;  // over all instruction sets

// out[i][j] (+)= bias[j] + sum_t sum_d a[t][i][d·a_step] b[t·depth + d][j], then act(out + residual)
//
// The one matrix product of the library: convolution passes a row pointer per output pixel and tap
// (padding is a pointer to zeros), the weight gradient walks down columns with a_step.
struct GemmTile {
    int64_t taps, depth;
    const float* const* a;  // [taps][tile_rows] row pointers
    int64_t a_offset;       // added to every row pointer: the channel offset of a group
    int64_t a_step;
    const float* const* next;  // [tile_rows] rows of `depth` that a later call will read, or null
    const float* b;            // packed panel [taps·depth][width]
    const float* bias;         // [columns] or null
    float* const* out;         // [rows]
    int64_t out_offset;        // added to every row of out and residual
    int64_t columns;  // columns that exist, at most the panel's width
    bool accumulate;  // add to out instead of replacing it
    bool stream;      // whole vectors of out go past the caches: see bands.h
    const float* const* residual;  // [rows] or null
    Activation act;
};

// What output pixel (i,j) of an image sees: for a < R and b < S the source pixels
// (i·step_h + offset_h + a·tap_h, j·step_w + offset_w + b·tap_w) as far as they exist.
struct Windows {
    int64_t channels, columns;  // of the output
    int64_t begin, end;         // its rows that are computed
    int64_t R, S;
    int64_t step_h, offset_h, tap_h;
    int64_t step_w, offset_w, tap_w;
    const float* source;  // [height, width, channels]
    int64_t height, width;
};

// Depthwise convolution with tap_w = 1; S is 1, 2, 3, 5 or 7 and step_w 1, or 2 where S is at least 3.

inline bool has_depthwise_band(int64_t S, int64_t step_w) {
    if (step_w == 1) return S == 1 || S == 2 || S == 3 || S == 5 || S == 7;
    return step_w == 2 && (S == 3 || S == 5 || S == 7);
}

// out[i][j][c] = act(bias[c] + sum_{a,b} (source pixel of tap a,b)[c] w(a,b)[c] + residual[i][j][c]), where
// w(a,b) = w + a·w_row + b·w_step
struct DepthwiseBand {
    Windows windows;
    const float* w;  // rows of whole vectors
    int64_t w_row, w_step;
    const float* bias;  // [channels] or null
    float* out;
    int64_t out_row, out_pixel;
    bool stream;  // past the caches: see bands.h
    const float* residual;  // where out's is, or null
    Activation act;
};

// sums(a,b)[c] += sum_{i,j} (source pixel of tap a,b)[c] gy[i][j][c], where sums(a,b) = sums + (a·S + b) sums_step
struct DepthwiseGradBand {
    Windows windows;
    const float* gy;  // [rows, columns, channels]
    float* sums;
    int64_t sums_step;
};

// Any taps, for a run of output pixels that all meet the same ones:
// out[q][c·multiplier + m] = act(bias[c·multiplier + m] + sum_t source[t][q·step + c] w[t][m·multiplier_step + c]
//                                + residual[q][c·multiplier + m])
struct DepthwiseRow {
    int64_t taps, channels, pixels;
    const float* const* source;  // [taps] what the first pixel meets
    const float* const* w;       // [taps]
    const float* bias;           // [channels·multiplier] or null
    float* out;
    int64_t step, out_step;  // from pixel to pixel
    int64_t multiplier, multiplier_step;
    const float* residual;  // like out, or null
    Activation act;
};

// sums[t][c] += sum_q source[t][q·step + c] gy[q][c] over such a run
struct DepthwiseGradRow {
    int64_t taps, channels, pixels;
    const float* const* source;
    const float* gy;     // [pixels][channels]
    float* const* sums;  // [taps]
    int64_t step;
};

// y[i][j][c] = maximum of the window, a NaN wins; index[i][j][c] = h·width + w of the first maximum
struct MaxPoolBand {
    Windows windows;
    float* y;        // [rows, columns, channels]
    int32_t* index;  // the same, or null
    bool stream;
};

// y[i][j][c] = sum of the window / number of its taps with top <= h < bottom, left <= w < right
struct AveragePoolBand {
    Windows windows;
    int64_t top, bottom, left, right;
    float* y;
    bool stream;
};

// The gradient of rows [begin, end) of the source, which gx is: gx[h][w][c] = sum over the windows that hold (h,w) of
// gy[i][j][c], for the maximum where index[i][j][c] is h·width + w, for the average divided by the taps that count.
struct PoolGrad {
    Windows windows;
    int64_t rows;  // of gy
    const float* gy;
    const int32_t* index;                // maximum
    int64_t top, bottom, left, right;  // average
    float* gx;
    bool stream;
};

// y = act((x - mean) scale + shift + residual) on rows [rows,C]; mean and residual may be null
struct ScaleRows {
    int64_t rows, C;
    const float *x, *mean, *scale, *shift, *residual;
    Activation act;
    float* y;
    bool stream;  // past the caches: see bands.h
};

// With g = gy where act lets it pass, seen from its output y or, where that is null, from
// z = (x - centre) scale + shift (centre may be null):
//   grad_sums  sum[c] = sum g, dot[c] = sum g (x - mean) inv_std; stores g where gresidual is not null
//   grad_rows  gx = g a + (x - mean) b + d; b null: gx = g a
struct NormGrad {
    int64_t rows, C;
    const float *x, *gy, *y, *mean, *inv_std;
    const float *centre, *scale, *shift;
    Activation act;
    const float *a, *b, *d;
    float *gx, *gresidual;
    bool stream;  // gx past the caches
};

// y = act(alpha a + beta b); b may be null, y may be a or b
struct Combine {
    int64_t size;
    const float *a, *b;
    float alpha, beta;
    Activation act;
    float* y;
};

// y = x scale on rows [rows, channels], scale [channels]; y may be x
struct ScaleChannels {
    int64_t rows, channels;
    const float *x, *scale;
    float* y;
};

// PReLU in place: of rows [rows, channels] what is not above 0 is multiplied by its channel's slope; null: by 0
struct ChannelSlopes {
    int64_t rows, channels;
    const float* slope;
    float* y;
};

// out = f(z), or with gy out = gy f'(z), z being f's output for sigmoid and tanh
struct Smooth {
    int64_t size, function;
    float a, b;
    const float *z, *gy;  // gy may be null
    float* out;
};

// gx = gy where act(z) depends on z; gx may be gy
struct Gate {
    int64_t size;
    const float *gy, *z;
    Activation act;
    float* gx;
};

// g = gradient + decay w; v = momentum velocity + keep g, or g; w - lr (nesterov ? g + momentum v : v)
struct SgdStep {
    int64_t size;
    const float *weight, *gradient, *velocity;  // velocity null: v = g
    float lr, decay, momentum, keep;
    bool nesterov;
    float *new_weight, *new_velocity;  // new_velocity may be null
};

// w' = w shrink; g = gradient + decay w'; m = b1 mean + rest1 g; v = b2 square + rest2 g^2;
// new_weight = w' - rate m / (sqrt(v) root_scale + epsilon)
struct AdamStep {
    int64_t size;
    const float *weight, *gradient, *mean, *square;
    float shrink, decay, b1, rest1, b2, rest2, root_scale, epsilon, rate;
    float *new_weight, *new_mean, *new_square;
};

// y = softmax of each row x [C], or its logarithm
struct SoftmaxRows {
    int64_t rows, C;
    bool logarithm;
    const float* x;
    float* y;
};

// gx = y (gy - sum gy y), or of the logarithm gx = gy - e^y sum gy
struct SoftmaxGrad {
    int64_t rows, C;
    bool logarithm;
    const float *gy, *y;
    float* gx;
};

// Per row, own = (1 - smoothing) weight[label] and share = smoothing / C:
// loss = own (-ln p[label]) + share sum_k weight[k] (-ln p[k]), p = softmax(logits); 0 where the label is below 0.
// gradient = scale · the derivative by the logits; weight (1 where null) and gradient may be null
struct CrossEntropyRows {
    int64_t rows, C;
    const float* logits;
    const int64_t* labels;
    const float* weight;
    float smoothing, scale, total_weight;
    float *losses, *gradient;
};

// y = (x - mean) inv_std weight + bias, mean and deviation of each row; weight and bias may be null
struct LayerNormRows {
    int64_t rows, C;
    double epsilon;
    const float *x, *weight, *bias;
    float *y, *mean, *inv_std;
};

// Its gradient: gx may be null; adds to weight_sums and bias_sums [C], which may both be null
struct LayerNormGrad {
    int64_t rows, C;
    const float *x, *gy, *weight, *mean, *inv_std;
    float *gx, *weight_sums, *bias_sums;
};

// y[q] = sum over the taps a and column_start[q] <= b < column_start[q + 1] of row_weights[a] column_weights[b]
// x[rows[a]][columns[b]], for pixels of `channels` numbers, `width` of them in a row of x
struct ResizeRow {
    int64_t channels, width, out_columns, row_taps;
    const int32_t* rows;
    const float* row_weights;
    const int32_t *column_start, *columns;
    const float* column_weights;
    const float* x;
    float* y;
    bool stream;
};

// to = L from L^T for each channel, where L is one of Winograd's transforms (isa/winograd.inl): squares of
// elements, `row` apart vertically and `column` horizontally. Of a square of pixels only the rows
// [top, bottom) and columns [left, right) exist: others are zeros, or are not stored.
struct WinogradMap {
    int64_t channels;
    const float* from;
    int64_t from_row, from_column;
    float* to;
    int64_t to_row, to_column;
    int64_t top, bottom, left, right;
    // Only for `output`, which stores act(value + bias + residual): bias [channels] and residual, like `to`, may be null.
    const float *bias, *residual;
    Activation act;
};

// Transforms of F(m x m, r x r), with n = m + r - 1.
struct WinogradKernels {
    void (*data)(const WinogradMap&);            // pixels [n]^2 -> [n]^2
    void (*output)(const WinogradMap&);          // [n]^2 -> pixels [m]^2
    void (*output_adjoint)(const WinogradMap&);  // pixels [m]^2 -> [n]^2
    void (*weight)(const WinogradMap&);          // [r]^2 -> [n]^2
    void (*weight_adjoint)(const WinogradMap&);  // [n]^2 -> [r]^2
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

    // to[r][c] = from[c · stride + r]; zeros for columns <= c < width, whole vectors
    void (*pack_transposed)(int64_t rows, int64_t columns, int64_t width, const float* from, int64_t stride,
                            float* to);

    // to[r · to_stride + c] = from[r · stride + c] for c < columns
    void (*copy_strip)(int64_t rows, int64_t columns, const float* from, int64_t stride, float* to,
                       int64_t to_stride);

    WinogradKernels winograd[3];  // F(2x2, 3x3), F(4x4, 3x3), F(4x4, 2x2)

    void (*depthwise_band)(const DepthwiseBand&);
    void (*depthwise_grad_band)(const DepthwiseGradBand&);
    void (*depthwise_row)(const DepthwiseRow&);
    void (*depthwise_grad_row)(const DepthwiseGradRow&);

    void (*max_pool_band)(const MaxPoolBand&);
    void (*average_pool_band)(const AveragePoolBand&);
    void (*max_pool_grad)(const PoolGrad&);
    void (*average_pool_grad)(const PoolGrad&);

    // Over rows of x [rows,C]: centre[c] near the mean, sum[c] = sum (x - centre), square[c] = sum (x - centre)^2
    void (*moments)(int64_t rows, int64_t C, const float* x, float* centre, float* sum, float* square);
    void (*scale_rows)(const ScaleRows&);
    void (*grad_sums)(const NormGrad&, float* sum, float* dot);
    void (*grad_rows)(const NormGrad&);
    // sum[c] = sum of x [rows,C] down the rows
    void (*sum_rows)(int64_t rows, int64_t C, const float* x, float* sum);

    void (*combine)(const Combine&);
    void (*gate)(const Gate&);
    void (*smooth)(const Smooth&);
    void (*channel_slopes)(const ChannelSlopes&);
    void (*scale_channels)(const ScaleChannels&);
    void (*multiply)(int64_t size, const float* a, const float* b, float* y);
    void (*softmax_rows)(const SoftmaxRows&);
    void (*softmax_grad)(const SoftmaxGrad&);
    void (*cross_entropy_rows)(const CrossEntropyRows&);
    void (*layer_norm_rows)(const LayerNormRows&);
    void (*layer_norm_grad)(const LayerNormGrad&);
    void (*resize_row)(const ResizeRow&);
    void (*sgd_step)(const SgdStep&);
    void (*adam_step)(const AdamStep&);

    Reduced reduced;
};

extern const Kernels kernels_baseline;  // SSE2 on x86-64, plain vectors elsewhere
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const Kernels kernels_neon;

}  // namespace nnlite
