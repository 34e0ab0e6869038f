// Geometries of convolution and pooling as Python has them, checked; shared by the CPU's and the GPU's bindings.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <cstring>

#include "checks.h"

namespace nnlite {

using PoolInts = std::array<int64_t, pool2d_fields>;

// The fields as Python has them: integers, then the activation.
using Fields = const py::tuple&;

inline Conv2d conv2d(Fields fields) {
    require(fields.size() == conv2d_integers + 3, "a convolution has 18 integers and an activation");
    std::array<int64_t, conv2d_integers> ints;
    for (size_t i = 0; i < ints.size(); ++i) ints[i] = fields[i].cast<int64_t>();
    Conv2d g;
    std::memcpy(&g, ints.data(), sizeof ints);
    g.act = conv2d_activation(fields[ints.size()].cast<int64_t>(), fields[ints.size() + 1].cast<double>(),
                       fields[ints.size() + 2].cast<double>());
    require(g.N >= 0 && g.C > 0 && g.H > 0 && g.W > 0 && g.K > 0, "sizes must be positive");
    require(g.R > 0 && g.S > 0 && g.P > 0 && g.Q > 0, "kernel and output sizes must be positive");
    require(g.stride_h > 0 && g.stride_w > 0 && g.dilation_h > 0 && g.dilation_w > 0,
            "strides and dilations must be positive");
    require(g.pad_top >= 0 && g.pad_left >= 0 && g.pad_bottom >= 0 && g.pad_right >= 0, "pads must not be negative");
    require(g.groups > 0 && g.C % g.groups == 0 && g.K % g.groups == 0, "groups must divide C and K");
    return g;
}

inline Pool2d pool2d(const PoolInts& ints) {
    Pool2d g;
    std::memcpy(&g, ints.data(), sizeof g);
    require(g.N >= 0 && g.C > 0 && g.H > 0 && g.W > 0, "sizes must be positive");
    require(g.R > 0 && g.S > 0 && g.P > 0 && g.Q > 0, "window and output sizes must be positive");
    require(g.stride_h > 0 && g.stride_w > 0 && g.dilation_h > 0 && g.dilation_w > 0,
            "strides and dilations must be positive");
    require(g.pad_top >= 0 && g.pad_left >= 0 && g.pad_bottom >= 0 && g.pad_right >= 0, "pads must not be negative");
    return g;
}

inline Norm norm(int64_t M, int64_t C, int64_t kind, double low, double high) {
    require(M >= 0 && C > 0, "sizes must be positive");
    return {M, C, activation(kind, low, high)};
}

inline Shape x_shape(const Conv2d& g) { return {g.N, g.C, g.H, g.W}; }
inline Shape w_shape(const Conv2d& g) { return {g.K, g.group_C(), g.R, g.S}; }
inline Shape y_shape(const Conv2d& g) { return {g.N, g.K, g.P, g.Q}; }
inline Shape x_shape(const Pool2d& g) { return {g.N, g.C, g.H, g.W}; }
inline Shape y_shape(const Pool2d& g) { return {g.N, g.C, g.P, g.Q}; }

}  // namespace nnlite
