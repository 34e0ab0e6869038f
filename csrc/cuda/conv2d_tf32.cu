// Convolution of float32 on tensor cores in TF32; only where it is allowed, because factors lose 13 bits of their fraction.

#include "conv2d_tensor.h"

namespace nnlite {
namespace cuda {

NNLITE_TENSOR_CONV2D(tf32, Tf32)

}  // namespace cuda
}  // namespace nnlite
