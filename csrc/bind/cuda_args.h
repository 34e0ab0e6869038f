// Arrays on a GPU as checked pointers, by the __cuda_array_interface__ that CuPy, PyTorch and Numba share. Nothing is
// converted or copied: an operand of another type, shape or layout is an error, as in args.h.
#pragma once

#include <array>

#include "../cuda/cuda.h"
#include "checks.h"

namespace nnlite {
namespace cuda {

template <class T>
constexpr const char* type_name();
template <>
constexpr const char* type_name<float>() { return "<f4"; }
template <>
constexpr const char* type_name<Half>() { return "<f2"; }
template <>
constexpr const char* type_name<BFloat16>() { return "<u2"; }  // as nnlite.kernels.bfloat16 holds it
template <>
constexpr const char* type_name<int32_t>() { return "<i4"; }
template <>
constexpr const char* type_name<int64_t>() { return "<i8"; }
template <>
constexpr const char* type_name<uint8_t>() { return "|u1"; }

// Dense with channels innermost: [N,C,...] whose memory is [N,...,C]. Strides of axes of size 1 mean nothing.
inline bool is_channels_last(const Shape& shape, const Shape& strides, int64_t itemsize) {
    const size_t axes = shape.size();
    int64_t expected = itemsize;
    for (const int64_t size : shape)
        if (size == 0) return true;
    const auto dense = [&](size_t axis) {
        if (shape[axis] != 1 && strides[axis] != expected) return false;
        expected *= shape[axis];
        return true;
    };
    if (axes > 2 && !dense(1)) return false;
    for (size_t axis = axes; axis-- > 0;)
        if (!(axes > 2 && axis == 1) && !dense(axis)) return false;
    return true;
}

template <class T>
T* checked(Object object, const char* name, const Shape& shape, bool written) {
    if (!py::hasattr(object, "__cuda_array_interface__"))
        refuse(name, "an array on the GPU", std::string(py::str(py::type::handle_of(object))));
    const py::dict face = object.attr("__cuda_array_interface__");
    const std::string type = face["typestr"].cast<std::string>();
    if (type != type_name<T>()) refuse(name, std::string("elements of type ") + type_name<T>(), type);
    Shape actual, strides;
    for (const auto& size : face["shape"].cast<py::tuple>()) actual.push_back(size.cast<int64_t>());
    if (actual != shape) refuse(name, "shape " + text(shape), text(actual));
    if (face.contains("strides") && !face["strides"].is_none()) {
        for (const auto& stride : face["strides"].cast<py::tuple>()) strides.push_back(stride.cast<int64_t>());
    } else {  // row-major
        strides.assign(actual.size(), sizeof(T));
        for (size_t axis = actual.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * actual[axis];
    }
    if (!is_channels_last(actual, strides, sizeof(T)))
        refuse(name, "channels-last memory (nnlite.layout.channels_last)",
               "shape " + text(actual) + " with strides " + text(strides));
    const py::tuple data = face["data"].cast<py::tuple>();
    if (written && data[1].cast<bool>()) refuse(name, "a writeable array", "a read-only one");
    const auto address = data[0].cast<uintptr_t>();
    if (address % alignof(T)) refuse(name, "memory aligned to its element type", "an unaligned array");
    return reinterpret_cast<T*>(address);
}

template <class T>
const T* in(Object object, const char* name, const Shape& shape) {
    return checked<T>(object, name, shape, false);
}
template <class T>
const T* in_or_null(Object object, const char* name, const Shape& shape) {
    return object.is_none() ? nullptr : in<T>(object, name, shape);
}
template <class T>
T* out(Object object, const char* name, const Shape& shape) {
    return checked<T>(object, name, shape, true);
}
template <class T>
T* out_or_null(Object object, const char* name, const Shape& shape) {
    return object.is_none() ? nullptr : out<T>(object, name, shape);
}

// A few numbers that the host holds, in an array of NumPy or a tuple; they go to a kernel as arguments.
template <size_t count>
std::array<float, count> numbers(Object object, const char* name) {
    std::array<float, count> found;
    if (!py::isinstance<py::sequence>(object) || py::len(object) != count)
        refuse(name, std::to_string(count) + " numbers of the host's", std::string(py::str(py::type::handle_of(object))));
    for (size_t i = 0; i < count; ++i) found[i] = object[py::int_(i)].cast<float>();
    return found;
}

// At least `size` bytes of uint8.
inline void* scratch(Object object, size_t size) {
    if (size == 0) return nullptr;
    const std::string expected = std::to_string(size) + " bytes of uint8 on the GPU";
    if (object.is_none()) refuse("workspace", expected, "None");
    const py::dict face = object.attr("__cuda_array_interface__");
    const py::tuple shape = face["shape"].cast<py::tuple>();
    if (shape.size() != 1 || shape[0].cast<size_t>() < size)
        refuse("workspace", expected, std::string(py::str(shape)));
    void* start = out<uint8_t>(object, "workspace", {shape[0].cast<int64_t>()});
    if (reinterpret_cast<uintptr_t>(start) % 16) refuse("workspace", "memory aligned to 16 bytes", "an unaligned array");
    return start;
}

using Stream = uintptr_t;
inline cudaStream_t stream(Stream handle) { return reinterpret_cast<cudaStream_t>(handle); }

}  // namespace cuda
}  // namespace nnlite
