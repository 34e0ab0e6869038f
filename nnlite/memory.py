"""Arrays from a caching pool of aligned blocks.

A fresh 50 MB array costs more in page faults than a 1x1 convolution costs in arithmetic, so a
block whose arrays are gone is kept for the next requests (nnlite/memory_pool.py) instead of going back to
the operating system. ``empty`` is what ops allocate their outputs with.

At most ``set_limit`` bytes are kept (``NNLITE_MEMORY_LIMIT``: bytes, or a number with K, M or G; by
default a quarter of the machine's memory), those that were used last.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnlite.errors import ConfigError, NnliteError, ShapeError
from nnlite.layout import Array
from nnlite.memory_pool import MAPPED, Pool

SMALLEST = 4096  # smaller arrays are cheaper straight from NumPy
_STEP = 4096  # blocks are whole pages
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_BYTE = np.dtype(np.uint8)
MAX_BYTES = 1 << 46  # what an address space can hold; larger requests are arithmetic gone wrong


def max_tensor_bytes() -> int:
    """Largest array that a model file may hold or compute (``NNLITE_MAX_TENSOR_BYTES``, 2 GiB by default)."""
    return int(os.environ.get("NNLITE_MAX_TENSOR_BYTES", 1 << 31))


def check_budget(what: str, types: Iterable[tuple[Sequence[int], np.dtype[Any]]], limit: int | None) -> None:
    """ShapeError where an array of one of ``types`` (shape, element type) would exceed ``limit`` bytes."""
    if limit is None:
        return
    for shape, dtype in types:
        # An axis of size 0 does not excuse the others: NumPy counts them when it makes the array.
        if dtype.itemsize * math.prod(max(size, 1) for size in shape) > limit:
            raise ShapeError(
                f"{what}: a result of shape {list(shape)} and type {dtype} is beyond the budget of "
                f"{limit} bytes; raise NNLITE_MAX_TENSOR_BYTES if you trust the file"
            )


@dataclass(frozen=True)
class Stats:
    """Bytes in live arrays now, their highest sum so far, and bytes kept for reuse."""

    current: int
    peak: int
    cached: int


def peak_resident() -> int | None:
    """Most bytes that this process has had resident so far, mapped files included; None where unknown.

    Linux's VmHWM: what the command ``time`` shows may be that of the program which started this one.
    """
    return _status("VmHWM:")


def resident() -> int | None:
    """Bytes that this process has resident now (Linux's VmRSS); None where unknown."""
    return _status("VmRSS:")


def _status(entry: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(entry)), None)


def available() -> int:
    """The machine's memory, or the container's where that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 4 << 30
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path("/sys/fs/cgroup", path).read_text()))
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    return total


UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
UNITS |= {"K": 2**10, "M": 2**20, "G": 2**30, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(name: str, text: str | int) -> int:
    """Bytes from ``500000000``, ``96MB``, ``2GiB`` or ``512M`` (2^20 each); ConfigError naming the option."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Z]*)", str(text).strip().upper())
    if match is None or match[2] not in UNITS:
        raise ConfigError(f"{name}={text!r} must be bytes, such as 500000000, 96MB, 2GiB or 512M")
    return int(float(match[1]) * UNITS[match[2]])


@cache
def _initial_limit() -> int:
    text = os.environ.get("NNLITE_MEMORY_LIMIT", "").strip()
    return parse_bytes("NNLITE_MEMORY_LIMIT", text) if text else available() // 4


@cache
def _libc(name: str) -> Any:
    """A function of glibc, or None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


def frugal_malloc() -> None:
    """Tell glibc to hand back large freed arrays at once, and threads to share two heaps; else nothing.

    For processes of our own: by default freed arrays stay with malloc up to 32 MB a piece, and every
    thread that decodes pictures has a heap of its own, so that the resident set only ever grows.
    """
    mallopt = _libc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED)
        mallopt(_M_TRIM_THRESHOLD, MAPPED)
        mallopt(_M_ARENA_MAX, 2)


_pool = Pool()
_limit: int | None = None  # until it is needed

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget_lock)


def _give_back(block: Any) -> None:
    _pool.give(block._memory, block._bytes, limit())


@cache
def _block_type(size: int) -> Any:
    """The owner of a block; NumPy keeps it alive as the base of every view.

    A ctypes array, because that is the cheapest object over memory of somebody else that NumPy takes as
    a buffer: 1.5 microseconds with its end, where ``__array_interface__`` takes 5.
    """
    return type("Block", (ctypes.c_ubyte * size,), {"__del__": _give_back, "_bytes": size})


@lru_cache(maxsize=4096)
def _plan(
    shape: tuple[int, ...], dtype: np.dtype[Any], order: str
) -> tuple[int, tuple[int, ...] | None, Any, tuple[int, ...] | None]:
    """Bytes of the block (0: small enough for NumPy), strides and block type, and the shape in memory."""
    shape = tuple(map(int, shape))
    size = dtype.itemsize
    for axis in shape:
        size *= axis
    if size > MAX_BYTES or min(shape, default=0) < 0:
        raise NnliteError(f"an array of shape {list(shape)} and type {dtype} cannot be allocated")
    last = order != "C" and len(shape) > 2
    if size < SMALLEST:
        return 0, None, None, (shape[0], *shape[2:], shape[1]) if last else None
    strides: list[int] = [0] * len(shape)
    step = dtype.itemsize
    for axis in (1, *range(len(shape) - 1, 1, -1), 0) if last else range(len(shape) - 1, -1, -1):
        strides[axis] = step
        step *= shape[axis]
    block = -(-size // _STEP) * _STEP
    return block, tuple(strides), _block_type(block), None


def empty(
    shape: Sequence[int],
    dtype: Any = np.float32,
    order: Literal["channels_last", "C"] = "channels_last",
    like: Array | None = None,
) -> Array:
    """An uninitialised, 64-byte aligned array; [N,C,...] is channels-last in memory by default.

    It lives where ``like`` does: an array of CuPy comes from CuPy's own pool. Raises NnliteError when the
    shape cannot be held in memory at all.
    """
    if like is not None and not isinstance(like, (np.ndarray, np.generic)):
        return _empty_elsewhere(like, shape, dtype, order)
    if not isinstance(dtype, np.dtype):
        dtype = np.dtype(dtype)
    size, strides, block_type, small = _plan(tuple(shape), dtype, order)
    if not size:
        if small is None:
            return np.empty(shape, dtype)
        axes = range(1, len(small) - 1)
        view: Array = np.empty(small, dtype).transpose(0, len(small) - 1, *axes)
        return view
    memory = _pool.take(size, limit())
    block = block_type.from_address(memory.start)
    block._memory = memory
    array: Array = np.ndarray(shape, dtype, block, 0, strides)
    return array


def empty_like(array: Array) -> Array:
    """An uninitialised array of the same shape, type and memory order (that of a dense array), beside it."""
    if array.nbytes < SMALLEST:
        return np.empty_like(array, subok=False)
    if array.flags.c_contiguous:
        return empty(array.shape, array.dtype, "C", array)
    like = empty(array.shape, array.dtype, like=array)
    if like.strides == array.strides:
        return like
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    back = sorted(range(array.ndim), key=order.__getitem__)
    ordered: Array = empty([array.shape[axis] for axis in order], array.dtype, "C", array).transpose(back)
    return ordered


def _empty_elsewhere(like: Any, shape: Sequence[int], dtype: Any, order: str) -> Array:
    """As :func:`empty` on the device of ``like``, whose library has a pool of its own."""
    sizes = tuple(map(int, shape))
    if order == "C" or len(sizes) <= 2:
        array: Array = np.empty(sizes, dtype, like=like)
        return array
    last: Array = np.empty((sizes[0], *sizes[2:], sizes[1]), dtype, like=like)
    second: Array = last.transpose(0, len(sizes) - 1, *range(1, len(sizes) - 1))
    return second


def workspace(size: int, like: Array | None = None) -> Array:
    """``size`` bytes of aligned scratch memory for a kernel, where ``like`` lives."""
    return empty((size,), _BYTE, "C", like)


def stats() -> Stats:
    """What the pool holds: current and peak bytes in use, bytes cached."""
    return Stats(*_pool.counts())


def reset_peak() -> None:
    """Begin a new measurement of the peak."""
    _pool.counts(anew=True)


def release() -> None:
    """Give every cached block back to the operating system, and what malloc keeps of freed memory."""
    _pool.shrink(0)
    if (trim := _libc("malloc_trim")) is not None:
        trim(0)


def set_limit(size: int) -> None:
    """Keep at most ``size`` bytes for reuse (0 switches caching off)."""
    global _limit
    _limit = size
    _pool.shrink(size)


def limit() -> int:
    """The most bytes that are kept for reuse."""
    return _initial_limit() if _limit is None else _limit
