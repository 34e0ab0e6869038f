"""Linear maps along one axis of a picture, in the memory order that it has."""

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

    def _with(self, blocks: Array) -> Array:
        y = blocks.reshape(*self.before, blocks.shape[1], *self.after)
        return layout.channels_second(y) if self.channels_last else y

    def _new(self, size: int) -> Array:
        outer, _, inner = self.blocks.shape
        return memory.empty((outer, size, inner), self.blocks.dtype, "C")

    def take(self, indices: Array) -> Array:
        """The elements at ``indices`` of the axis."""
        y = self._new(len(indices))
        # "clip" writes straight into y; all indices are inside.
        return self._with(self.blocks.take(indices, 1, out=y, mode="clip"))

    def times(self, matrix: Array) -> Array:
        """``matrix`` [out, size] times each vector along the axis."""
        matrix, y = matrix.astype(self.blocks.dtype), self._new(len(matrix))
        if self.blocks.shape[2] == 1:  # one product instead of many that are one column wide
            np.matmul(self.blocks[:, :, 0], matrix.T, out=y[:, :, 0])
        else:
            np.matmul(matrix, self.blocks, out=y)
        return self._with(y)
