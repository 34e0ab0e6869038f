// NumPy arrays as checked pointers. Nothing is converted or copied here: an operand of another type,
// shape or layout is an error that names it, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "../cpu/dispatch.h"
#include "calls.h"
#include "checks.h"

namespace nnlite {

// Dense with channels innermost: [N,C,...] whose memory is [N,...,C]. Strides of axes of size 1 mean nothing.
inline bool is_channels_last(const py::array& array) {
    const py::ssize_t axes = array.ndim();
    if (array.size() == 0) return true;
    py::ssize_t expected = array.itemsize();
    const auto dense = [&](py::ssize_t axis) {
        if (array.shape(axis) != 1 && array.strides(axis) != expected) return false;
        expected *= array.shape(axis);
        return true;
    };
    if (axes <= 2) {
        for (py::ssize_t axis = axes - 1; axis >= 0; --axis)
            if (!dense(axis)) return false;
        return true;
    }
    if (!dense(1)) return false;
    for (py::ssize_t axis = axes - 1; axis >= 2; --axis)
        if (!dense(axis)) return false;
    return dense(0);
}

template <class T>
py::array checked(const py::object& object, const char* name, const Shape& shape) {
    if (!py::isinstance<py::array>(object))
        refuse(name, "an array", std::string(py::str(py::type::handle_of(object))));
    py::array array = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<T>>(array))
        refuse(name, std::string(py::str(py::dtype::of<T>())), std::string(py::str(array.dtype())));
    const Shape actual(array.shape(), array.shape() + array.ndim());
    if (actual != shape) refuse(name, "shape " + text(shape), text(actual));
    if (!is_channels_last(array)) {
        const Shape strides(array.strides(), array.strides() + array.ndim());
        refuse(name, "channels-last memory (nnlite.layout.channels_last)",
               "shape " + text(actual) + " with strides " + text(strides));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T))
        refuse(name, "memory aligned to its element type", "an unaligned array");
    return array;
}

template <class T>
const T* in(const py::object& object, const char* name, const Shape& shape) {
    return static_cast<const T*>(checked<T>(object, name, shape).data());
}

template <class T>
const T* in_or_null(const py::object& object, const char* name, const Shape& shape) {
    return object.is_none() ? nullptr : in<T>(object, name, shape);
}

template <class T>
T* out(const py::object& object, const char* name, const Shape& shape) {
    py::array array = checked<T>(object, name, shape);
    if (!array.writeable()) refuse(name, "a writeable array", "a read-only one");
    return static_cast<T*>(array.mutable_data());
}

template <class T>
T* out_or_null(const py::object& object, const char* name, const Shape& shape) {
    return object.is_none() ? nullptr : out<T>(object, name, shape);
}

// At least `size` bytes of uint8.
inline void* bytes(const py::object& object, const char* name, size_t size) {
    if (size == 0) return nullptr;
    const std::string expected = std::to_string(size) + " bytes of uint8";
    if (object.is_none()) refuse(name, expected, "None");
    if (!py::isinstance<py::array>(object)) refuse(name, expected, "no array");
    py::array array = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<uint8_t>>(array) || array.ndim() != 1 || !is_channels_last(array))
        refuse(name, expected, "an array of another type or layout");
    if (static_cast<size_t>(array.size()) < size) refuse(name, expected, std::to_string(array.size()) + " bytes");
    if (!array.writeable()) refuse(name, "a writeable array", "a read-only one");
    return array.mutable_data();
}

// Scratch memory.
inline void* scratch(const py::object& object, size_t size) { return bytes(object, "workspace", size); }

}  // namespace nnlite
