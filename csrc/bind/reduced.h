// Bindings of the kernels of reduced precision.
#pragma once

#include <pybind11/pybind11.h>

namespace nnlite {

void bind_reduced(pybind11::module_& m);

}  // namespace nnlite
