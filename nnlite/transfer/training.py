"""The training loop: epochs over batches, history, the best weights, and a stop when numbers run away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from nnlite import functional as F
from nnlite.errors import TrainingError
from nnlite.graph import GraphModule
from nnlite.layout import Array
from nnlite.nn import Module
from nnlite.optim import CosineSchedule, Optimizer
from nnlite.tensors import Tensor

Batches = Iterable[tuple[Array, Array]]
"""Inputs and labels."""


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history."""

    phase: str
    epoch: int
    pictures: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None

    def to_dict(self) -> dict[str, object]:
        """The record as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """What a callback hears of one step of training."""

    phase: str
    epoch: int
    batch: int
    loss: float
    right: int
    """How many of its pictures were classified correctly before the step."""
    pictures: int


@dataclass
class Phase:
    """One stretch of training with its own optimiser; ``batches(epoch)`` gives what is learned from."""

    name: str
    module: Module
    optimizer: Optimizer
    epochs: int
    steps_per_epoch: int
    batches: Callable[[int], Batches]
    validate: Callable[[], tuple[float, float]] | None = None
    """Loss and accuracy on held-out pictures: reported, never used to choose anything."""
    label_smoothing: float = 0.0
    on_step: Callable[[Step], None] = lambda step: None

    def run(self, on_epoch: Callable[[EpochRecord], None]) -> None:
        """Train; leaves the weights of the last epoch.

        Raises TrainingError when the loss is not finite, after putting back the weights of the epoch
        with the lowest training loss so far.
        """
        total = max(self.epochs * self.steps_per_epoch, 1)
        schedule = CosineSchedule(self.optimizer, total, warmup_steps=min(self.steps_per_epoch, total // 10))
        best_loss, best = np.inf, self.module.state_dict()
        for epoch in range(self.epochs):
            record = self._epoch(epoch, schedule, best)
            on_epoch(record)
            if record.loss < best_loss:
                best_loss, best = record.loss, self.module.state_dict()

    def _epoch(self, epoch: int, schedule: CosineSchedule, best: dict[str, Array]) -> EpochRecord:
        start = time.perf_counter()
        losses = right = pictures = 0.0
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.module.train()
        for number, (inputs, labels) in enumerate(self.batches(epoch)):
            x = Tensor(inputs)
            logits = self.module(x)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            if not np.isfinite(loss.item()):
                self._stop(epoch, number, x, best)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            schedule.step()
            hits = int((logits.numpy().argmax(1) == labels).sum())
            losses += loss.item() * len(labels)
            right += hits
            pictures += len(labels)
            self.on_step(Step(self.name, epoch, number, loss.item(), hits, len(labels)))
        self.module.eval()
        held_out = self.validate() if self.validate is not None else (None, None)
        return EpochRecord(
            phase=self.name,
            epoch=epoch,
            pictures=int(pictures),
            loss=losses / pictures,
            accuracy=right / pictures,
            learning_rate=rate,
            seconds=time.perf_counter() - start,
            validation_loss=held_out[0],
            validation_accuracy=held_out[1],
        )

    def _stop(self, epoch: int, batch: int, x: Tensor, best: dict[str, Array]) -> None:
        layer = self.module.first_non_finite(x) if isinstance(self.module, GraphModule) else None
        where = "the loss itself" if layer is None else repr(layer)
        self.module.load_state_dict(best)
        self.module.eval()
        raise TrainingError(
            f"the loss is not finite in phase {self.name!r}, epoch {epoch}, batch {batch}; the first layer "
            f"with a non-finite value is {where}. "
            f"The best weights so far were kept; try a smaller --learning-rate"
        )
