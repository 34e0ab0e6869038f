"""Element types that numbers are only stored in: floats of 8 and 4 bits, integers of 4 and 2.

Model files hold such numbers; arrays hold them in the types of the package ml_dtypes, which comes with onnx.
Casting, quantising and whatever only moves elements takes them; everything else refuses them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from nnlite.layout import Array, as_array

LARGEST = {
    "float8_e4m3fn": 448.0, "float8_e4m3fnuz": 240.0, "float8_e5m2": 57344.0, "float8_e5m2fnuz": 57344.0,
    "float4_e2m1fn": 6.0,
}  # fmt: skip
"""The largest finite numbers of floating-point types."""
RANGES = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}
SCALE = "float8_e8m0fnu"
"""Powers of two from 2^-127 to 2^127, without a sign."""
STORAGE = frozenset({*LARGEST, *RANGES, SCALE})
BITS = {"float4_e2m1fn": 4, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
"""How many bits of a file an element takes, where that is less than a byte."""


@cache
def is_storage(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is one that numbers are only stored in."""
    return dtype.name in STORAGE


def stored(x: Array, dtype: np.dtype[Any], saturate: bool = True, round_mode: str = "up") -> Array:
    """``x`` in a storage type, as ONNX Cast-25 rounds it.

    With ``saturate`` floats that are too large become the largest finite number, else infinity or NaN.
    """
    if is_storage(x.dtype):
        x = x.astype(np.float32)
    if dtype.name == SCALE:
        return _powers_of_two(x, saturate, round_mode).view(dtype)
    if saturate and dtype.name in LARGEST:
        x = np.clip(x, -LARGEST[dtype.name], LARGEST[dtype.name])
    return x.astype(dtype)


def _powers_of_two(x: Array, saturate: bool, round_mode: str) -> Array:
    """The exponents of |x| as bytes, biased by 127; 255 for infinity and NaN."""
    bits = as_array(x, np.float32).view(np.uint32)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    if round_mode == "nearest":  # halfway up, but for the smallest
        larger = (fraction > 0x400000) | ((fraction == 0x400000) & (exponent > 0))
    else:
        larger = (fraction > 0) & (round_mode == "up")
    larger &= exponent < (0xFE if saturate else 0xFF)
    return as_array(exponent + larger, np.uint8)
