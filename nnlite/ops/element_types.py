"""Element types: ONNX's codes and names, and NumPy's types."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.errors import DTypeError

_TYPES = {
    1: ("FLOAT", "float32"), 2: ("UINT8", "uint8"), 3: ("INT8", "int8"), 4: ("UINT16", "uint16"),
    5: ("INT16", "int16"), 6: ("INT32", "int32"), 7: ("INT64", "int64"), 8: ("STRING", "object"),
    9: ("BOOL", "bool"), 10: ("FLOAT16", "float16"), 11: ("DOUBLE", "float64"), 12: ("UINT32", "uint32"),
    13: ("UINT64", "uint64"), 14: ("COMPLEX64", "complex64"), 15: ("COMPLEX128", "complex128"),
    16: ("BFLOAT16", "bfloat16"), 17: ("FLOAT8E4M3FN", "float8_e4m3fn"),
    18: ("FLOAT8E4M3FNUZ", "float8_e4m3fnuz"), 19: ("FLOAT8E5M2", "float8_e5m2"),
    20: ("FLOAT8E5M2FNUZ", "float8_e5m2fnuz"), 21: ("UINT4", "uint4"), 22: ("INT4", "int4"),
    23: ("FLOAT4E2M1", "float4_e2m1fn"), 24: ("FLOAT8E8M0", "float8_e8m0fnu"), 25: ("UINT2", "uint2"),
    26: ("INT2", "int2"),
}  # fmt: skip
LAST_OF_NUMPY = 15
"""The codes beyond are those of types that the package ml_dtypes brings."""
_CODES = {kind: code for code, (_, kind) in _TYPES.items()}
_NAMES = {name: code for code, (name, _) in _TYPES.items()}


def dtype_of(code: int) -> np.dtype[Any]:
    """The NumPy type of ONNX's code; KeyError where there is none."""
    return dtype_named(_TYPES[code][1])


def dtype_named(kind: Any) -> np.dtype[Any]:
    """The NumPy type that ``kind`` is or names; DTypeError where there is none."""
    if isinstance(kind, str) and _CODES.get(kind, 0) > LAST_OF_NUMPY:
        import ml_dtypes  # NumPy knows bfloat16 and what is smaller through it

        kind = getattr(ml_dtypes, kind, kind)  # older ones lack some
    try:
        dtype: np.dtype[Any] = np.dtype(kind)
    except TypeError:
        raise DTypeError(f"{kind!r} is no element type") from None
    return dtype


def code_of(dtype: Any) -> int:
    """ONNX's code of a NumPy type or its name; KeyError where there is none."""
    return _CODES[dtype_named(dtype).name]


def name_of(code: int) -> str | None:
    """ONNX's name of an element type (``TensorProto.DataType``); None where there is none."""
    return _TYPES[code][0] if code in _TYPES else None


def code_named(name: str) -> int | None:
    """ONNX's code of the element type called so; None where there is none."""
    return _NAMES.get(name)
