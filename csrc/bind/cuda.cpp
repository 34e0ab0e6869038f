// Python bindings of the CUDA kernels: check operands, release the GIL, queue. No mathematics here.
//
// Every function takes the stream's handle, the geometry's values, the operands in the order of the kernel's spec, and
// the workspace.

#include "../cuda/cuda.h"

#include "cuda_args.h"
#include "cuda_rows.h"
#include "geometry.h"

namespace nnlite {
namespace cuda {
namespace {

using Release = py::gil_scoped_release;
using Conv2dSize = size_t (*)(const Conv2d&);

// 32 bits count elements and bytes of shared places: Python's supports() says so first.
Conv2d small_conv2d(Fields fields) {
    const Conv2d g = conv2d(fields);
    require(g.act.kind <= clamp_activation, "no function may follow a convolution here");
    const int64_t most = INT32_MAX, side = 1 << 14;
    require(g.N * g.H * g.W * g.C <= most && g.N * g.P * g.Q * g.K <= most && g.K * g.group_C() * g.taps() <= most,
            "a CUDA kernel takes at most 2^31 - 1 elements in an array");
    require(g.H + g.pad_top + g.pad_bottom < side && g.W + g.pad_left + g.pad_right < side,
            "a CUDA kernel takes pictures of fewer than 2^14 pixels in height and width, padding included");
    return g;
}

template <Conv2dSize size>
size_t conv2d_size(Fields fields) {
    return size(small_conv2d(fields));
}

// What a variant takes for granted. Python's supports() never chooses it for anything else; a direct call might.
using Rule = void (*)(const Conv2d&);
void any(const Conv2d&) {}
void depthwise(const Conv2d& g) {
    require(g.groups == g.C && g.K == g.C && g.taps() <= 192 && g.S <= 8,
            "depthwise takes groups=C=K, at most 192 taps and at most 8 in a row");
}

template <class T, class Bias, class Out>
using Forward = void (*)(const Conv2d&, const T*, const T*, const Bias*, const T*, Out*, cudaStream_t);
template <class T>
using Gradient = void (*)(const Conv2d&, const T*, const T*, T*, void*, cudaStream_t);

template <class T, class Bias, class Out, Forward<T, Bias, Out> kernel, Rule rule>
void forward(Stream handle, Fields fields, Object x_, Object w_, Object bias_, Object residual_, Object y_, Object) {
    const Conv2d g = small_conv2d(fields);
    rule(g);
    const T* x = in<T>(x_, "x", x_shape(g));
    const T* w = in<T>(w_, "w", w_shape(g));
    const Bias* bias = in_or_null<Bias>(bias_, "bias", {g.K});
    const T* residual = in_or_null<T>(residual_, "residual", y_shape(g));
    Out* y = out<Out>(y_, "y", y_shape(g));
    const Release released;
    kernel(g, x, w, bias, residual, y, stream(handle));
}

template <class T, Gradient<T> kernel, Conv2dSize size, Rule rule>
void grad_input(Stream handle, Fields fields, Object gy_, Object w_, Object gx_, Object workspace_) {
    const Conv2d g = small_conv2d(fields);
    rule(g);
    const T* gy = in<T>(gy_, "gy", y_shape(g));
    const T* w = in<T>(w_, "w", w_shape(g));
    T* gx = out<T>(gx_, "gx", x_shape(g));
    void* workspace = scratch(workspace_, size(g));
    const Release released;
    kernel(g, gy, w, gx, workspace, stream(handle));
}

template <class T, Gradient<T> kernel, Conv2dSize size, Rule rule>
void grad_weight(Stream handle, Fields fields, Object x_, Object gy_, Object gw_, Object workspace_) {
    const Conv2d g = small_conv2d(fields);
    rule(g);
    const T* x = in<T>(x_, "x", x_shape(g));
    const T* gy = in<T>(gy_, "gy", y_shape(g));
    T* gw = out<T>(gw_, "gw", w_shape(g));
    void* workspace = scratch(workspace_, size(g));
    const Release released;
    kernel(g, x, gy, gw, workspace, stream(handle));
}

void bind_conv2d(py::module_& m) {
#define NNLITE_FORWARD(name, T, rule) m.def("conv2d_forward_" #name, &forward<T, T, T, conv2d_forward_##name, rule>)
#define NNLITE_GRADIENT(direction, name, T, rule)                                                                     \
    m.def("conv2d_" #direction "_" #name,                                                                             \
          &direction<T, conv2d_##direction##_##name, conv2d_##direction##_##name##_workspace, rule>);                 \
    m.def("conv2d_" #direction "_" #name "_workspace", &conv2d_size<conv2d_##direction##_##name##_workspace>)
    NNLITE_FORWARD(exact, float, any);
    NNLITE_FORWARD(grouped, float, any);
    NNLITE_FORWARD(depthwise, float, depthwise);
    NNLITE_FORWARD(tf32, float, any);
    NNLITE_FORWARD(rounded16, float, any);
    NNLITE_FORWARD(half, Half, any);
    NNLITE_GRADIENT(grad_input, exact, float, any);
    NNLITE_GRADIENT(grad_input, grouped, float, any);
    NNLITE_GRADIENT(grad_input, depthwise, float, depthwise);
    NNLITE_GRADIENT(grad_input, tf32, float, any);
    NNLITE_GRADIENT(grad_input, rounded16, float, any);
    NNLITE_GRADIENT(grad_input, half, Half, any);
    NNLITE_GRADIENT(grad_weight, exact, float, any);
    NNLITE_GRADIENT(grad_weight, depthwise, float, depthwise);
    NNLITE_GRADIENT(grad_weight, tf32, float, any);
    NNLITE_GRADIENT(grad_weight, rounded16, float, any);
    NNLITE_GRADIENT(grad_weight, half, Half, any);
#undef NNLITE_FORWARD
#undef NNLITE_GRADIENT
    m.def("conv2d_bfloat16", &forward<BFloat16, float, BFloat16, conv2d_bfloat16, any>);
    m.def("conv2d_bfloat16_float", &forward<BFloat16, float, float, conv2d_bfloat16_float, any>);
}

}  // namespace
}  // namespace cuda
}  // namespace nnlite

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "nnlite's CUDA kernels; use them through nnlite.kernels.";
    m.def("compute_capability", [] {  // of the current device, as 10 major + minor
        int device = 0, major = 0, minor = 0;
        nnlite::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
        nnlite::cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "capability");
        nnlite::cuda::check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "capability");
        return 10 * major + minor;
    });
    m.attr("architectures") = NNLITE_CUDA_ARCHITECTURES;
    nnlite::cuda::bind_conv2d(m);
    nnlite::cuda::bind_pictures(m);
    nnlite::cuda::bind_rows(m);
}
