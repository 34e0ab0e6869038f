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

template <void (*kernel)(const Conv2d&, const float*, const float*, const float*, const float*, float*, cudaStream_t),
          Rule rule = any>
void forward(Stream handle, Fields fields, Object x_, Object w_, Object bias_, Object residual_, Object y_, Object) {
    const Conv2d g = small_conv2d(fields);
    rule(g);
    const float* x = in<float>(x_, "x", x_shape(g));
    const float* w = in<float>(w_, "w", w_shape(g));
    const float* bias = in_or_null<float>(bias_, "bias", {g.K});
    const float* residual = in_or_null<float>(residual_, "residual", y_shape(g));
    float* y = out<float>(y_, "y", y_shape(g));
    const Release released;
    kernel(g, x, w, bias, residual, y, stream(handle));
}

template <void (*kernel)(const Conv2d&, const float*, const float*, float*, void*, cudaStream_t), Conv2dSize size,
          Rule rule>
void grad_input(Stream handle, Fields fields, Object gy_, Object w_, Object gx_, Object workspace_) {
    const Conv2d g = small_conv2d(fields);
    rule(g);
    const float* gy = in<float>(gy_, "gy", y_shape(g));
    const float* w = in<float>(w_, "w", w_shape(g));
    float* gx = out<float>(gx_, "gx", x_shape(g));
    void* workspace = scratch(workspace_, size(g));
    const Release released;
    kernel(g, gy, w, gx, workspace, stream(handle));
}

template <void (*kernel)(const Conv2d&, const float*, const float*, float*, void*, cudaStream_t), Conv2dSize size,
          Rule rule>
void grad_weight(Stream handle, Fields fields, Object x_, Object gy_, Object gw_, Object workspace_) {
    const Conv2d g = small_conv2d(fields);
    rule(g);
    const float* x = in<float>(x_, "x", x_shape(g));
    const float* gy = in<float>(gy_, "gy", y_shape(g));
    float* gw = out<float>(gw_, "gw", w_shape(g));
    void* workspace = scratch(workspace_, size(g));
    const Release released;
    kernel(g, x, gy, gw, workspace, stream(handle));
}

void bind_conv2d(py::module_& m) {
    m.def("conv2d_forward_exact", &forward<conv2d_forward_exact>);
    m.def("conv2d_forward_grouped", &forward<conv2d_forward_grouped>);
    m.def("conv2d_forward_depthwise", &forward<conv2d_forward_depthwise, depthwise>);
#define NNLITE_BIND(direction, name, rule)                  \
    m.def(#name, &direction<name, name##_workspace, rule>); \
    m.def(#name "_workspace", &conv2d_size<name##_workspace>)
    NNLITE_BIND(grad_input, conv2d_grad_input_exact, any);
    NNLITE_BIND(grad_input, conv2d_grad_input_grouped, any);
    NNLITE_BIND(grad_input, conv2d_grad_input_depthwise, depthwise);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_exact, any);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_depthwise, depthwise);
#undef NNLITE_BIND
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
