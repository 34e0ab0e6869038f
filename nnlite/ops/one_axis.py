"""One axis of an array: index arrays along it, and the array seen along it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nnlite import layout, memory
from nnlite.device import array_module, on_host
from nnlite.layout import Array


def places_along(indices: Array, axis: int) -> tuple[Array, ...]:
    """An index array for each axis: the element's own place, but along ``axis`` what ``indices`` say."""
    own = [
        np.arange(size, like=indices).reshape(-1, *[1] * (indices.ndim - i - 1))
        for i, size in enumerate(indices.shape)
    ]
    own[axis] = indices
    return tuple(own)


def add_at(x: Array, places: Any, values: Array) -> None:
    """x[places] += values, where ``places`` may name one several times: then all are added."""
    # NumPy's add.at would not hand CuPy a tuple of index arrays.
    array_module(x).add.at(x, places, values)


class OneAxis:
    """``x`` [..., size, ...] seen along one axis as [outer, size, inner], in the memory order that it has."""

    def __init__(self, x: Array, axis: int) -> None:
        self.channels_last = not x.flags.c_contiguous and layout.is_channels_last(x)
        inside = layout.channels_inside(x) if self.channels_last else x
        if self.channels_last and axis > 0:
            axis = x.ndim - 1 if axis == 1 else axis - 1
        self.before, self.after = inside.shape[:axis], inside.shape[axis + 1 :]
        self.blocks = inside.reshape(prod(self.before), inside.shape[axis], prod(self.after))

    def picture(self, blocks: Array) -> Array:
        """[outer, other size, inner] with the axes of ``x``."""
        y = blocks.reshape(*self.before, blocks.shape[1], *self.after)
        return layout.channels_second(y) if self.channels_last else y

    def take(self, indices: Array) -> Array:
        """The elements at ``indices`` of the axis."""
        outer, _, inner = self.blocks.shape
        if not on_host(self.blocks):  # CuPy's take has no mode: it never raises
            return self.picture(self.blocks.take(np.asarray(indices, like=self.blocks), 1))
        y = memory.empty((outer, len(indices), inner), self.blocks.dtype, "C", self.blocks)
        # "clip" writes straight into y; all indices are inside.
        return self.picture(self.blocks.take(indices, 1, out=y, mode="clip"))
