"""Resizing in NumPy: one axis after the other."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import ResizeGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def _along(axis: int, x: Array, start: Array, index: Array, weight: Array) -> Array:
    shape = list(x.shape)
    shape[axis] = len(start) - 1
    y = np.zeros(shape, x.dtype, like=x)
    some = start[1:] > start[:-1]  # reduceat takes one term where there is none
    if some.any():
        broadcast = [1] * x.ndim
        broadcast[axis] = -1
        terms = x.take(index, axis) * weight.reshape(broadcast)
        np.moveaxis(y, axis, 0)[some] = np.moveaxis(np.add.reduceat(terms, start[:-1][some], axis), axis, 0)
    return y


def resize(
    g: ResizeGeometry,
    x: Array,
    row_start: Array,
    row: Array,
    row_weight: Array,
    column_start: Array,
    column: Array,
    column_weight: Array,
    y: Array,
    workspace: Array | None,
) -> None:
    y[...] = _along(3, _along(2, x, row_start, row, row_weight), column_start, column, column_weight)


REGISTRY.add_variant(Variant("resize", "reference", "numpy", resize))
