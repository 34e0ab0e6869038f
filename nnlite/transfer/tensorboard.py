"""Logs for TensorBoard, by tensorboardX: nothing else of TensorFlow is needed to write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnlite.errors import ConfigError
from nnlite.transfer.callbacks import Callback

if TYPE_CHECKING:
    from nnlite.transfer.job import Job
    from nnlite.transfer.run import FinetuneResult
    from nnlite.transfer.training import EpochRecord, Step


class TensorBoard(Callback):
    """Writes ``tensorboard/`` in the run folder: every phase's loss and accuracy, by step and by epoch.

    Raises ConfigError at once where tensorboardX is not installed.
    """

    def __init__(self) -> None:
        try:
            import tensorboardX
        except ImportError:
            raise ConfigError("tensorboard=True needs tensorboardX; install nnlite[tensorboard]") from None
        self._open = tensorboardX.SummaryWriter
        self._writer: Any = None
        self._steps: dict[str, int] = {}

    def on_start(self, job: Job) -> None:
        """Begin the log."""
        self._writer = self._open(str(job.run.path / "tensorboard"))

    def on_step(self, step: Step) -> None:
        """Loss of one batch."""
        number = self._steps.get(step.phase, 0)
        self._steps[step.phase] = number + 1
        self._writer.add_scalar(f"{step.phase}/step_loss", step.loss, number)

    def on_epoch(self, record: EpochRecord) -> None:
        """Loss and accuracy of one epoch, the learning rate and what is held out."""
        known = record.to_dict()
        for name in ("loss", "accuracy", "learning_rate", "validation_loss", "validation_accuracy"):
            if known.get(name) is not None:
                self._writer.add_scalar(f"{record.phase}/{name}", known[name], record.epoch)
        self._writer.flush()

    def on_end(self, job: Job, result: FinetuneResult) -> None:
        """The end of the log."""
        self._writer.close()
