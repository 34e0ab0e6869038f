#include "reduced.h"

#include <pybind11/stl.h>

#include <array>
#include <cstring>

#include "../cpu/cpu.h"
#include "args.h"
#include "prepared.h"

namespace nnlite {
namespace {

// The convolution's fields as one tuple of integers, then what follows its sums.
#define NNLITE_REDUCED_FIELDS \
    const std::array<int64_t, conv2d_integers>&ints, int64_t x_zero, double residual_scale, double low, double high
#define NNLITE_REDUCED_GEOMETRY geometry(ints, x_zero, residual_scale, low, high)

ReducedConv2d geometry(NNLITE_REDUCED_FIELDS) {
    ReducedConv2d g = {};
    std::memcpy(&g.conv, ints.data(), sizeof ints);
    g.x_zero = x_zero, g.residual_scale = static_cast<float>(residual_scale);
    g.low = static_cast<float>(low), g.high = static_cast<float>(high);
    const Conv2d& c = g.conv;
    require(c.N >= 0 && c.C > 0 && c.H > 0 && c.W > 0 && c.K > 0, "sizes must be positive");
    require(c.R > 0 && c.S > 0 && c.P > 0 && c.Q > 0, "kernel and output sizes must be positive");
    require(c.stride_h > 0 && c.stride_w > 0 && c.dilation_h > 0 && c.dilation_w > 0,
            "strides and dilations must be positive");
    require(c.pad_top >= 0 && c.pad_left >= 0 && c.pad_bottom >= 0 && c.pad_right >= 0, "pads must not be negative");
    require(c.groups > 0 && c.C % c.groups == 0 && c.K % c.groups == 0, "groups must divide C and K");
    require(x_zero >= 0 && x_zero <= 255, "x_zero must lie between 0 and 255");
    return g;
}

// What a variant takes for granted, as supports() in nnlite/kernels/native.py.
void gemm(const Conv2d& g) {
    require(g.taps() <= 341 && g.taps() * g.group_C() <= 65536, "at most 341 taps and 65536 products");
}
void depthwise(const Conv2d& g) {
    require(g.groups == g.C && g.K == g.C, "depthwise takes groups=C and K=C");
    require(g.R <= 64 && (g.R + 1) / 2 * ((g.S - 1) * g.dilation_w + 1) <= 256, "depthwise takes smaller windows");
}

using Size = size_t (*)(const ReducedConv2d&);
using Rule = void (*)(const Conv2d&);

template <class X, class Y>
struct Operands {
    const float *scale, *bias;
    const X *x, *residual;
    Y* y;

    Operands(const Conv2d& g, Object x_, Object scale_, Object bias_, Object residual_, Object y_)
        : scale(in_or_null<float>(scale_, "scale", {g.K})),
          bias(in<float>(bias_, "bias", {g.K})),
          x(in<X>(x_, "x", {g.N, g.C, g.H, g.W})),
          residual(in_or_null<X>(residual_, "residual", {g.N, g.K, g.P, g.Q})),
          y(out<Y>(y_, "y", {g.N, g.K, g.P, g.Q})) {}
};

// The functions of one kernel by name, as those of a forward convolution in native.cpp.
template <class X, class W>
struct Kernel {
    std::string name;
    Rule rule;
    Size prepared_size;
    void (*prepare)(const ReducedConv2d&, const W*, void*);

    const W* weights(const ReducedConv2d& g, Object w_) const {
        return in<W>(w_, "w", {g.conv.K, g.conv.group_C(), g.conv.R, g.conv.S});
    }

    // Results of type Y; prepared weights are the same for either.
    template <class Y>
    void bind(py::module_& m, const char* suffix, Size size, Size prepared_workspace,
              void (*kernel)(const ReducedConv2d&, const X*, const W*, const float*, const float*, const X*, Y*, void*),
              void (*on_prepared)(const ReducedConv2d&, const X*, const void*, const float*, const float*, const X*, Y*,
                                  void*)) const {
        const Kernel k = *this;
        const auto def = [&](const char* what, const auto& function) {
            m.def((name + suffix + what).c_str(), function);
        };
        def("_workspace", [=](NNLITE_REDUCED_FIELDS) { return size(NNLITE_REDUCED_GEOMETRY); });
        def("_prepared_workspace", [=](NNLITE_REDUCED_FIELDS) { return prepared_workspace(NNLITE_REDUCED_GEOMETRY); });
        def("_prepared_size",
            [=](NNLITE_REDUCED_FIELDS) { return prepared_head + k.prepared_size(NNLITE_REDUCED_GEOMETRY); });
        def("_prepare", [=](NNLITE_REDUCED_FIELDS, Object w_, Object prepared_) {
            const ReducedConv2d g = NNLITE_REDUCED_GEOMETRY;
            k.rule(g.conv);
            const W* w = k.weights(g, w_);
            void* to = prepared_for(k.name.c_str(), prepared_, k.prepared_size(g));
            without_gil([=] { k.prepare(g, w, to); });
        });
        def("", [=](NNLITE_REDUCED_FIELDS, Object x_, Object w_, Object scale_, Object bias_, Object residual_,
                    Object y_, Object workspace_) {
            const ReducedConv2d g = NNLITE_REDUCED_GEOMETRY;
            k.rule(g.conv);
            const Operands<X, Y> o(g.conv, x_, scale_, bias_, residual_, y_);
            const W* w = k.weights(g, w_);
            void* workspace = scratch(workspace_, size(g));
            without_gil([=] { kernel(g, o.x, w, o.scale, o.bias, o.residual, o.y, workspace); });
        });
        def("_prepared", [=](NNLITE_REDUCED_FIELDS, Object x_, Object prepared_, Object scale_, Object bias_,
                             Object residual_, Object y_, Object workspace_) {
            const ReducedConv2d g = NNLITE_REDUCED_GEOMETRY;
            k.rule(g.conv);
            const Operands<X, Y> o(g.conv, x_, scale_, bias_, residual_, y_);
            const void* weights = prepared_by(k.name.c_str(), prepared_, k.prepared_size(g));
            void* workspace = scratch(workspace_, prepared_workspace(g));
            without_gil([=] { on_prepared(g, o.x, weights, o.scale, o.bias, o.residual, o.y, workspace); });
        });
    }
};

Rounding rounding(int64_t size, double scale, double zero) {
    require(size >= 0, "the size must not be negative");
    return {size, static_cast<float>(scale), static_cast<float>(zero)};
}

}  // namespace

void bind_reduced(py::module_& m) {
#define NNLITE_BIND(name, X, W, rule)                                                                       \
    {                                                                                                       \
        const Kernel<X, W> k = {#name, rule, &name##_prepared_size, &name##_prepare};                       \
        k.bind<X>(m, "", &name##_workspace, &name##_prepared_workspace, &name, &name##_prepared);           \
        k.bind<float>(m, "_float", &name##_float_workspace, &name##_float_prepared_workspace, &name##_float, \
                      &name##_float_prepared);                                                              \
    }
    NNLITE_BIND(conv2d_int8_gemm, uint8_t, int8_t, gemm)
    NNLITE_BIND(conv2d_int8_depthwise, uint8_t, int8_t, depthwise)
    NNLITE_BIND(conv2d_bfloat16_gemm, uint16_t, uint16_t, gemm)
    NNLITE_BIND(conv2d_bfloat16_depthwise, uint16_t, uint16_t, depthwise)
#undef NNLITE_BIND
    m.def("quantise", [](int64_t size, double scale, double zero, Object x_, Object y_, Object) {
        const Rounding g = rounding(size, scale, zero);
        const float* x = in<float>(x_, "x", {size});
        uint8_t* y = out<uint8_t>(y_, "y", {size});
        without_gil([=] { quantise(g, x, y); });
    });
    m.def("round_bfloat16", [](int64_t size, double scale, double zero, Object x_, Object y_, Object) {
        const Rounding g = rounding(size, scale, zero);
        const float* x = in<float>(x_, "x", {size});
        uint16_t* y = out<uint16_t>(y_, "y", {size});
        without_gil([=] { round_bfloat16(g, x, y); });
    });
}

}  // namespace nnlite
