"""Timing several ways of doing one thing: alternating, in one process, medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

PAUSE = 0.06
"""Seconds before each measurement: threads of other engines spin after their work, those of PyTorch for
8 ms and those of ONNX Runtime for up to 40 (measured as processor time while nothing runs), and what starts
meanwhile shares its cores with them."""


def alternate(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side, in alternation, after one warm-up round.

    Every side is a whole call as its users make it: it allocates its own results and frees them. Before
    each measurement a side runs once untimed, as in the midst of a network, where its threads are awake.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for repeat in range(repeats + 2):
            for name, call in sides.items():
                time.sleep(PAUSE)
                call()  # untimed: threads that slept meanwhile wake up, caches hold this side's data
                start = time.perf_counter()
                result = call()
                seconds = time.perf_counter() - start
                del result
                if repeat >= 2:
                    taken[name].append(seconds)
    finally:
        if collecting:
            gc.enable()
    return {name: statistics.median(times) for name, times in taken.items()}
