"""A picture along one of its axes, in the memory order that it has."""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite import layout, memory
from nnlite.layout import Array


class OneAxis:
    """``x`` [..., size, ...] seen along one axis as [outer, size, inner], in the memory order that it has."""

    def __init__(self, x: Array, axis: int) -> None:
        self.channels_last = not x.flags.c_contiguous and layout.is_channels_last(x)
        inside = layout.channels_inside(x) if self.channels_last else np.ascontiguousarray(x)
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
        y = memory.empty((outer, len(indices), inner), self.blocks.dtype, "C")
        # "clip" writes straight into y; all indices are inside.
        return self.picture(self.blocks.take(indices, 1, out=y, mode="clip"))
