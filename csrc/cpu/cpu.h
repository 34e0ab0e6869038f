// Every CPU kernel: one function per spec and variant, and its workspace where it needs one. Arrays are
// channels-last: x [N,H,W,C], w [K,R,S,C/groups], y [N,P,Q,K]. Optional operands may be null.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../include/params.h"

namespace nnlite {

// A variant of the forward convolution, y = act(w * x + bias + residual), comes in two forms. The plain one takes
// the weights as they are. The prepared one takes what _prepare made of them once, _prepared_size bytes that do not
// depend on N, H or W. Behind PReLU bias is [2,K], the second row its slopes.
#define NNLITE_FORWARD(name)                                                                                    \
    size_t name##_workspace(const Conv2d& g);                                                                   \
    void name(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual, float* y, \
              void* workspace);                                                                                 \
    size_t name##_prepared_size(const Conv2d& g);                                                               \
    void name##_prepare(const Conv2d& g, const float* w, void* prepared);                                       \
    size_t name##_prepared_workspace(const Conv2d& g);                                                          \
    void name##_prepared(const Conv2d& g, const float* x, const void* prepared, const float* bias,              \
                         const float* residual, float* y, void* workspace)

NNLITE_FORWARD(conv2d_forward_igemm);
NNLITE_FORWARD(conv2d_forward_stem);
NNLITE_FORWARD(conv2d_forward_depthwise);
// 3x3, stride 1, no dilation, ungrouped: F(2x2, 3x3) and F(4x4, 3x3)
NNLITE_FORWARD(conv2d_forward_winograd2);
NNLITE_FORWARD(conv2d_forward_winograd4);
// Kernels twice as large as their stride (1 or 2), no dilation, ungrouped: F(4x4, 2x2) for each phase
NNLITE_FORWARD(conv2d_forward_winograd4x2);
// Transposed: x and residual are like the geometry's y and x, bias has C channels. The same weights.
NNLITE_FORWARD(conv_transpose2d_forward_igemm);
NNLITE_FORWARD(conv_transpose2d_forward_depthwise);
NNLITE_FORWARD(conv_transpose2d_forward_winograd2);
NNLITE_FORWARD(conv_transpose2d_forward_winograd4);
NNLITE_FORWARD(conv_transpose2d_forward_winograd4x2);
#undef NNLITE_FORWARD

size_t conv2d_grad_input_winograd2_workspace(const Conv2d& g);
void conv2d_grad_input_winograd2(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace);
size_t conv2d_grad_input_winograd4_workspace(const Conv2d& g);
void conv2d_grad_input_winograd4(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace);
size_t conv2d_grad_input_winograd4x2_workspace(const Conv2d& g);
void conv2d_grad_input_winograd4x2(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace);

size_t conv2d_grad_weight_winograd_workspace(const Conv2d& g);
void conv2d_grad_weight_winograd(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace);
size_t conv2d_grad_weight_winograd4x2_workspace(const Conv2d& g);
void conv2d_grad_weight_winograd4x2(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace);

size_t conv2d_grad_input_igemm_workspace(const Conv2d& g);
void conv2d_grad_input_igemm(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace);

size_t conv2d_grad_input_depthwise_workspace(const Conv2d& g);
void conv2d_grad_input_depthwise(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace);

size_t conv2d_grad_weight_gemm_workspace(const Conv2d& g);
void conv2d_grad_weight_gemm(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace);

size_t conv2d_grad_weight_stem_workspace(const Conv2d& g);
void conv2d_grad_weight_stem(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace);

size_t conv2d_grad_weight_depthwise_workspace(const Conv2d& g);
void conv2d_grad_weight_depthwise(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace);

// Reduced precision. x, residual and y hold 0..255 and w -127..127, or all are bfloat16 numbers by their bits. The weights
// are prepared once: conv2d_int8_gemm_prepare(g, w, prepared) fills prepared_size(g) bytes.
#define NNLITE_REDUCED(name, X, W, Y)                                                                             \
    size_t name##_workspace(const ReducedConv2d& g);                                                              \
    void name(const ReducedConv2d& g, const X* x, const W* w, const float* scale, const float* bias,              \
              const X* residual, Y* y, void* workspace);                                                          \
    size_t name##_prepared_size(const ReducedConv2d& g);                                                          \
    void name##_prepare(const ReducedConv2d& g, const W* w, void* prepared);                                      \
    size_t name##_prepared_workspace(const ReducedConv2d& g);                                                     \
    void name##_prepared(const ReducedConv2d& g, const X* x, const void* prepared, const float* scale,            \
                         const float* bias, const X* residual, Y* y, void* workspace);
#define NNLITE_REDUCED_PAIR(name, X, W) \
    NNLITE_REDUCED(name, X, W, X)       \
    NNLITE_REDUCED(name##_float, X, W, float)
NNLITE_REDUCED_PAIR(conv2d_int8_gemm, uint8_t, int8_t)
NNLITE_REDUCED_PAIR(conv2d_int8_depthwise, uint8_t, int8_t)
NNLITE_REDUCED_PAIR(conv2d_bfloat16_gemm, uint16_t, uint16_t)
NNLITE_REDUCED_PAIR(conv2d_bfloat16_depthwise, uint16_t, uint16_t)
#undef NNLITE_REDUCED_PAIR
#undef NNLITE_REDUCED

void quantise(const Rounding& g, const float* x, uint8_t* y);
void round_bfloat16(const Rounding& g, const float* x, uint16_t* y);

void max_pool2d_forward(const Pool2d& g, const float* x, float* y, int32_t* indices);
void max_pool2d_backward(const Pool2d& g, const float* gy, const int32_t* indices, float* gx);
void avg_pool2d_forward(const Pool2d& g, const float* x, float* y);
void avg_pool2d_backward(const Pool2d& g, const float* gy, float* gx);

size_t batch_norm_training_forward_workspace(const Norm& g);
void batch_norm_training_forward(const Norm& g, double epsilon, const float* x, const float* weight,
                                 const float* bias, const float* residual, float* y, float* mean, float* inv_std,
                                 void* workspace);
size_t batch_norm_training_backward_workspace(const Norm& g);
void batch_norm_training_backward(const Norm& g, const float* x, const float* gy, const float* y,
                                  const float* weight, const float* bias, const float* mean, const float* inv_std,
                                  float* gx, float* gweight, float* gbias, float* gresidual, void* workspace);
void batch_norm_inference_forward(const Norm& g, const float* x, const float* mean, const float* scale,
                                  const float* shift, const float* residual, float* y);
size_t batch_norm_inference_backward_workspace(const Norm& g);
void batch_norm_inference_backward(const Norm& g, const float* x, const float* gy, const float* y,
                                   const float* scale, const float* shift, const float* mean, const float* inv_std,
                                   float* gx, float* gweight, float* gbias, float* gresidual, void* workspace);
size_t channel_sum_workspace(const Norm& g);
void channel_sum(const Norm& g, const float* x, float* total, void* workspace);

// Rows [M,C], each by itself: csrc/cpu/lines.cpp
void softmax_forward(const Norm& g, const float* x, float* y);
void softmax_backward(const Norm& g, const float* gy, const float* y, float* gx);
void log_softmax_forward(const Norm& g, const float* x, float* y);
void log_softmax_backward(const Norm& g, const float* gy, const float* y, float* gx);
void cross_entropy(const Norm& g, const float* logits, const int64_t* labels, const float* weight,
                   const float* options, float* losses, float* gradient);
void layer_norm_forward(const Norm& g, double epsilon, const float* x, const float* weight, const float* bias, float* y,
                        float* mean, float* inv_std);
size_t layer_norm_backward_workspace(const Norm& g);
void layer_norm_backward(const Norm& g, const float* x, const float* gy, const float* weight, const float* mean,
                         const float* inv_std, float* gx, float* gweight, float* gbias, void* workspace);

// y[n,p,q,c] = sum of row_weight[a] column_weight[b] x[n, row[a], column[b], c] over row_start[p] <= a < row_start[p+1]
// and column_start[q] <= b < column_start[q+1]
void resize(const Resize& g, const float* x, const int32_t* row_start, const int32_t* row, const float* row_weight,
            const int32_t* column_start, const int32_t* column, const float* column_weight, float* y);

// Outputs may be the inputs that they replace.
void combine(const Eltwise& g, const float* a, const float* b, float* y);
void multiply(const Eltwise& g, const float* a, const float* b, float* y);
void scale_channels(const Pictures& g, const float* x, const float* scale, float* y);
void activation_backward(const Eltwise& g, const float* gy, const float* z, float* gx);
void function_forward(const Named& g, const float* x, float* y);
void function_backward(const Named& g, const float* gy, const float* z, float* gx);
void sgd_step(const Eltwise& g, const float* weight, const float* gradient, const float* velocity,
              const float* options, float* new_weight, float* new_velocity);
void adam_step(const Eltwise& g, const float* weight, const float* gradient, const float* mean, const float* square,
               const float* options, float* new_weight, float* new_mean, float* new_square);

}  // namespace nnlite
