// Geometry of one kernel call: plain integers, shared by the CPU kernels, the CUDA kernels and the
// bindings. Field order is that of ints() in nnlite/geometry/kinds.py; the letters mean the same there.
//
//   N batch · C input channels · H W input size · K output channels · R S kernel size · P Q output size
#pragma once

#include <stdint.h>

namespace nnlite {

// What follows a sum, elementwise: nothing, max(z, 0), z kept within [low, high], or, of a forward convolution on the
// CPU, the function (kind - function_activation) below with a = low and b = high, or PReLU, whose slopes below 0 lie
// behind the bias.
constexpr int64_t no_activation = 0, relu_activation = 1, clamp_activation = 2, function_activation = 3,
                  prelu_activation = 12;

struct Activation {
    int64_t kind;
    float low, high;  // 0 and infinity for relu
};

// Before a sum is stored: y = act(sum + bias + residual). bias [K] and residual, like y, may be null; so may the
// slopes [K] of PReLU, which are 0 then.
struct Epilogue {
    const float *bias, *residual;
    Activation act;
    const float* slope = nullptr;

    // What belongs to the element `at` of y, and null where there is no residual.
    const float* beside(const float* y, const float* at) const { return residual ? residual + (at - y) : nullptr; }
};

// Of a sum of so many channels. With PReLU `bias` is [2, channels]: the slopes follow.
inline Epilogue epilogue_of(const Activation& act, int64_t channels, const float* bias, const float* residual) {
    return {bias, residual, act, bias && act.kind == prelu_activation ? bias + channels : nullptr};
}

struct Conv2d {
    int64_t N, C, H, W, K, R, S, P, Q;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    int64_t dilation_h, dilation_w;
    int64_t groups;
    Activation act;  // of the forward convolution

    int64_t group_C() const { return C / groups; }
    int64_t group_K() const { return K / groups; }
    int64_t taps() const { return R * S; }
};

struct Pool2d {
    int64_t N, C, H, W, R, S, P, Q;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    int64_t dilation_h, dilation_w;
    int64_t count_include_pad;
};

// A convolution of integers of 8 bits or of bfloat16 numbers, and what follows its sums:
// y = clamp(sum scale + bias + residual residual_scale, low, high).
struct ReducedConv2d {
    Conv2d conv;
    int64_t x_zero;  // what surrounds the picture
    float residual_scale, low, high;
};

// Of numbers to integers from 0 to 255, (q - zero) scale, or to bfloat16, which needs neither.
struct Rounding {
    int64_t size;
    float scale, zero;
};

struct Norm {
    int64_t M, C;
    Activation act;
};

struct Eltwise {
    int64_t size;
    float alpha, beta;
    Activation act;
};

// Elementwise functions with a name: a and b are the slope and the shift of hardsigmoid and hardswish, a the
// slope of leaky relu below 0.
constexpr int64_t sigmoid_function = 0, tanh_function = 1, silu_function = 2, hardsigmoid_function = 3,
                  hardswish_function = 4, leaky_relu_function = 5, gelu_function = 6, gelu_tanh_function = 7,
                  erf_function = 8;

static_assert(prelu_activation == function_activation + erf_function + 1, "kinds of activations are different numbers");

struct Named {
    int64_t size, function;
    float a, b;
};

// Pictures [N,H,W,C], whose channels are taken one by one.
struct Pictures {
    int64_t N, C, H, W;
};

// Pictures x [N,H,W,C] to y [N,P,Q,C]; so many source rows over all rows of y, and columns over all of its columns.
struct Resize {
    int64_t N, C, H, W, P, Q, row_taps, column_taps;
};

constexpr int conv2d_integers = 18;
constexpr int pool2d_fields = 17;
constexpr int resize_fields = 8;
constexpr int pictures_fields = 4;
static_assert(sizeof(Conv2d) == conv2d_integers * sizeof(int64_t) + sizeof(Activation),
              "no padding, no forgotten field");
static_assert(sizeof(Resize) == resize_fields * sizeof(int64_t), "no padding, no forgotten field");
static_assert(sizeof(Pool2d) == pool2d_fields * sizeof(int64_t), "no padding, no forgotten field");

}  // namespace nnlite
