"""Tensors of a model file as arrays, with sizes checked before memory is asked for."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nnlite.errors import ModelError
from nnlite.layout import Array


def max_tensor_bytes() -> int:
    """Largest tensor that a file may hold (``NNLITE_MAX_TENSOR_BYTES``, 2 GiB by default)."""
    return int(os.environ.get("NNLITE_MAX_TENSOR_BYTES", 1 << 31))


def tensor_type(tensor: onnx.TensorProto) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and element type; ModelError when they are not possible or beyond the budget."""
    name = tensor.name or "a constant"
    if tensor.data_type not in onnx.TensorProto.DataType.values() or tensor.data_type == 0:
        raise ModelError(f"tensor {name} has the unknown element type {tensor.data_type}")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(tensor.dims)
    size = dtype.itemsize
    for dim in shape:
        size *= dim
    if min(shape, default=0) < 0 or size > max_tensor_bytes():
        raise ModelError(
            f"tensor {name} of shape {list(shape)} and type {dtype} is beyond the budget of "
            f"{max_tensor_bytes()} bytes; raise NNLITE_MAX_TENSOR_BYTES if you trust the file"
        )
    return shape, dtype


def array_of(tensor: onnx.TensorProto, ir_version: int = 0) -> Array:
    """The array that ``tensor`` holds in the file itself; half precision is widened to float32.

    Raises ModelError when its data do not fit its shape.
    """
    shape, dtype = tensor_type(tensor)
    if dtype.kind not in "fiub" and dtype.name not in ("bfloat16",):
        raise ModelError(f"tensor {tensor.name or 'a constant'} has elements of type {dtype}; only numbers are supported")
    held = len(tensor.raw_data)
    if held and held != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ModelError(f"tensor {tensor.name} of shape {list(shape)} and type {dtype} holds {held} bytes")
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor {tensor.name} of shape {list(shape)} cannot be read: {error}") from None
    if array.shape != shape:
        raise ModelError(f"tensor {tensor.name} declares shape {list(shape)} but holds {list(array.shape)}")
    return array.astype(np.float32) if dtype.itemsize == 2 and dtype.kind not in "iu" else array
