// Convolution of float32 on tensor cores in TF32, all three directions; only where it is allowed, because factors lose 13
// bits of their fraction. The idea, tiles and loops: product_rows.h and product_columns.h; the arithmetic: tensor_core.h.

#include "cuda.h"
#include "product_columns.h"
#include "product_rows.h"
#include "tensor_core.h"
#include "transpose.h"

namespace nnlite {
namespace cuda {

namespace {

template <int rows, int columns>
using OfRows = TensorRows<Tf32, rows, columns>;
template <int rows, int columns>
using OfColumns = TensorColumns<Tf32, rows, columns>;

void run(const char* what, const Rows<float, float, float>& p, cudaStream_t stream) {
    // Copies of 16 bytes where every run of channels consists of such, else of 4.
    if (p.depth_channels % 4 == 0 && aligned(p.source, 16) && aligned(p.weights, 16))
        launch_rows_tiled<OfRows, 16>(what, p, stream);
    else
        launch_rows_tiled<OfRows, 4>(what, p, stream);
}

}  // namespace

void conv2d_forward_tf32(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual,
                         float* y, cudaStream_t stream) {
    if (g.N) run("conv2d_forward", {g, false, x, w, bias, residual, y}, stream);
}

size_t conv2d_grad_input_tf32_workspace(const Conv2d& g) { return exchanged_bytes<float>(g); }

void conv2d_grad_input_tf32(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace,
                            cudaStream_t stream) {
    if (!g.N) return;
    float* exchanged = static_cast<float*>(workspace);
    exchange_channels("conv2d_grad_input", g, w, exchanged, stream);
    run("conv2d_grad_input", {g, true, gy, exchanged, nullptr, nullptr, gx}, stream);
}

size_t conv2d_grad_weight_tf32_workspace(const Conv2d& g) { return columns_workspace(g, true); }

void conv2d_grad_weight_tf32(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace,
                             cudaStream_t stream) {
    if (g.group_C() % 4 == 0 && g.group_K() % 4 == 0 && aligned(x, 16) && aligned(gy, 16))
        grad_weight<OfColumns, 16>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
    else
        grad_weight<OfColumns, 4>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
}

}  // namespace cuda
}  // namespace nnlite
