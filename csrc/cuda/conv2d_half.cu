// Convolution of float16 on tensor cores, sums in float32.

#include "conv2d_tensor.h"

namespace nnlite {
namespace cuda {

NNLITE_TENSOR_CONV2D(half, Float16)

}  // namespace cuda
}  // namespace nnlite
