"""Rounding to bfloat16 is that of ml_dtypes, on numbers of all kinds, in NumPy and in every backend."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from nnlite.geometry import QuantiseGeometry
from nnlite.kernels import VARIANTS, unavailable
from nnlite.kernels.bfloat16 import from_bfloat16, to_bfloat16


def all_kinds():
    """Every upper half of a float, with lower halves around the middle: all neighbours and all halves."""
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper | lower).reshape(-1).view(np.float32)


def expected(x):
    with np.errstate(invalid="ignore"):
        return x.astype(ml_dtypes.bfloat16).view(np.uint16)


def test_numpy():
    x = all_kinds()
    bits, number = to_bfloat16(x), ~np.isnan(x)
    np.testing.assert_array_equal(bits[number], expected(x)[number])
    assert np.isnan(from_bfloat16(bits[~number])).all()


@pytest.mark.parametrize("variant", VARIANTS["round_bfloat16"], ids=str)
def test_kernel(variant):
    if reason := unavailable(variant.backend):
        pytest.skip(f"{variant.backend}: {reason}")
    x = all_kinds()
    x = x[np.isnan(x) | (np.abs(x) >= 2.0**-126) | (x == 0)]  # kernels take denormals for zeros
    y = np.empty(x.shape, np.uint16)
    variant.run(QuantiseGeometry(x.size), x, y, None)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(y[number], expected(x)[number])
    assert np.isnan(from_bfloat16(y[~number])).all()


def test_back_is_exact():
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(from_bfloat16(bits), bits.view(ml_dtypes.bfloat16).astype(np.float32))
