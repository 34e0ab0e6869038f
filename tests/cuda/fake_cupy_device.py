"""Memory and streams of the stand-in for CuPy: allocations are counted, work is done at once."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np


class OutOfMemoryError(MemoryError):
    """As ``cupy.cuda.memory.OutOfMemoryError``."""


class State:
    """What a test may look at and change."""

    limit: int | None = None
    count = 1
    used = in_use = 0
    to_device = to_host = 0


def poison(host: np.ndarray) -> np.ndarray:
    """Fill what must not be read before it is written."""
    if host.dtype.kind in "fc":
        host.fill(np.nan)
    elif host.dtype.kind in "iub":
        host.view(np.uint8).fill(0x7B) if host.flags.c_contiguous and host.ndim else host.fill(1)
    return host


def charge(size: int) -> None:
    """Count new memory; OutOfMemoryError where a test allows no piece as large."""
    if State.limit is not None and size > State.limit:
        raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {State.used:,}).")
    State.used += size


class Device:
    """As ``cupy.cuda.Device``."""

    def __init__(self, device: int = 0) -> None:
        self.id = device

    def use(self) -> None:
        State.in_use = self.id

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *reason: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Stream:
    """As ``cupy.cuda.Stream``; what it is asked to do is done at once."""

    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *reason: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record(self, event: Any = None) -> Any:
        return event or SimpleNamespace(synchronize=lambda: None)


class Event:
    """As ``cupy.cuda.Event``."""

    def __init__(self) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass


class Pool:
    def used_bytes(self) -> int:
        return State.used

    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass
