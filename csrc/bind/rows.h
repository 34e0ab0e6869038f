// Bindings of the kernels on rows [M,C] and on plain runs of numbers: normalisation, elementwise, optimisers.
#pragma once

#include <pybind11/pybind11.h>

namespace nnlite {

void bind_rows(pybind11::module_& m);

}  // namespace nnlite
