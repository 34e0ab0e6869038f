// The CUDA kernels as the bindings call them: operands lie on the GPU, in the order and layout of csrc/cpu/cpu.h, work
// is only queued on the stream, nothing is allocated. A refused launch throws std::runtime_error.
#pragma once

#include <stddef.h>

#include "../include/params.h"
#include "types.h"

namespace nnlite {
namespace cuda {

// The directions of a convolution; the variants are described in their files.
#define NNLITE_FORWARD(name, T)                                                                            \
    void conv2d_forward_##name(const Conv2d&, const T* x, const T* w, const T* bias, const T* residual, T* y, \
                               cudaStream_t)
#define NNLITE_GRAD_INPUT(name, T)                                                                         \
    void conv2d_grad_input_##name(const Conv2d&, const T* gy, const T* w, T* gx, void* workspace, cudaStream_t); \
    size_t conv2d_grad_input_##name##_workspace(const Conv2d&)
#define NNLITE_GRAD_WEIGHT(name, T)                                                                        \
    void conv2d_grad_weight_##name(const Conv2d&, const T* x, const T* gy, T* gw, void* workspace, cudaStream_t); \
    size_t conv2d_grad_weight_##name##_workspace(const Conv2d&)
NNLITE_FORWARD(exact, float);
NNLITE_FORWARD(grouped, float);
NNLITE_FORWARD(depthwise, float);
NNLITE_FORWARD(tf32, float);
NNLITE_FORWARD(rounded16, float);
NNLITE_FORWARD(half, Half);
NNLITE_GRAD_INPUT(exact, float);
NNLITE_GRAD_INPUT(grouped, float);
NNLITE_GRAD_INPUT(depthwise, float);
NNLITE_GRAD_INPUT(tf32, float);
NNLITE_GRAD_INPUT(rounded16, float);
NNLITE_GRAD_INPUT(half, Half);
NNLITE_GRAD_WEIGHT(exact, float);
NNLITE_GRAD_WEIGHT(depthwise, float);
NNLITE_GRAD_WEIGHT(tf32, float);
NNLITE_GRAD_WEIGHT(rounded16, float);
NNLITE_GRAD_WEIGHT(half, Half);
#undef NNLITE_FORWARD
#undef NNLITE_GRAD_INPUT
#undef NNLITE_GRAD_WEIGHT
void conv2d_bfloat16(const Conv2d&, const BFloat16* x, const BFloat16* w, const float* bias, const BFloat16* residual,
                     BFloat16* y, cudaStream_t);
void conv2d_bfloat16_float(const Conv2d&, const BFloat16* x, const BFloat16* w, const float* bias,
                           const BFloat16* residual, float* y, cudaStream_t);

void max_pool2d_forward(const Pool2d&, const float* x, float* y, int32_t* indices, cudaStream_t);
void max_pool2d_backward(const Pool2d&, const float* gy, const int32_t* indices, float* gx, cudaStream_t);
void avg_pool2d_forward(const Pool2d&, const float* x, float* y, cudaStream_t);
void avg_pool2d_backward(const Pool2d&, const float* gy, float* gx, cudaStream_t);

size_t norm_workspace(const Norm&);  // of everything below that takes one
void batch_norm_training_forward(const Norm&, double epsilon, const float* x, const float* weight, const float* bias,
                                 const float* residual, float* y, float* mean, float* inv_std, void* workspace,
                                 cudaStream_t);
void batch_norm_training_backward(const Norm&, const float* x, const float* gy, const float* y, const float* weight,
                                  const float* bias, const float* mean, const float* inv_std, float* gx, float* gweight,
                                  float* gbias, float* gresidual, void* workspace, cudaStream_t);
void batch_norm_inference_forward(const Norm&, const float* x, const float* mean, const float* scale,
                                  const float* shift, const float* residual, float* y, cudaStream_t);
void batch_norm_inference_backward(const Norm&, const float* x, const float* gy, const float* y, const float* scale,
                                   const float* shift, const float* mean, const float* inv_std, float* gx, float* gweight,
                                   float* gbias, float* gresidual, void* workspace, cudaStream_t);
void channel_sum(const Norm&, const float* x, float* total, void* workspace, cudaStream_t);

void softmax_forward(const Norm&, const float* x, float* y, cudaStream_t);
void softmax_backward(const Norm&, const float* gy, const float* y, float* gx, cudaStream_t);
void log_softmax_forward(const Norm&, const float* x, float* y, cudaStream_t);
void log_softmax_backward(const Norm&, const float* gy, const float* y, float* gx, cudaStream_t);
void cross_entropy(const Norm&, const float* logits, const int64_t* labels, const float* weight, float smoothing,
                   float scale, float* losses, float* gradient, cudaStream_t);
void layer_norm_forward(const Norm&, double epsilon, const float* x, const float* weight, const float* bias, float* y,
                        float* mean, float* inv_std, cudaStream_t);
void layer_norm_backward(const Norm&, const float* x, const float* gy, const float* weight, const float* mean,
                         const float* inv_std, float* gx, float* gweight, float* gbias, void* workspace, cudaStream_t);

void resize(const Resize&, const float* x, const int32_t* row_start, const int32_t* rows, const float* row_weights,
            const int32_t* column_start, const int32_t* columns, const float* column_weights, float* y, cudaStream_t);

}  // namespace cuda
}  // namespace nnlite
