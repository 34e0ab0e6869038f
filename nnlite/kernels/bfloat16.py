"""bfloat16: the upper half of a float32, held by its bits in uint16.

Sign, all eight bits of the exponent, seven bits of the fraction: the range of float32, two to three digits.
"""

from __future__ import annotations

import numpy as np

from nnlite.layout import Array, as_array


def to_bfloat16(x: Array) -> Array:
    """``x`` rounded to the nearest, halves to the one whose last bit is 0; a NaN stays one."""
    bits = as_array(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> np.uint32(16)
    result: Array = np.where(np.isnan(x), (bits >> 16) | np.uint32(0x40), rounded).astype(np.uint16)
    return result


def from_bfloat16(bits: Array) -> Array:
    """The float32 numbers behind the bits: exact."""
    result: Array = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return result
