// Convolution of float32 on tensor cores, factors rounded to bfloat16 on the way to the product; only where it is allowed,
// because they lose 16 bits of their fraction. Arrays stay in float32, and so do sums.

#include "conv2d_tensor.h"

namespace nnlite {
namespace cuda {

NNLITE_TENSOR_CONV2D(rounded16, Rounded16)

}  // namespace cuda
}  // namespace nnlite
