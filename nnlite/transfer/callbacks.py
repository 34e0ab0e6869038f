"""What may watch a run: a progress display, a report, a log, a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnlite.data import Batch
    from nnlite.transfer.job import Job
    from nnlite.transfer.run import FinetuneResult
    from nnlite.transfer.training import EpochRecord, Step


class Callback:
    """Base of all: every method does nothing; define those that matter. Called in the order of the run.

    A callback looks on: it must not change weights, random state or the order of anything, or a run that
    was resumed differs from one that was not.
    """

    def on_start(self, job: Job) -> None:
        """Model and data are read, the run folder is there, nothing is trained."""

    def on_message(self, text: str) -> None:
        """A line about a decision."""

    def on_batches(self, batches: Iterable[Batch], what: str, count: int) -> Iterable[Batch]:
        """``count`` batches of pictures about to pass; returns the same, shown as they do."""
        return batches

    def on_step(self, step: Step) -> None:
        """One step of training is done."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch is done, and its line of the history written."""

    def on_end(self, job: Job, result: FinetuneResult) -> None:
        """Everything is written: the model, metrics.json, the history."""


class Callbacks(Callback):
    """Several as one."""

    def __init__(self, several: Sequence[Callback] = ()) -> None:
        self.several = tuple(several)

    def on_start(self, job: Job) -> None:
        """Tell all."""
        for one in self.several:
            one.on_start(job)

    def on_message(self, text: str) -> None:
        """Tell all."""
        for one in self.several:
            one.on_message(text)

    def on_batches(self, batches: Iterable[Batch], what: str, count: int) -> Iterable[Batch]:
        """Each shows what the one before passes on."""
        for one in self.several:
            batches = one.on_batches(batches, what, count)
        return batches

    def on_step(self, step: Step) -> None:
        """Tell all."""
        for one in self.several:
            one.on_step(step)

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell all."""
        for one in self.several:
            one.on_epoch(record)

    def on_end(self, job: Job, result: FinetuneResult) -> None:
        """Tell all."""
        for one in self.several:
            one.on_end(job, result)
