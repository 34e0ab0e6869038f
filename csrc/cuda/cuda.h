// The CUDA kernels as the bindings call them: operands lie on the GPU, in the order and layout of csrc/cpu/cpu.h, work
// is only queued on the stream, nothing is allocated. A refused launch throws std::runtime_error.
#pragma once

#include <stddef.h>

#include "../include/params.h"
#include "types.h"

namespace nnlite {
namespace cuda {

void conv2d_forward_exact(const Conv2d&, const float* x, const float* w, const float* bias, const float* residual,
                          float* y, cudaStream_t);

// Workspace: the weights with input and output channels exchanged.
size_t conv2d_grad_input_exact_workspace(const Conv2d&);
void conv2d_grad_input_exact(const Conv2d&, const float* gy, const float* w, float* gx, void* workspace, cudaStream_t);

}  // namespace cuda
}  // namespace nnlite
