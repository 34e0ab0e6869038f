// What an operand or a geometry must be, said in one way by every binding.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../include/params.h"

namespace nnlite {

namespace py = pybind11;

using Object = const py::object&;
using Shape = std::vector<int64_t>;

inline std::string text(const Shape& shape) {
    std::string result = "[";
    for (size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
    return result + "]";
}

[[noreturn]] inline void refuse(const char* name, const std::string& expected, const std::string& actual) {
    throw py::value_error(std::string(name) + ": expected " + expected + ", got " + actual);
}

inline void require(bool good, const char* rule) {
    if (!good) throw py::value_error(std::string("geometry: ") + rule);
}

// Of a forward convolution, which a function may follow, too.
inline Activation conv2d_activation(int64_t kind, double low, double high) {
    require(kind >= no_activation && kind <= prelu_activation,
            "activation must be 0 (none), 1 (relu), 2 (clamp), 3 and the number of a function, or 12 (prelu)");
    if (kind == relu_activation) low = 0;
    return {kind, static_cast<float>(low), static_cast<float>(high)};
}

inline Activation activation(int64_t kind, double low, double high) {
    require(kind >= no_activation && kind <= clamp_activation, "activation must be 0 (none), 1 (relu) or 2 (clamp)");
    if (kind == relu_activation) low = 0;
    return {kind, static_cast<float>(low), static_cast<float>(high)};
}

}  // namespace nnlite
