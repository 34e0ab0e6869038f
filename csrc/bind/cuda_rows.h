// Bindings of the CUDA kernels that see their arrays as rows [M,C], and of pooling and resizing.
#pragma once

#include <pybind11/pybind11.h>

namespace nnlite {
namespace cuda {

void bind_rows(pybind11::module_&);
void bind_pictures(pybind11::module_&);

}  // namespace cuda
}  // namespace nnlite
