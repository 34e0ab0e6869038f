// The gradient of a convolution by its weights in float32 with float32 products.
// The idea, tiles and loops: product_columns.h; the arithmetic: exact.h.

#include "cuda.h"
#include "exact.h"
#include "product_columns.h"

namespace nnlite {
namespace cuda {

size_t conv2d_grad_weight_exact_workspace(const Conv2d& g) { return columns_workspace(g, true); }

void conv2d_grad_weight_exact(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace,
                              cudaStream_t stream) {
    const bool sixteen = g.group_C() % 4 == 0 && g.group_K() % 4 == 0 && aligned(x, 16) && aligned(gy, 16);
    if (sixteen)
        grad_weight<ExactColumns, 16>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
    else
        grad_weight<ExactColumns, 4>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
}

}  // namespace cuda
}  // namespace nnlite
