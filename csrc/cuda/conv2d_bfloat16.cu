// Forward convolution of bfloat16 on tensor cores, for plans of reduced precision: sums and bias in float32, the result
// rounded to bfloat16 or left in float32. The idea, tiles and loops: product_rows.h; the arithmetic: tensor_core.h.

#include "cuda.h"
#include "product_rows.h"
#include "tensor_core.h"

namespace nnlite {
namespace cuda {

namespace {

template <int rows, int columns>
using OfRows = TensorRows<Brain16, rows, columns>;

template <class Out>
void run(const Rows<BFloat16, float, Out>& p, cudaStream_t stream) {
    // Copies of 16 bytes where every run of channels consists of such, else of one element.
    if (p.depth_channels % 8 == 0 && aligned(p.source, 16) && aligned(p.weights, 16))
        launch_rows_tiled<OfRows, 16>("conv2d_bfloat16", p, stream);
    else
        launch_rows_tiled<OfRows, 2>("conv2d_bfloat16", p, stream);
}

}  // namespace

void conv2d_bfloat16(const Conv2d& g, const BFloat16* x, const BFloat16* w, const float* bias, const BFloat16* residual,
                     BFloat16* y, cudaStream_t stream) {
    if (g.N) run<BFloat16>({g, false, x, w, bias, residual, y}, stream);
}

void conv2d_bfloat16_float(const Conv2d& g, const BFloat16* x, const BFloat16* w, const float* bias,
                           const BFloat16* residual, float* y, cudaStream_t stream) {
    if (g.N) run<float>({g, false, x, w, bias, residual, y}, stream);
}

}  // namespace cuda
}  // namespace nnlite
