"""What a person sees while something works: bars on a terminal, nothing in a pipe or when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nnlite.memory import resident
from nnlite.transfer.callbacks import Callback

if TYPE_CHECKING:
    from nnlite.data import Batch
    from nnlite.transfer import FinetuneResult
    from nnlite.transfer.job import Job
    from nnlite.transfer.training import EpochRecord, Step

LOOKED_AT = 0.25
"""Seconds between two looks at the memory."""


class Bars(Callback):
    """Progress bars on the error stream: rate, time left and, in training, loss, accuracy and memory."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.shown = not quiet and sys.stderr.isatty()
        self._job: Job | None = None
        self._training: _Training | None = None

    # ------------------------------------------------------------------------------- pictures

    def on_batches(self, batches: Iterable[Batch], what: str, count: int) -> Iterable[Batch]:
        """The same batches, shown as they pass; those of an epoch stand in the phase's own bar."""
        if what.startswith("epoch"):
            return batches
        self._close()
        return self._bar(batches, what, count, "batch")

    def show_pictures(self, items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
        """The same items, counted as pictures."""
        return self._bar(items, what, count, "picture")

    def _bar(self, items: Iterable[Any], what: str, count: int, unit: str) -> Iterable[Any]:
        if not self.shown:
            yield from items
            return
        from tqdm import tqdm

        yield from tqdm(items, desc=f"{what:<24}", total=count, leave=False, unit=unit)

    # ------------------------------------------------------------------------------- training

    def on_start(self, job: Job) -> None:
        """Remember how much there is to do."""
        self._job = job

    def on_step(self, step: Step) -> None:
        """One bar for each phase, over all pictures of all its epochs."""
        if not self.shown or self._job is None:
            return
        if self._training is None or self._training.phase != step.phase:
            self._close()
            self._training = _Training(step.phase, self._job)
        self._training.step(step)

    def on_epoch(self, record: EpochRecord) -> None:
        """What the epoch came to."""
        if self._training is not None:
            self._training.epoch(record)

    def on_message(self, text: str) -> None:
        """One line about a decision; in a pipe as well."""
        if not self.quiet:
            self._close()
            print(text, file=sys.stderr, flush=True)

    def on_end(self, job: Job, result: FinetuneResult) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._training is not None:
            self._training.close()
            self._training = None


class _Training:
    """The bar of one phase."""

    def __init__(self, phase: str, job: Job) -> None:
        from tqdm import tqdm

        self.phase = phase
        self.epochs = {"head": job.config.head_epochs, "stages": job.config.epochs}.get(phase)
        self.pictures = len(job.folder.train)
        total = None if self.epochs is None else self.epochs * self.pictures
        self.bar = tqdm(total=total, desc=phase, leave=False, unit="picture", unit_scale=True)
        self.memory: int | None = None
        self.looked = 0.0
        self.held_out = ""
        self._begin()

    def _begin(self) -> None:
        self.loss = self.right = self.seen = 0.0

    def step(self, step: Step) -> None:
        """Show the epoch so far."""
        self.loss += step.loss * step.pictures
        self.right += step.right
        self.seen += step.pictures
        now = time.monotonic()
        if now - self.looked > LOOKED_AT:
            self.memory, self.looked = resident(), now
        number = f"{step.epoch + 1}" + (f"/{self.epochs}" if self.epochs else "")
        self.bar.set_description_str(f"{self.phase} {number}", refresh=False)
        parts = [f"loss {self.loss / self.seen:.3f}", f"accuracy {self.right / self.seen:.1%}"]
        parts += [self.held_out] if self.held_out else []
        parts += [f"{self.memory / 1e6:.0f} MB"] if self.memory else []
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(step.pictures)

    def epoch(self, record: EpochRecord) -> None:
        """Begin to count anew."""
        if record.validation_accuracy is not None:
            self.held_out = f"held out {record.validation_accuracy:.1%}"
        self._begin()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self.bar.close()
