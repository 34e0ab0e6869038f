"""Arrays from a caching pool of aligned blocks.

A fresh 50 MB array costs more in page faults than a 1x1 convolution costs in arithmetic, so a
block whose arrays are gone is kept for the next request of its size class instead of going back to
the operating system. ``empty`` is what ops allocate their outputs with.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nnlite.errors import NnliteError
from nnlite.layout import Array

ALIGNMENT = 64
MAX_BYTES = 1 << 46  # what an address space can hold; larger requests are arithmetic gone wrong


@dataclass(frozen=True)
class Stats:
    """Bytes in live arrays now, their highest sum so far, and bytes kept for reuse."""

    current: int
    peak: int
    cached: int


class _Pool:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free: defaultdict[int, list[Array]] = defaultdict(list)
        self._lock = threading.RLock()  # a block may be released by the collector inside take()
        self._current = self._peak = self._cached = 0

    def take(self, size: int) -> Array:
        with self._lock:
            self._current += size
            self._peak = max(self._peak, self._current)
            if self._free[size]:
                self._cached -= size
                return self._free[size].pop()
        return np.empty(size, np.uint8)

    def give(self, raw: Array) -> None:
        with self._lock:
            self._current -= raw.size
            if self._cached + raw.size <= self.limit:
                self._cached += raw.size
                self._free[raw.size].append(raw)

    def release(self) -> None:
        with self._lock:
            self._free.clear()
            self._cached = 0

    def stats(self) -> Stats:
        with self._lock:
            return Stats(self._current, self._peak, self._cached)


_pool = _Pool(limit=1 << 30)


class _Block:
    """Owner of one piece of pool memory; NumPy keeps it alive as the base of every view."""

    __slots__ = ("__array_interface__", "_raw")

    def __init__(self, raw: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        address = raw.ctypes.data
        self._raw = raw
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address + -address % ALIGNMENT, False),
        }

    def __del__(self) -> None:
        _pool.give(self._raw)


def _size_class(size: int) -> int:
    # Eight classes per power of two: at most an eighth is wasted.
    step = max(4096, 1 << max(size.bit_length() - 4, 0))
    return -(-size // step) * step


def empty(
    shape: Sequence[int],
    dtype: Any = np.float32,
    order: Literal["channels_last", "C"] = "channels_last",
) -> Array:
    """An uninitialised, 64-byte aligned array; [N,C,...] is channels-last in memory by default.

    Raises NnliteError when the shape cannot be held in memory at all.
    """
    shape = tuple(int(size) for size in shape)
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for axis in shape:
        size *= axis
    if size > MAX_BYTES or min(shape, default=0) < 0:
        raise NnliteError(f"an array of shape {list(shape)} and type {dtype} cannot be allocated")
    # Small arrays are cheaper straight from NumPy.
    make: Callable[[tuple[int, ...], np.dtype[Any]], Array] = np.empty if size < 4096 else _from_pool
    if order == "C" or len(shape) <= 2:
        return make(shape, dtype)
    return np.moveaxis(make((shape[0], *shape[2:], shape[1]), dtype), -1, 1)


def _from_pool(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    return np.asarray(_Block(_pool.take(_size_class(size + ALIGNMENT)), shape, dtype))


def workspace(size: int) -> Array:
    """``size`` bytes of aligned scratch memory for a kernel."""
    return empty((size,), np.uint8, "C")


def stats() -> Stats:
    """What the pool holds: current and peak bytes in use, bytes cached."""
    return _pool.stats()


def release() -> None:
    """Give every cached block back to the operating system."""
    _pool.release()


def set_limit(size: int) -> None:
    """Keep at most ``size`` bytes for reuse (0 switches caching off)."""
    _pool.limit = size
    if _pool.stats().cached > size:
        _pool.release()
