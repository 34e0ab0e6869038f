"""Batches on their way to a GPU: copied from pinned memory while the batch before is computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from nnlite.device import CPU, cupy_module, dense, on_host
from nnlite.layout import Array

Labels = TypeVar("Labels")
STAGES = 3
"""Batches that may be on their way or in use at a time: being filled, being copied, being computed with."""


class _Stage:
    """Pinned memory of the host and as much on the GPU, used again and again."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._pinned: Any = np.empty(0, np.uint8)
        self._there: Any = None
        self.copied: Any = None
        """An event after the copy."""
        self.used: Any = None
        """An event after everything that was computed with the copy."""

    def send(self, array: Array, stream: Any) -> Array:
        """``array`` on the GPU, in the same memory order, as soon as ``copied`` has happened."""
        if self.copied is not None:
            self.copied.synchronize()  # the copy before reads the same pinned memory
        if self._pinned.nbytes < array.nbytes:
            pinned = self._cupy.cuda.alloc_pinned_memory(array.nbytes)  # may be larger
            self._pinned = np.frombuffer(pinned, np.uint8, array.nbytes)
            self._there = self._cupy.empty(array.nbytes, np.uint8)
            # What computed in this memory before may still be on its way.
            self.used = self._cupy.cuda.get_current_stream().record()
        if self.used is not None:
            stream.wait_event(self.used)
        ordered, back = dense(array)
        here = self._pinned[: array.nbytes].view(array.dtype).reshape(ordered.shape)
        there = self._there[: array.nbytes].view(array.dtype).reshape(ordered.shape)
        np.copyto(here, ordered)
        there.set(here, stream=stream)
        self.copied = stream.record()
        view: Array = there.transpose(back)
        return view


def on_device(batches: Iterable[tuple[Array, Labels]], device: str) -> Iterator[tuple[Array, Labels]]:
    """The same batches with inputs on ``device``, which is the one in use, a batch ahead.

    What is there already, or stays on the CPU, passes as it is. An input is overwritten when the batch after
    the next is asked for: copy what is to be kept.
    """
    if device == CPU:
        yield from batches
        return
    cupy = cupy_module()
    stream = cupy.cuda.Stream(non_blocking=True)
    stages = [_Stage(cupy) for _ in range(STAGES)]
    ahead: tuple[Array, Labels, _Stage | None] | None = None
    for number, (inputs, labels) in enumerate(batches):
        stage = stages[number % STAGES] if on_host(inputs) and inputs.size else None
        sent = inputs if stage is None else stage.send(inputs, stream)
        if ahead is not None:
            yield from _handed_over(ahead, cupy)
        ahead = sent, labels, stage
    if ahead is not None:
        yield from _handed_over(ahead, cupy)


def _handed_over(batch: tuple[Array, Labels, _Stage | None], cupy: Any) -> Iterator[tuple[Array, Labels]]:
    inputs, labels, stage = batch
    if stage is not None:
        cupy.cuda.get_current_stream().wait_event(stage.copied)
    yield inputs, labels
    if stage is not None:  # asked for the next: all that is computed with this one is in the stream
        stage.used = cupy.cuda.get_current_stream().record()
