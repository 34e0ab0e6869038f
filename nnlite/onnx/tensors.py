"""Tensors of a model file as arrays, with sizes checked before memory is asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from nnlite.errors import ModelError
from nnlite.layout import Array
from nnlite.memory import max_tensor_bytes
from nnlite.ops.storage import BITS, is_storage

MAX_RANK = 32
"""More axes than NumPy 1 has."""


def element_type(code: int, what: str) -> np.dtype[Any]:
    """The NumPy type behind an ONNX type code; ModelError, naming ``what``, when there is none."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{what} has the unknown element type {code}") from None
    known = is_storage(dtype) or is_half(dtype)
    if not known and (dtype.kind not in "fiub" or not hasattr(np, dtype.name)):
        name = onnx.TensorProto.DataType.Name(code).lower()
        raise ModelError(f"{what} has elements of type {name}; only real numbers are supported")
    return dtype


def declared_sizes(entry: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Sizes that an input or output declares; None for a symbol, nothing, 0 or Paddle's -1."""
    dims = entry.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is one of the 16-bit floating-point types, which are computed as float32."""
    return dtype.name in ("float16", "bfloat16")


def widened(array: Array) -> Array:
    """``array``, in float32 where it holds 16-bit floating-point numbers."""
    return array.astype(np.float32) if is_half(array.dtype) else array


def tensor_type(tensor: onnx.TensorProto) -> tuple[tuple[int, ...], np.dtype[Any]]:
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
    return -(-math.prod(shape) * BITS.get(dtype.name, 8 * dtype.itemsize) // 8)


def array_of(tensor: onnx.TensorProto) -> Array:
    """The array that ``tensor`` holds in the file itself; half precision is widened to float32.

    Raises ModelError when its data do not fit its shape.
    """
    shape, dtype = tensor_type(tensor)
    held = len(tensor.raw_data)
    if held and held != byte_count(shape, dtype):
        raise ModelError(f"tensor {tensor.name} of shape {list(shape)} and type {dtype} holds {held} bytes")
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor {tensor.name} of shape {list(shape)} cannot be read: {error}") from None
    if array.shape != shape:
        raise ModelError(f"tensor {tensor.name} declares shape {list(shape)} but holds {list(array.shape)}")
    return widened(array)


def dense_array_of(sparse: onnx.SparseTensorProto) -> Array:
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
