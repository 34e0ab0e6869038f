// The three directions of a convolution on tensor cores, for one kind of products (tensor_core.h).
// The idea, tiles and loops: product_rows.h and product_columns.h.
#pragma once

#include "cuda.h"
#include "product_columns.h"
#include "product_rows.h"
#include "tensor_core.h"
#include "transpose.h"

namespace nnlite {
namespace cuda {

template <class Number>
struct TensorConv2d {
    using T = typename Number::Element;
    template <int rows, int columns>
    using OfRows = TensorRows<Number, rows, columns>;
    template <int rows, int columns>
    using OfColumns = TensorColumns<Number, rows, columns>;
    static constexpr int one = sizeof(T), in_sixteen = 16 / one;

    // Copies of 16 bytes where every run of channels consists of such, else of one element.
    template <class Bias, class Out>
    static void rows(const char* what, const Rows<T, Bias, Out>& p, cudaStream_t stream) {
        if (!p.batch) return;
        if (p.depth_channels % in_sixteen == 0 && aligned(p.source, 16) && aligned(p.weights, 16))
            launch_rows_tiled<OfRows, 16>(what, p, stream);
        else
            launch_rows_tiled<OfRows, one>(what, p, stream);
    }

    static void forward(const Conv2d& g, const T* x, const T* w, const T* bias, const T* residual, T* y,
                        cudaStream_t stream) {
        rows<T, T>("conv2d_forward", {g, false, x, w, bias, residual, y}, stream);
    }

    static void grad_input(const Conv2d& g, const T* gy, const T* w, T* gx, void* workspace, cudaStream_t stream) {
        with_exchanged(g, w, workspace, stream, [&](const T* exchanged) {
            rows<T, T>("conv2d_grad_input", {g, true, gy, exchanged, nullptr, nullptr, gx}, stream);
        });
    }

    static void grad_weight(const Conv2d& g, const T* x, const T* gy, T* gw, void* workspace, cudaStream_t stream) {
        const bool sixteen = g.group_C() % in_sixteen == 0 && g.group_K() % in_sixteen == 0;
        if (sixteen && aligned(x, 16) && aligned(gy, 16))
            cuda::grad_weight<OfColumns, 16>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
        else
            cuda::grad_weight<OfColumns, one>("conv2d_grad_weight", g, x, gy, gw, workspace, stream);
    }
};

// The functions of cuda.h for one kind of products.
#define NNLITE_TENSOR_CONV2D(name, Number)                                                                             \
    using T_##name = Number::Element;                                                                                  \
    void conv2d_forward_##name(const Conv2d& g, const T_##name* x, const T_##name* w, const T_##name* bias,            \
                               const T_##name* residual, T_##name* y, cudaStream_t stream) {                           \
        TensorConv2d<Number>::forward(g, x, w, bias, residual, y, stream);                                             \
    }                                                                                                                  \
    size_t conv2d_grad_input_##name##_workspace(const Conv2d& g) { return exchanged_bytes<T_##name>(g); }              \
    void conv2d_grad_input_##name(const Conv2d& g, const T_##name* gy, const T_##name* w, T_##name* gx, void* workspace, \
                                  cudaStream_t stream) {                                                               \
        TensorConv2d<Number>::grad_input(g, gy, w, gx, workspace, stream);                                             \
    }                                                                                                                  \
    size_t conv2d_grad_weight_##name##_workspace(const Conv2d& g) {                                                    \
        return columns_workspace(g, sizeof(T_##name) == sizeof(float));                                                \
    }                                                                                                                  \
    void conv2d_grad_weight_##name(const Conv2d& g, const T_##name* x, const T_##name* gy, T_##name* gw,               \
                                   void* workspace, cudaStream_t stream) {                                             \
        TensorConv2d<Number>::grad_weight(g, x, gy, gw, workspace, stream);                                            \
    }

}  // namespace cuda
}  // namespace nnlite
