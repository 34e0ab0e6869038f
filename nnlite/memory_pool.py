"""A pool of aligned memory: segments from the operating system, cut into blocks and joined again.

A request takes the smallest free range that holds it and leaves the rest free; a block that comes back joins
the free ranges beside it. Training asks for arrays of many sizes one after the other, and what one layer gave
back serves the next one whatever its size: the process stays near the sum of what lives at one time. (With
a list of free blocks per size ResNet-18's training step held 660 MB for 370 MB of live arrays, so 400.)

Source: best fit with immediate coalescing; Knuth, The Art of Computer Programming, volume 1, section 2.5.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left, insort
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import numpy as np

ALIGNMENT = 64
MAPPED = 1 << 18  # blocks of fewer bytes come from malloc
HUGE = 1 << 22  # from here on huge pages pay


class Segment:
    """Memory from the operating system, which has it back when nobody holds the segment."""

    __slots__ = ("_pages", "_raw", "end", "start")

    def __init__(self, size: int) -> None:
        self._pages: mmap.mmap | None = None
        if size < MAPPED or not hasattr(mmap, "MAP_ANONYMOUS"):
            self._raw = np.empty(size + ALIGNMENT, np.uint8)
        else:
            # malloc would take large blocks out of its own heap as soon as one of their size was freed
            # once, and give back only what lies at the heap's end.
            try:
                self._pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as error:  # what NumPy says
                raise MemoryError(f"{size} bytes cannot be allocated: {error.strerror}") from None
            if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):  # fewer page faults, as in NumPy's own arrays
                with suppress(OSError):
                    self._pages.madvise(mmap.MADV_HUGEPAGE)
            self._raw = np.frombuffer(self._pages, np.uint8)
        self.start = self._raw.ctypes.data
        self.start += -self.start % ALIGNMENT
        self.end = self.start + size

    @property
    def mapped(self) -> bool:
        """Whether parts of it can go back to the operating system."""
        return self._pages is not None

    def discard(self, start: int, end: int) -> bool:
        """Give the pages of [start, end) back while the addresses stay; False where that cannot be done."""
        if self._pages is None or not hasattr(mmap, "MADV_DONTNEED"):
            return False
        first = -(-(start - self.start) // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (end - self.start) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self._pages.madvise(mmap.MADV_DONTNEED, first, length)
        return True


class Block(NamedTuple):
    """What a request got: its segment and first address."""

    segment: Segment
    start: int


class _Range:
    """A free part of a segment."""

    __slots__ = ("end", "key", "segment", "start", "warm")

    def __init__(self, segment: Segment, start: int, end: int, warm: int, serial: int) -> None:
        self.segment, self.start, self.end = segment, start, end
        self.warm = warm
        """How many bytes of it the process may still have resident."""
        self.key = (end - start, -serial, start)
        """Order of the free ranges: the smallest first and, among equals, the last one, still in a cache."""


class Pool:
    """Takes, gives back and counts blocks; for any number of threads. Sizes are multiples of ALIGNMENT."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int, int]] = []
        self._by_start: dict[int, _Range] = {}
        self._by_end: dict[int, _Range] = {}
        self._idle: dict[Segment, None] = {}  # wholly free, those that were used last at the end
        self._returned: deque[tuple[Block, int]] = deque()
        self._serial = self._current = self._peak = self._cached = 0
        self.forget_lock()

    def forget_lock(self) -> None:
        """In a child of fork(): another thread may have held the lock, and nobody here would release it."""
        self._lock = threading.Lock()

    def take(self, size: int, limit: int) -> Block:
        """A block of ``size`` bytes; MemoryError where there is none."""
        with self._lock:
            self._settle(limit)
            found = self._fitting(size)
            if found is not None:
                self._remove(found)
                block = Block(found.segment, found.start)
                if found.start + size < found.end:
                    rest = found.end - found.start - size
                    self._insert(found.segment, found.start + size, found.end, min(found.warm, rest))
            else:
                segment = self._segment(size)
                block = Block(segment, segment.start)
            self._current += size
            self._peak = max(self._peak, self._current)
            return block

    def _fitting(self, size: int) -> _Range | None:
        at = bisect_left(self._free, (size,))
        if at == len(self._free):
            return None
        length, _, start = self._free[at]
        found = self._by_start[start]
        if length == size or size >= MAPPED:
            return found
        # A small block that lives long would keep a large range apart; and what malloc gave is whole or free.
        return found if length < MAPPED and found.segment.mapped else None

    def _segment(self, size: int) -> Segment:
        try:
            return Segment(size)
        except MemoryError:
            self._shrink(0)
            return Segment(size)

    def give(self, block: Block, size: int, limit: int) -> None:
        """The block is free again. The collector calls this at any moment, inside this class's methods, too:
        then the block waits until they are done."""
        self._returned.append((block, size))
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._settle(limit)
            finally:
                self._lock.release()

    def _settle(self, limit: int) -> None:
        while self._returned:
            (segment, start), size = self._returned.popleft()
            self._current -= size
            end, warm = start + size, size
            for beside in (self._by_end.get(start), self._by_start.get(end)):
                if beside is not None and beside.segment is segment:
                    self._remove(beside)
                    start, end = min(start, beside.start), max(end, beside.end)
                    warm += beside.warm
            self._insert(segment, start, end, warm)
            if self._cached > limit:
                self._shrink(limit)

    def _insert(self, segment: Segment, start: int, end: int, warm: int) -> None:
        self._serial += 1
        free = _Range(segment, start, end, warm, self._serial)
        insort(self._free, free.key)
        self._by_start[start] = self._by_end[end] = free
        self._cached += warm
        if start == segment.start and end == segment.end:
            self._idle[segment] = None

    def _remove(self, free: _Range) -> None:
        del self._free[bisect_left(self._free, free.key)]
        del self._by_start[free.start], self._by_end[free.end]
        self._cached -= free.warm
        self._idle.pop(free.segment, None)

    def _shrink(self, most: int) -> None:
        """Keep at most ``most`` bytes; what was not used for longest goes first."""
        while self._cached > most and self._idle:
            self._remove(self._by_start[next(iter(self._idle)).start])
        if self._cached <= most:
            return
        for _, _, start in reversed(self._free):  # of segments in use: their free pages can go all the same
            free = self._by_start[start]
            if free.warm and free.segment.discard(free.start, free.end):
                self._cached -= free.warm
                free.warm = 0
            if self._cached <= most:
                return

    def shrink(self, most: int) -> None:
        """Give cached memory back to the operating system until at most ``most`` bytes are left."""
        with self._lock:
            self._settle(most)
            self._shrink(most)

    def counts(self, *, anew: bool = False) -> tuple[int, int, int]:
        """Bytes in use now, their highest sum (from now on, where ``anew``), and bytes kept for reuse."""
        with self._lock:
            self._settle(1 << 62)
            if anew:
                self._peak = self._current
            return self._current, self._peak, self._cached
