// Python bindings of the CPU kernels: check operands, release the GIL, call. No mathematics here.

#include <pybind11/stl.h>

#include "../cpu/cpu.h"
#include "../cpu/dispatch.h"
#include "../cpu/parallel.h"
#include "args.h"
#include "geometry.h"
#include "prepared.h"
#include "reduced.h"
#include "rows.h"

namespace nnlite {
namespace {

using Conv2dSize = size_t (*)(const Conv2d&);

// What a variant takes for granted. Python's supports() never chooses it for anything else; a direct call might.
void any(const Conv2d&) {}
void stem(const Conv2d& g) { require(g.groups == 1 && g.dilation_w == 1, "stem takes groups=1 and dilation_w=1"); }
void depthwise(const Conv2d& g) {
    require(g.groups == g.C && g.taps() <= 961, "depthwise takes groups=C and at most 961 taps");
}
void depthwise_single(const Conv2d& g) {
    depthwise(g);
    require(g.K == g.C, "this depthwise kernel takes K=C");
}
void winograd(const Conv2d& g) {
    require(g.R == 3 && g.S == 3 && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 &&
                g.groups == 1,
            "winograd takes 3x3 kernels, stride 1, dilation 1, groups=1");
}
void winograd_phases(const Conv2d& g) {
    require(g.R == 2 * g.stride_h && g.S == 2 * g.stride_w && g.stride_h <= 2 && g.stride_w <= 2 && g.dilation_h == 1 &&
                g.dilation_w == 1 && g.groups == 1,
            "winograd4x2 takes kernels twice as large as a stride of 1 or 2, dilation 1, groups=1");
}
void winograd_phases_forward(const Conv2d& g) {
    if (g.R != 3 || g.S != 3 || g.stride_h != 2 || g.stride_w != 2) return winograd_phases(g);
    require(g.dilation_h == 1 && g.dilation_w == 1 && g.groups == 1, "winograd4x2 takes dilation 1, groups=1");
}
void stem_grad(const Conv2d& g) {
    stem(g);
    require(g.dilation_h == 1, "this stem takes no dilation");
}
using Rule = void (*)(const Conv2d&);

template <Conv2dSize size>
size_t conv2d_size(Fields fields) {
    return size(conv2d(fields));
}

// What every forward kernel takes beside its weights. Transposed, a convolution goes from its geometry's y to its x.
template <bool transposed>
struct Forward {
    const float *x, *bias, *residual;
    float* y;

    Forward(const Conv2d& g, Object x_, Object bias_, Object residual_, Object y_)
        : x(in<float>(x_, "x", transposed ? y_shape(g) : x_shape(g))),
          bias(in_or_null<float>(bias_, "bias", bias_shape(g))),
          residual(in_or_null<float>(residual_, "residual", result_shape(g))),
          y(out<float>(y_, "y", result_shape(g))) {}

    static Shape result_shape(const Conv2d& g) { return transposed ? x_shape(g) : y_shape(g); }

    static Shape bias_shape(const Conv2d& g) {
        const int64_t channels = transposed ? g.C : g.K;
        return g.act.kind == prelu_activation ? Shape{2, channels} : Shape{channels};
    }
};

template <void (*kernel)(const Conv2d&, const float*, const float*, const float*, const float*, float*, void*),
          Conv2dSize size, Rule rule, bool transposed>
void forward(Fields fields, Object x_, Object w_, Object bias_, Object residual_, Object y_, Object workspace_) {
    const Conv2d g = conv2d(fields);
    rule(g);
    const Forward<transposed> f(g, x_, bias_, residual_, y_);
    const float* w = in<float>(w_, "w", w_shape(g));
    void* workspace = scratch(workspace_, size(g));
    without_gil([=] { kernel(g, f.x, w, f.bias, f.residual, f.y, workspace); });
}

// ---- prepared weights

template <Conv2dSize size>
size_t prepared_size(Fields fields) {
    return prepared_head + size(conv2d(fields));
}

template <void (*kernel)(const Conv2d&, const float*, void*), Conv2dSize size, Rule rule>
void prepare(const char* name, Fields fields, Object w_, Object prepared_) {
    const Conv2d g = conv2d(fields);
    rule(g);
    const float* w = in<float>(w_, "w", w_shape(g));
    void* prepared = prepared_for(name, prepared_, size(g));
    without_gil([=] { kernel(g, w, prepared); });
}

template <void (*kernel)(const Conv2d&, const float*, const void*, const float*, const float*, float*, void*),
          Conv2dSize weights, Conv2dSize size, Rule rule, bool transposed>
void forward_prepared(const char* name, Fields fields, Object x_, Object prepared_, Object bias_, Object residual_,
                      Object y_, Object workspace_) {
    const Conv2d g = conv2d(fields);
    rule(g);
    const Forward<transposed> f(g, x_, bias_, residual_, y_);
    const void* prepared = prepared_by(name, prepared_, weights(g));
    void* workspace = scratch(workspace_, size(g));
    without_gil([=] { kernel(g, f.x, prepared, f.bias, f.residual, f.y, workspace); });
}

template <void (*kernel)(const Conv2d&, const float*, const float*, float*, void*), Conv2dSize size, Rule rule>
void grad_input(Fields fields, Object gy_, Object w_, Object gx_, Object workspace_) {
    const Conv2d g = conv2d(fields);
    rule(g);
    const float* gy = in<float>(gy_, "gy", y_shape(g));
    const float* w = in<float>(w_, "w", w_shape(g));
    float* gx = out<float>(gx_, "gx", x_shape(g));
    void* workspace = scratch(workspace_, size(g));
    without_gil([=] { kernel(g, gy, w, gx, workspace); });
}

template <void (*kernel)(const Conv2d&, const float*, const float*, float*, void*), Conv2dSize size, Rule rule>
void grad_weight(Fields fields, Object x_, Object gy_, Object gw_, Object workspace_) {
    const Conv2d g = conv2d(fields);
    rule(g);
    const float* x = in<float>(x_, "x", x_shape(g));
    const float* gy = in<float>(gy_, "gy", y_shape(g));
    float* gw = out<float>(gw_, "gw", w_shape(g));
    void* workspace = scratch(workspace_, size(g));
    without_gil([=] { kernel(g, x, gy, gw, workspace); });
}

void bind_conv2d(py::module_& m) {
#define NNLITE_BIND(direction, name, ...)                          \
    m.def(#name, &direction<name, name##_workspace, __VA_ARGS__>); \
    m.def(#name "_workspace", &conv2d_size<name##_workspace>)
#define NNLITE_BIND_FORWARD(name, rule, transposed)                                                           \
    NNLITE_BIND(forward, name, rule, transposed);                                                             \
    m.def(#name "_prepared_size", &prepared_size<name##_prepared_size>);                                      \
    m.def(#name "_prepared_workspace", &conv2d_size<name##_prepared_workspace>);                              \
    m.def(#name "_prepare", [](Fields fields, Object w, Object prepared) {                                    \
        prepare<name##_prepare, name##_prepared_size, rule>(#name, fields, w, prepared);                      \
    });                                                                                                       \
    m.def(#name "_prepared", [](Fields fields, Object x, Object prepared, Object bias, Object residual, Object y, \
                                Object workspace) {                                                           \
        forward_prepared<name##_prepared, name##_prepared_size, name##_prepared_workspace, rule, transposed>( \
            #name, fields, x, prepared, bias, residual, y, workspace);                                        \
    })
    NNLITE_BIND_FORWARD(conv2d_forward_igemm, any, false);
    NNLITE_BIND_FORWARD(conv2d_forward_stem, stem, false);
    NNLITE_BIND_FORWARD(conv2d_forward_depthwise, depthwise, false);
    NNLITE_BIND_FORWARD(conv2d_forward_winograd2, winograd, false);
    NNLITE_BIND_FORWARD(conv2d_forward_winograd4, winograd, false);
    NNLITE_BIND_FORWARD(conv2d_forward_winograd4x2, winograd_phases_forward, false);
    NNLITE_BIND_FORWARD(conv_transpose2d_forward_igemm, any, true);
    NNLITE_BIND_FORWARD(conv_transpose2d_forward_depthwise, depthwise_single, true);
    NNLITE_BIND_FORWARD(conv_transpose2d_forward_winograd2, winograd, true);
    NNLITE_BIND_FORWARD(conv_transpose2d_forward_winograd4, winograd, true);
    NNLITE_BIND_FORWARD(conv_transpose2d_forward_winograd4x2, winograd_phases, true);
#undef NNLITE_BIND_FORWARD
    NNLITE_BIND(grad_input, conv2d_grad_input_winograd2, winograd);
    NNLITE_BIND(grad_input, conv2d_grad_input_winograd4, winograd);
    NNLITE_BIND(grad_input, conv2d_grad_input_winograd4x2, winograd_phases);
    NNLITE_BIND(grad_input, conv2d_grad_input_igemm, any);
    NNLITE_BIND(grad_input, conv2d_grad_input_depthwise, depthwise_single);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_winograd, winograd);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_winograd4x2, winograd_phases);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_stem, stem_grad);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_gemm, any);
    NNLITE_BIND(grad_weight, conv2d_grad_weight_depthwise, depthwise_single);
#undef NNLITE_BIND
}

void bind_pool2d(py::module_& m) {
    m.def("max_pool2d_forward", [](const PoolInts& ints, Object x_, Object y_, Object indices_, Object) {
        const Pool2d g = pool2d(ints);
        const float* x = in<float>(x_, "x", x_shape(g));
        float* y = out<float>(y_, "y", y_shape(g));
        int32_t* indices = out_or_null<int32_t>(indices_, "indices", y_shape(g));
        without_gil([=] { max_pool2d_forward(g, x, y, indices); });
    });
    m.def("max_pool2d_backward", [](const PoolInts& ints, Object gy_, Object indices_, Object gx_, Object) {
        const Pool2d g = pool2d(ints);
        const float* gy = in<float>(gy_, "gy", y_shape(g));
        const int32_t* indices = in<int32_t>(indices_, "indices", y_shape(g));
        float* gx = out<float>(gx_, "gx", x_shape(g));
        without_gil([=] { max_pool2d_backward(g, gy, indices, gx); });
    });
    m.def("avg_pool2d_forward", [](const PoolInts& ints, Object x_, Object y_, Object) {
        const Pool2d g = pool2d(ints);
        const float* x = in<float>(x_, "x", x_shape(g));
        float* y = out<float>(y_, "y", y_shape(g));
        without_gil([=] { avg_pool2d_forward(g, x, y); });
    });
    m.def("avg_pool2d_backward", [](const PoolInts& ints, Object gy_, Object gx_, Object) {
        const Pool2d g = pool2d(ints);
        const float* gy = in<float>(gy_, "gy", y_shape(g));
        float* gx = out<float>(gx_, "gx", x_shape(g));
        without_gil([=] { avg_pool2d_backward(g, gy, gx); });
    });
}

}  // namespace
}  // namespace nnlite

PYBIND11_MODULE(_native, m) {
    m.doc() = "nnlite's CPU kernels; use them through nnlite.kernels.";
    pybind11::class_<nnlite::Calls>(m, "Calls")
        .def(pybind11::init<>())
        .def("keep", &nnlite::Calls::keep)
        .def("__call__", &nnlite::Calls::run);
    m.def("isa", [] { return nnlite::kernels().name; });
    m.def("use_isa", &nnlite::use_isa);
    m.def("compiled_isas", &nnlite::compiled_isas);
    m.def("usable_isas", &nnlite::usable_isas);
    m.def("fma_rounds", [](int64_t rounds) {  // on every thread at once; returns how many operations that was
        const nnlite::Kernels& k = nnlite::kernels();
        const int64_t threads = nnlite::num_threads();
        pybind11::gil_scoped_release released;
        nnlite::parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
            volatile float kept = 0;
            for (int64_t i = begin; i < end; ++i) kept = k.fma_rounds(rounds);
            static_cast<void>(kept);
        });
        return threads * rounds * k.flops_per_round;
    });
    m.def("set_num_threads", &nnlite::set_num_threads);
    m.def("num_threads", &nnlite::num_threads);
    nnlite::bind_conv2d(m);
    nnlite::bind_pool2d(m);
    nnlite::bind_rows(m);
    nnlite::bind_reduced(m);
}
