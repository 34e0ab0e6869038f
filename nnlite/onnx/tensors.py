"""Tensors of a model file as arrays, with sizes checked before memory is asked for."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from nnlite.errors import ModelError
from nnlite.layout import Array, as_array
from nnlite.memory import max_tensor_bytes
from nnlite.onnx.proto import SparseTensorProto, TensorProto, ValueInfoProto
from nnlite.ops.element_types import code_of, dtype_of, name_of
from nnlite.ops.storage import BITS, is_storage

MAX_RANK = 32
"""More axes than NumPy 1 has."""


def element_type(code: int, what: str) -> np.dtype[Any]:
    """The NumPy type behind an ONNX type code; ModelError, naming ``what``, when there is none."""
    try:
        dtype = dtype_of(code)
    except KeyError:
        raise ModelError(f"{what} has the unknown element type {code}") from None
    if dtype.kind not in "fiub" and not is_storage(dtype) and not is_half(dtype):
        raise ModelError(
            f"{what} has elements of type {str(name_of(code)).lower()}; only real numbers are supported"
        )
    return dtype


def declared_sizes(entry: ValueInfoProto) -> tuple[int | None, ...]:
    """Sizes that an input or output declares; None for a symbol, nothing, 0 or Paddle's -1."""
    dims = entry.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


@cache
def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is one of the 16-bit floating-point types, which are computed as float32."""
    return dtype.name in ("float16", "bfloat16")


def widened(array: Array) -> Array:
    """``array``, in float32 where it holds 16-bit floating-point numbers."""
    return array.astype(np.float32) if is_half(array.dtype) else array


def tensor_type(tensor: TensorProto) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and element type; ModelError when they are not possible or beyond the budget."""
    name = tensor.name or "a constant"
    dtype = element_type(tensor.data_type, f"tensor {name}")
    shape = tuple(tensor.dims)
    check_budget(f"tensor {name}", shape, dtype)
    return shape, dtype


def check_budget(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """ModelError when an array of ``shape`` is impossible or beyond :func:`max_tensor_bytes`."""
    # An axis of size 0 does not excuse the others: NumPy counts them when it makes the array.
    size = dtype.itemsize * math.prod(max(dim, 1) for dim in shape)
    if min(shape, default=0) < 0 or len(shape) > MAX_RANK or size > max_tensor_bytes():
        raise ModelError(
            f"{what} of shape {list(shape)} and type {dtype} is beyond the budget of "
            f"{max_tensor_bytes()} bytes; raise NNLITE_MAX_TENSOR_BYTES if you trust the file"
        )


def byte_count(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """How many bytes of a file an array takes: elements of less than 8 bits lie packed."""
    bits = BITS.get(dtype.name) if is_storage(dtype) else None
    return -(-math.prod(shape) * (bits or 8 * dtype.itemsize) // 8)


def array_of(tensor: TensorProto) -> Array:
    """The array that ``tensor`` holds in the file itself; half precision is widened to float32.

    Raises ModelError when its data do not fit its shape.
    """
    shape, dtype = tensor_type(tensor)
    held = len(tensor.raw_data)
    if held and held != byte_count(shape, dtype):
        raise ModelError(f"tensor {tensor.name} of shape {list(shape)} and type {dtype} holds {held} bytes")
    try:
        array = _numbers(tensor, dtype).reshape(shape)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor {tensor.name} of shape {list(shape)} cannot be read: {error}") from None
    return widened(array)


def _numbers(tensor: TensorProto, dtype: np.dtype[Any]) -> Array:
    """What ``tensor`` holds, as bytes or in the field for its type, one after the other."""
    if is_storage(dtype):  # may lie packed
        from onnx import numpy_helper

        return as_array(numpy_helper.to_array(tensor))
    if tensor.HasField("raw_data"):
        return np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    numbers = np.array(getattr(tensor, _FIELDS.get(dtype.name, "int32_data")))
    return numbers.astype(np.uint16).view(dtype) if is_half(dtype) else numbers.astype(dtype)


_FIELDS = {
    "float32": "float_data", "float64": "double_data", "int64": "int64_data", "uint32": "uint64_data",
    "uint64": "uint64_data",
}  # fmt: skip
"""Where a tensor has numbers that are not bytes."""


def tensor_of(array: Array, name: str) -> TensorProto:
    """``array`` as a tensor of a file."""
    if is_storage(array.dtype):
        from onnx import numpy_helper

        return numpy_helper.from_array(array, name)
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return TensorProto(name=name, data_type=code_of(array.dtype), dims=array.shape, raw_data=raw)


def dense_array_of(sparse: SparseTensorProto) -> Array:
    """The array that a sparse tensor stands for: 0 wherever it lists nothing.

    Raises ModelError when it is beyond the budget, or lists places that are not there.
    """
    name = sparse.values.name or "a constant"
    shape = tuple(sparse.dims)
    values_shape, dtype = tensor_type(sparse.values)
    check_budget(f"sparse tensor {name}", shape, dtype)
    if TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
        raise ModelError(f"sparse tensor {name} lies in another file, which is not supported")
    values, indices = array_of(sparse.values), array_of(sparse.indices)
    count, size = math.prod(values_shape), math.prod(shape)
    if values.ndim != 1 or indices.dtype != np.int64 or indices.shape not in ((count,), (count, len(shape))):
        raise ModelError(f"sparse tensor {name} has {count} values and indices {list(indices.shape)}")
    if indices.ndim == 2:
        if ((indices < 0) | (indices >= np.asarray(shape))).any():
            raise ModelError(f"sparse tensor {name} of shape {list(shape)} lists a place outside")
        indices = np.ravel_multi_index(tuple(indices.T), shape) if indices.size else indices.reshape(-1)
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
        raise ModelError(f"sparse tensor {name} of shape {list(shape)} lists a place outside")
    dense = np.zeros(size, values.dtype)
    dense[indices] = values
    return dense.reshape(shape)
