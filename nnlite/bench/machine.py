"""The machine: what it is called, and its two ceilings, measured on the spot."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnlite import memory, threads
from nnlite.geometry import NormGeometry
from nnlite.kernels import launch, processor_name, unavailable
from nnlite.kernels.native import native_info

ROUNDS = 1_000_000
REPEATS = 9
STREAM_BYTES = 1 << 28


@dataclass(frozen=True)
class Machine:
    """Name and ceilings of the machine under the threads in use."""

    processor: str
    isa: str
    threads: int
    flops: float | None
    """Fused multiply-adds on registers, operations per second; None without the native backend."""
    bytes: float
    """Reading one array and writing another, both far larger than the caches, bytes per second."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        return asdict(self)

    def roofline(self, flops: float, size: float) -> float | None:
        """The most operations per second that ``flops`` operations on ``size`` bytes can run at."""
        return None if self.flops is None else min(self.flops, flops / size * self.bytes)


def _best_rate(amount: float, seconds: list[float]) -> float:
    # The ceiling is what the machine can do when nobody disturbs it: the best, not the median.
    return amount / min(seconds)


def _fma_rate() -> float | None:
    if unavailable("native") is not None:
        return None
    from nnlite import _native

    done, taken = 0, []
    for _ in range(REPEATS):
        start = time.perf_counter()
        done = _native.fma_rounds(ROUNDS)
        taken.append(time.perf_counter() - start)
    return _best_rate(done, taken)


def _stream_rate() -> float:
    """y = x · scale + shift over rows of 64 channels, by the kernel that serves it."""
    geometry = NormGeometry(STREAM_BYTES // (2 * 4 * 64), 64, 0.0)
    x = memory.empty((geometry.M, 64))
    y = memory.empty((geometry.M, 64))
    x[...], y[...] = 1.0, 0.0  # touched, so that no page is new
    scale, shift = np.ones(64, np.float32), np.zeros(64, np.float32)
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        launch("batch_norm_inference_forward", geometry, x, None, scale, shift, None, y)
        taken.append(time.perf_counter() - start)
    return _best_rate(x.nbytes + y.nbytes, taken)


def describe_machine() -> Machine:
    """Measure the ceilings; takes about a second."""
    info = native_info()
    return Machine(
        processor_name(), info.isa if info else "none", threads.get_num_threads(), _fma_rate(), _stream_rate()
    )
