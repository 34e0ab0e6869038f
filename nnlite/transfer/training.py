"""The training loop: steps over batches, history, the best weights, a stop when numbers run away.

A phase knows at any step where it stands (:meth:`Phase.state_dict`), and goes on from there bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from nnlite import device, memory
from nnlite.data.prefetch import on_device
from nnlite.device import CPU, moved
from nnlite.errors import OutOfMemoryError, TrainingError
from nnlite.graph import GraphModule
from nnlite.graph.trainable import STATISTIC_INPUTS
from nnlite.layout import Array
from nnlite.nn import Module, Parameter
from nnlite.nn.parameter import State
from nnlite.nn.utils import clip_grad_norm_
from nnlite.optim import EMA, CosineSchedule, Optimizer
from nnlite.tensors import Tensor
from nnlite.transfer.targets import SingleLabel, Targets

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
    monitor_loss: float | None = None
    """Loss on the part of the training pictures that is set aside for stopping early."""

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
    right: float
    """How many of its pictures were classified correctly before the step (see ``Targets.right``)."""
    pictures: int


@dataclass(frozen=True)
class Rules:
    """How a phase learns, beside its optimiser."""

    label_smoothing: float = 0.0
    accumulate: int = 1
    """Batches whose gradients make one step: the same step as one batch of them all."""
    clip: float = 0.0
    """Largest norm of the gradients of a step, as one vector; 0 for any."""
    ema: float = 0.0
    """Decay of the average of the weights that is validated and kept; 0 for none."""
    l2_sp: float = 0.0
    """Pull of pretrained weights towards where they began, w = w - lr · l2_sp · (w - w₀), instead of
    weight decay. Source: Li et al. 2018, arXiv:1802.01483, decoupled as in AdamW."""
    warmup: float = 0.1
    """Part of all steps, at most an epoch, in which the learning rate rises; then it falls as a cosine."""
    patience: int = 0
    """Epochs without a lower monitored loss after which the phase ends; 0 to go through all."""
    retry_smaller: bool = False
    """Where memory runs out, learn from a batch in two parts, four, ...: the same step, but for what
    normalisation by the batch measures."""
    step_in_backward: bool = False
    """Step while backward runs and free each gradient, where no other rule needs all of them together."""

    @property
    def steps_in_backward(self) -> bool:
        """Whether that is done: not for sums over batches, a common norm, weights that are moved before
        the step, or a batch that may have to be learned from again."""
        together = self.accumulate > 1 or self.clip or self.l2_sp or self.retry_smaller
        return self.step_in_backward and not together

    @classmethod
    def of(cls, config: Any, holding: Any) -> Rules:
        """Those of the options, and of what a run may have in memory."""
        sources = {f.name: config if hasattr(config, f.name) else holding for f in fields(cls)}
        return cls(**{name: getattr(source, name) for name, source in sources.items()})


@dataclass
class Standing:
    """Where a phase stands: what of the current epoch is done."""

    epoch: int = 0
    batch: int = 0
    losses: float = 0.0
    right: float = 0.0
    pictures: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    """Learning rate that the epoch began with."""
    best: float = float("inf")
    waited: int = 0
    """Epochs since the best one."""
    parts: int = 1
    """Into how many parts batches are split so that they fit into memory."""

    def next_epoch(self) -> None:
        """Begin another epoch."""
        self.epoch += 1
        self.batch, self.losses, self.right, self.pictures, self.seconds = 0, 0.0, 0.0, 0, 0.0


def _nothing(*_: Any) -> None:
    """A hook that does nothing."""


@dataclass
class Phase:
    """One stretch of training with its own optimiser."""

    name: str
    module: Module
    optimizer: Optimizer
    epochs: int
    steps_per_epoch: int
    """Batches in an epoch."""
    batches: Callable[[int, int], Batches]
    """``batches(epoch, first)``: what an epoch learns from, without its ``first`` batches."""
    validate: Callable[[], tuple[float, float]] | None = None
    """Loss and accuracy on held-out pictures: reported, never used to choose anything."""
    monitor: Callable[[], float] | None = None
    """Loss on pictures that are set aside from training: what stopping early looks at."""
    rules: Rules = Rules()
    targets: Targets = field(default_factory=lambda: SingleLabel(()))
    """What is learned."""
    anchors: Mapping[Parameter, Array] = field(default_factory=dict)
    """Where pretrained weights began, for ``rules.l2_sp``."""
    forward: Callable[[Tensor], Tensor] | None = None
    """How training computes what ``module`` does, where that is not by calling it."""
    on_step: Callable[[Step], None] = _nothing
    say: Callable[[str], None] = _nothing
    """Hears a line about a decision."""

    def __post_init__(self) -> None:
        self.device = next((p.device for p in self.module.parameters()), CPU)
        self.anchors = {p: moved(array, p.device) for p, array in self.anchors.items()}
        self.at = Standing()
        steps = -(-self.steps_per_epoch // self.rules.accumulate)
        total = max(self.epochs * steps, 1)
        self.schedule = CosineSchedule(
            self.optimizer, total, warmup_steps=min(steps, int(total * self.rules.warmup))
        )
        self.average = EMA(self.module, self.rules.ema) if self.rules.ema else None
        self.best = self._weights()
        """Weights of the epoch with the lowest loss so far: monitored or, without that, in training."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        patience = self.rules.patience
        return self.at.epoch >= self.epochs or bool(patience and self.at.waited >= patience)

    def run(
        self,
        on_epoch: Callable[[EpochRecord], None],
        after_step: Callable[[], None] = _nothing,
        after_epoch: Callable[[], None] = _nothing,
    ) -> None:
        """Train on from where the phase stands.

        Leaves the weights of the last epoch (their average with ``ema``), with ``patience`` those of the
        best. Raises TrainingError when the loss is not finite, after putting back the best so far.
        """
        while not self.finished:
            on_epoch(self._epoch(after_step))
            after_epoch()
        if self.rules.patience:
            self._load(self.best)
        elif self.average is not None:
            self.module.load_state_dict(self.average.state_dict())

    def _epoch(self, after_step: Callable[[], None]) -> EpochRecord:
        start, at = time.perf_counter() - self.at.seconds, self.at
        if not at.batch:
            at.rate = float(self.optimizer.param_groups[0]["lr"])
        self.module.train()
        batches = on_device(self.batches(at.epoch, at.batch), self.device)
        waiting = 0  # pictures whose gradients are there and not yet used
        for number, (inputs, labels) in enumerate(batches, at.batch):
            if not waiting:
                self.optimizer.zero_grad()
            waiting += len(labels)
            self._learn(number, inputs, labels)
            if (number + 1) % self.rules.accumulate == 0:
                self._update(waiting)
                waiting, at.batch, at.seconds = 0, number + 1, time.perf_counter() - start
                after_step()
        if waiting:
            self._update(waiting)
        self.module.eval()
        held_out, monitored = self._judged()
        record = EpochRecord(
            phase=self.name,
            epoch=at.epoch,
            pictures=at.pictures,
            loss=at.losses / at.pictures,
            accuracy=at.right / at.pictures,
            learning_rate=at.rate,
            seconds=time.perf_counter() - start,
            validation_loss=held_out[0],
            validation_accuracy=held_out[1],
            monitor_loss=monitored,
        )
        score = record.loss if monitored is None else monitored
        at.waited += 1
        if score < at.best:
            at.best, at.waited, self.best = score, 0, self._weights()
        at.next_epoch()
        return record

    def _learn(self, number: int, inputs: Array, labels: Array) -> None:
        """Gradients of one batch; where memory runs out and the rules say so, of its parts."""
        at, count = self.at, len(labels)
        before = {p: p.grad for p in self.module.parameters()}
        while True:
            try:
                value, hits = self._in_parts(number, inputs, labels)
                break
            except OutOfMemoryError:
                if not self.rules.retry_smaller or at.parts >= count:
                    raise
            for p, gradient in before.items():
                p.grad = gradient
            memory.release()
            device.release()
            at.parts *= 2
            self.say(f"memory ran out: batches are learned from in {at.parts} parts from here on")
        at.losses, at.right, at.pictures = at.losses + value * count, at.right + hits, at.pictures + count
        self.on_step(Step(self.name, at.epoch, number, value, hits, count))

    def _in_parts(self, number: int, inputs: Array, labels: Array) -> tuple[float, float]:
        """Adds the gradients of a batch; its loss, and how much of it was right."""
        count, value, hits = len(labels), 0.0, 0.0
        size = -(-count // self.at.parts)
        for begin in range(0, count, size):
            x, known = Tensor(inputs[begin : begin + size]), labels[begin : begin + size]
            logits = (self.forward or self.module)(x)
            loss = self.targets.loss(logits, known, self.rules.label_smoothing)
            if not np.isfinite(loss.item()):
                self._stop(number, x)
            # Sums over batches, so that their mean is that of all pictures, in batches of any size.
            share = float(len(known)) if self.rules.accumulate > 1 else len(known) / count
            total = loss if share == 1 else loss * share
            if self.rules.steps_in_backward:
                self.optimizer.step_in_backward(total)
            else:
                total.backward()
            value += float(loss.item()) * len(known) / count
            hits += self.targets.right(logits.to(CPU).numpy(), known)
        return value, hits

    def _update(self, pictures: int) -> None:
        """One step of the optimiser with the gradients of ``pictures``."""
        rules, parameters = self.rules, [p for g in self.optimizer.param_groups for p in g["params"]]
        if rules.accumulate > 1:
            for p in parameters:
                if p.grad is not None:
                    array = p.grad.writable()
                    array /= array.dtype.type(pictures)
        if rules.clip:
            clip_grad_norm_(parameters, rules.clip)
        if rules.l2_sp:
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    if p in self.anchors:
                        weight = p.writable()
                        pull = weight.dtype.type(group["lr"] * rules.l2_sp)
                        weight -= pull * (weight - self.anchors[p])
        self.optimizer.step()  # does nothing where backward has done it
        self.schedule.step()
        if self.average is not None:
            self.average.update()

    def _judged(self) -> tuple[tuple[float | None, float | None], float | None]:
        """Loss and accuracy on held-out pictures, loss on monitored ones, of the weights to be kept."""

        def judge() -> tuple[tuple[float | None, float | None], float | None]:
            held_out = self.validate() if self.validate is not None else (None, None)
            return held_out, self.monitor() if self.monitor is not None else None

        if self.average is None:
            return judge()
        with self.average.applied():
            return judge()

    def _stop(self, batch: int, x: Tensor) -> None:
        layer = self.module.first_non_finite(x) if isinstance(self.module, GraphModule) else None
        where = "the loss itself" if layer is None else repr(layer)
        self._load(self.best)
        self.module.eval()
        raise TrainingError(
            f"the loss is not finite in phase {self.name!r}, epoch {self.at.epoch}, batch {batch}; the first "
            f"layer with a non-finite value is {where}. "
            f"The best weights so far were kept; try a smaller --learning-rate"
        )

    # ------------------------------------------------------------------------------ saving

    def _trained(self) -> dict[str, State]:
        """What training changes, by name; a graph's other tensors stay as they were read."""
        module = self.module
        states: dict[str, State] = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if not isinstance(module, GraphModule):
            return states | dict(module.named_buffers())
        for node in module.trainable_nodes():  # normalisation by the batch moves its running statistics
            leaves = [v for v in node.inputs if v is not None and v in module.graph.arrays]
            if node.op.name in STATISTIC_INPUTS and any(module.leaf(v).requires_grad for v in leaves):
                states.update((v.name, module.leaf(v)) for v in leaves)
        return states

    def _weights(self) -> dict[str, Array]:
        """Copies of the weights to be kept."""
        average = None if self.average is None else self.average.average
        kept = self._trained()
        arrays = {name: s.array if average is None else average[name] for name, s in kept.items()}
        return {name: np.array(device.to_host(array), order="C") for name, array in arrays.items()}

    def _load(self, weights: Mapping[str, Array]) -> None:
        self.module.load_state_dict(weights, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the phase depends on."""
        return {
            "name": self.name,
            "at": asdict(self.at),
            "module": {name: device.to_host(state.array) for name, state in self._trained().items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": dict(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.at = Standing(**{f.name: state["at"].get(f.name, f.default) for f in fields(Standing)})
        self._load(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best = dict(state["best"])
