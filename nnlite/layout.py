"""Memory layout: logical NCHW, channels-last in memory.

An array of shape [N,C,...] is *channels-last* when the same data seen as [N,...,C] is C-contiguous.
Kernels take channels-last arrays only and never copy; the one place that converts is
:func:`channels_last`, called when an op is applied, and it counts what it had to copy.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_counter = threading.local()


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    # Strides of axes of size 1 mean nothing: NumPy leaves anything there.
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 0:
            return True
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def is_channels_last(array: Array) -> bool:
    """True when ``array`` [N,C,...] lies in memory as contiguous [N,...,C]."""
    shape, strides = array.shape, array.strides
    if array.ndim > 2:
        shape = (shape[0], *shape[2:], shape[1])
        strides = (strides[0], *strides[2:], strides[1])
    return _is_dense(shape, strides, array.itemsize)


def channels_last(array: Array) -> Array:
    """``array`` itself when it is channels-last, else a channels-last copy (counted)."""
    if is_channels_last(array):
        return array
    _counter.copies = copies() + 1
    _counter.bytes = copied_bytes() + array.nbytes
    if array.ndim <= 2:
        return np.ascontiguousarray(array)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def contiguous(array: Array) -> Array:
    """``array`` itself when it is C-contiguous, else a C-contiguous copy (counted)."""
    if array.flags.c_contiguous:
        return array
    _counter.copies = copies() + 1
    _counter.bytes = copied_bytes() + array.nbytes
    return np.ascontiguousarray(array)


def _channels_inside(array: Array) -> Array:
    """[N,C,...] as [N,...,C]."""
    if array.ndim <= 2:
        return array
    # np.moveaxis takes four microseconds to find out what transpose is told here.
    view: Array = array.transpose(0, 2, 3, 1) if array.ndim == 4 else np.moveaxis(array, 1, -1)
    return view


def rows(array: Array) -> Array:
    """A channels-last [N,C,...] array as the view [M,C], M = N·H·W; never copies."""
    if array.ndim <= 2:
        return array
    view = _channels_inside(array).reshape(-1, array.shape[1])
    assert view.size == 0 or np.may_share_memory(view, array), "rows() needs a channels-last array"
    return view


def runs(*arrays: Array) -> list[Array] | None:
    """Arrays of one shape as flat views in one order, row-major or channels-last; None if they differ."""
    if all(array.flags.c_contiguous for array in arrays):
        return [array.reshape(-1) for array in arrays]
    if all(map(is_channels_last, arrays)):
        return [_channels_inside(array).reshape(-1) for array in arrays]
    return None


def copies() -> int:
    """How many arrays this thread has had to convert so far."""
    return int(getattr(_counter, "copies", 0))


def copied_bytes() -> int:
    """How many bytes this thread has had to convert so far."""
    return int(getattr(_counter, "bytes", 0))
