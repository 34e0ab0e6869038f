// Convolution in float32 with float32 products: forward and the gradient by the input (and so transposed convolution).
// The idea, tiles and loops: product_rows.h; the arithmetic: exact.h.

#include "cuda.h"
#include "exact.h"
#include "product_rows.h"
#include "transpose.h"

namespace nnlite {
namespace cuda {

namespace {

void run(const char* what, const Rows<float, float, float>& p, cudaStream_t stream) {
    // Copies of 16 bytes where every run of channels consists of such, else of 4.
    const bool sixteen = p.depth_channels % 4 == 0 && aligned(p.source, 16) && aligned(p.weights, 16);
    if (sixteen)
        launch_rows_tiled<Exact, 16>(what, p, stream);
    else
        launch_rows_tiled<Exact, 4>(what, p, stream);
}

}  // namespace

void conv2d_forward_exact(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual,
                          float* y, cudaStream_t stream) {
    if (g.N) run("conv2d_forward", {g, false, x, w, bias, residual, y}, stream);
}

size_t conv2d_grad_input_exact_workspace(const Conv2d& g) { return exchanged_bytes<float>(g); }

void conv2d_grad_input_exact(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace,
                             cudaStream_t stream) {
    with_exchanged(g, w, workspace, stream, [&](const float* exchanged) {
        run("conv2d_grad_input", {g, true, gy, exchanged, nullptr, nullptr, gx}, stream);
    });
}

}  // namespace cuda
}  // namespace nnlite
