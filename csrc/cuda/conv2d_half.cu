// Convolution of float16 on tensor cores, all three directions, sums in float32.
// The idea, tiles and loops: product_rows.h and product_columns.h; the arithmetic: tensor_core.h.

#include "cuda.h"
#include "product_columns.h"
#include "product_rows.h"
#include "tensor_core.h"
#include "transpose.h"

namespace nnlite {
namespace cuda {

namespace {

template <int rows, int columns>
using OfRows = TensorRows<Float16, rows, columns>;
template <int rows, int columns>
using OfColumns = TensorColumns<Float16, rows, columns>;

void run(const char* what, const Rows<Half, Half, Half>& p, cudaStream_t stream) {
    // Copies of 16 bytes where every run of channels consists of such, else of one element.
    if (p.depth_channels % 8 == 0 && aligned(p.source, 16) && aligned(p.weights, 16))
        launch_rows_tiled<OfRows, 16>(what, p, stream);
    else
        launch_rows_tiled<OfRows, 2>(what, p, stream);
}

}  // namespace

void conv2d_forward_half(const Conv2d& g, const Half* x, const Half* w, const Half* bias, const Half* residual, Half* y,
                         cudaStream_t stream) {
    if (g.N) run("conv2d_forward", {g, false, x, w, bias, residual, y}, stream);
}

size_t conv2d_grad_input_half_workspace(const Conv2d& g) { return exchanged_bytes<Half>(g); }

void conv2d_grad_input_half(const Conv2d& g, const Half* gy, const Half* w, Half* gx, void* workspace,
                            cudaStream_t stream) {
    if (!g.N) return;
    Half* exchanged = static_cast<Half*>(workspace);
    exchange_channels("conv2d_grad_input", g, w, exchanged, stream);
    run("conv2d_grad_input", {g, true, gy, exchanged, nullptr, nullptr, gx}, stream);
}

size_t conv2d_grad_weight_half_workspace(const Conv2d& g) { return columns_workspace(g, false); }

void conv2d_grad_weight_half(const Conv2d& g, const Half* x, const Half* gy, Half* gw, void* workspace,
                             cudaStream_t stream) {
    if (g.group_C() % 8 == 0 && g.group_K() % 8 == 0 && aligned(x, 16) && aligned(gy, 16))
        grad_weight<OfColumns, 16>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
    else
        grad_weight<OfColumns, 2>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
}

}  // namespace cuda
}  // namespace nnlite
