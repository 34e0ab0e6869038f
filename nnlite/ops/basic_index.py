"""Basic indexing, x[1, :, None, ::-1], as slice, squeeze and unsqueeze."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.errors import OperandError, ShapeError
from nnlite.ops.slicing import END


def index_steps(shape: tuple[int, ...], index: tuple[Any, ...]) -> list[tuple[str, dict[str, Any]]]:
    """The ops, with their params, that ``x[index]`` is made of, for x of ``shape``.

    Raises OperandError for an index of another kind or out of range, ShapeError for too many indices.
    """
    for item in index:
        known = item is None or item is Ellipsis or isinstance(item, (int, np.integer, slice))
        if not known or isinstance(item, bool):  # True is an int, but as an index it is a mask
            raise OperandError(f"index {item!r}: only integers, slices, ... and None are supported")
    named = sum(item is not None and item is not Ellipsis for item in index)
    if named > len(shape) or sum(item is Ellipsis for item in index) > 1:
        raise ShapeError(f"{named} indices are too many for shape {list(shape)}")
    at = next((i for i, item in enumerate(index) if item is Ellipsis), len(index))
    full = (*index[:at], *[slice(None)] * (len(shape) - named), *index[at + 1 :])

    cuts: list[tuple[int, int, int, int]] = []  # axis, start, end, step
    gone: list[int] = []
    new: list[int] = []
    axis = place = 0  # of x, of the result
    for item in full:
        if item is None:
            new.append(place)
            place += 1
            continue
        size = shape[axis]
        if isinstance(item, slice):
            if item != slice(None):
                step = 1 if item.step is None else int(item.step)
                ends = (0, END) if step > 0 else (END, -END)
                start = ends[0] if item.start is None else int(item.start)
                cuts.append((axis, start, ends[1] if item.stop is None else int(item.stop), step))
            place += 1
        else:
            if not -size <= item < size:
                raise OperandError(f"index {item} is out of range for axis {axis} of size {size}")
            cuts.append((axis, item % size, item % size + 1, 1))
            gone.append(axis)
        axis += 1
    steps: list[tuple[str, dict[str, Any]]] = []
    if cuts:
        names = ("axes", "starts", "ends", "steps")
        steps.append(("slice", dict(zip(names, zip(*cuts, strict=True), strict=True))))
    if gone:
        steps.append(("squeeze", {"axes": tuple(gone)}))
    if new:
        steps.append(("unsqueeze", {"axes": tuple(new)}))
    return steps
