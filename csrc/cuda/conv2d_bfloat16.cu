// Forward convolution of bfloat16 on tensor cores, for plans of reduced precision: sums and bias in float32, the result
// rounded to bfloat16 or left in float32.

#include "conv2d_tensor.h"

namespace nnlite {
namespace cuda {

void conv2d_bfloat16(const Conv2d& g, const BFloat16* x, const BFloat16* w, const float* bias, const BFloat16* residual,
                     BFloat16* y, cudaStream_t stream) {
    TensorConv2d<Brain16>::rows<float, BFloat16>("conv2d_bfloat16", {g, false, x, w, bias, residual, y}, stream);
}

void conv2d_bfloat16_float(const Conv2d& g, const BFloat16* x, const BFloat16* w, const float* bias,
                           const BFloat16* residual, float* y, cudaStream_t stream) {
    TensorConv2d<Brain16>::rows<float, float>("conv2d_bfloat16", {g, false, x, w, bias, residual, y}, stream);
}

}  // namespace cuda
}  // namespace nnlite
