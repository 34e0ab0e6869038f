"""Ctrl-C: the batch in hand is finished, the run saved, and said how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType

from nnlite.data import Batch
from nnlite.transfer.callbacks import Callback


class RunInterrupted(KeyboardInterrupt):
    """A run that was asked to stop has saved itself; the message says how to go on."""


class Interrupt(Callback):
    """Within a ``with`` block, SIGINT sets :attr:`asked`; a second one stops at once, as usual.

    Only in the main thread, and only where nobody else has a use for the signal.
    """

    def __init__(self, resume: str = "") -> None:
        self.asked = False
        self.resume = resume
        """How to go on, once that is possible."""
        self._installed = False

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._ask)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_batches(self, batches: Iterable[Batch], what: str, count: int) -> Iterable[Batch]:
        """Where pictures pass outside of training, nothing needs saving: stop between two batches."""
        for batch in batches:
            if self.asked and not what.startswith("epoch"):
                self.stop()
            yield batch

    def stop(self) -> None:
        """Raise RunInterrupted."""
        raise RunInterrupted(self.resume)
