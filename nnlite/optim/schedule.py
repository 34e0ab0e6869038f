"""Learning rates that change from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, pi
from typing import Any

from nnlite.errors import ConfigError
from nnlite.optim.optimizer import Optimizer


class Schedule:
    """Sets every group's ``lr`` to ``rate(initial lr, step)``: at once for step 0, then in each ``step()``.

    Call ``step()`` after each of the optimiser's steps. A subclass defines ``rate``.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.steps = 0
        self.initial: list[float] = []
        self._set()

    def rate(self, initial: float, step: int) -> float:
        """The learning rate of ``step`` for a group that began with ``initial``."""
        raise NotImplementedError

    def step(self) -> None:
        """Go to the next step."""
        self.steps += 1
        self._set()

    def _set(self) -> None:
        new = self.optimizer.param_groups[len(self.initial) :]  # all at first, later those that were added
        self.initial += [float(group["lr"]) for group in new]
        for group, initial in zip(self.optimizer.param_groups, self.initial, strict=True):
            group["lr"] = self.rate(initial, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """The step and the initial rates."""
        return {"steps": self.steps, "initial": list(self.initial)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.steps, self.initial = int(state["steps"]), list(state["initial"])
        self._set()


class LambdaSchedule(Schedule):
    """lr = initial · factor(step)."""

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self.factor = factor
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The initial rate times the factor."""
        return initial * self.factor(step)


class CosineSchedule(Schedule):
    """Linear warm-up, then half a cosine down to ``minimum`` (a learning rate), and there it stays.

        step < warmup_steps:   lr = initial · (step + 1) / (warmup_steps + 1)
        then                   lr = minimum + (initial - minimum) · (1 + cos(π · t)) / 2,
                               t = (step - warmup_steps) / (total_steps - warmup_steps), at most 1

    Raises ConfigError unless 0 ≤ warmup_steps < total_steps and minimum ≥ 0.
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; warm-up: Goyal et al. 2017, arXiv:1706.02677.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, minimum: float = 0.0
    ) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ConfigError(
                f"CosineSchedule: warmup_steps={warmup_steps} must be in 0..total_steps-1 "
                f"with total_steps={total_steps}"
            )
        if not minimum >= 0:
            raise ConfigError(f"CosineSchedule: minimum={minimum} must not be negative")
        self.total_steps, self.warmup_steps, self.minimum = total_steps, warmup_steps, minimum
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        if step < self.warmup_steps:
            return initial * (step + 1) / (self.warmup_steps + 1)
        t = min((step - self.warmup_steps) / (self.total_steps - self.warmup_steps), 1.0)
        return self.minimum + (initial - self.minimum) * (1 + cos(pi * t)) / 2
