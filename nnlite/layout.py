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


def as_array(result: Any, dtype: Any = None) -> Array:
    """What a function returned, of ``dtype``: NumPy has a scalar for an array without axes."""
    if isinstance(result, np.generic):
        return np.asarray(result, dtype)
    array: Array = result if dtype is None else result.astype(dtype, copy=False)
    return array


def is_channels_last(array: Array) -> bool:
    """True when ``array`` [N,C,...] lies in memory as contiguous [N,...,C]."""
    # NumPy's flag knows that the strides of axes of size 1 mean nothing.
    return channels_inside(array).flags.c_contiguous


def channels_last(array: Array) -> Array:
    """``array`` itself when it is channels-last, else a channels-last copy (counted)."""
    if is_channels_last(array):
        return array
    _counter.copies = copies() + 1
    _counter.bytes = copied_bytes() + array.nbytes
    return channels_second(channels_inside(array).copy("C"))


def contiguous(array: Array) -> Array:
    """``array`` itself when it is C-contiguous, else a C-contiguous copy (counted)."""
    if array.flags.c_contiguous:
        return array
    _counter.copies = copies() + 1
    _counter.bytes = copied_bytes() + array.nbytes
    copy: Array = array.copy("C")
    return copy


def channels_inside(array: Array) -> Array:
    """[N,C,...] as the view [N,...,C]."""
    if array.ndim <= 2:
        return array
    # np.moveaxis takes four microseconds to find out what transpose is told here.
    view: Array = array.transpose(0, 2, 3, 1) if array.ndim == 4 else np.moveaxis(array, 1, -1)
    return view


def channels_second(array: Array) -> Array:
    """[N,...,C] as the view [N,C,...]."""
    if array.ndim <= 2:
        return array
    view: Array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else np.moveaxis(array, -1, 1)
    return view


def rows(array: Array) -> Array:
    """A channels-last [N,C,...] array as the view [M,C], M = N·H·W; never copies."""
    if array.ndim <= 2:
        return array
    inside = channels_inside(array)
    assert inside.flags.c_contiguous, "rows() needs a channels-last array"
    return inside.reshape(-1, array.shape[1])


def runs(*arrays: Array) -> list[Array] | None:
    """Arrays of one shape as flat views in one order, row-major or channels-last; None if they differ."""
    if all(array.flags.c_contiguous for array in arrays):
        return [array.reshape(-1) for array in arrays]
    if all(map(is_channels_last, arrays)):
        return [channels_inside(array).reshape(-1) for array in arrays]
    return None


def copies() -> int:
    """How many arrays this thread has had to convert so far."""
    return int(getattr(_counter, "copies", 0))


def copied_bytes() -> int:
    """How many bytes this thread has had to convert so far."""
    return int(getattr(_counter, "bytes", 0))
