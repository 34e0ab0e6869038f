"""More schedules, PyTorch's. Call ``step()`` after each of the optimiser's steps (or epochs)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from math import cos, inf, pi
from typing import Any

from nnlite.errors import ConfigError
from nnlite.optim.optimizer import Optimizer
from nnlite.optim.schedule import Schedule


class StepLR(Schedule):
    """lr = initial · gamma^⌊step / step_size⌋."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ConfigError(f"StepLR: step_size={step_size} must be at least 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        return float(initial * self.gamma ** (step // self.step_size))


class MultiStepLR(Schedule):
    """lr = initial · gamma^(number of milestones reached)."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        return float(initial * self.gamma ** bisect_right(self.milestones, step))


class ExponentialLR(Schedule):
    """lr = initial · gamma^step."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        return float(initial * self.gamma**step)


class LinearLR(Schedule):
    """Linear warm-up: lr = initial · factor, factor from start_factor to end_factor in total_iters steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1 or total_iters < 1:
            raise ConfigError(
                f"LinearLR: start_factor={start_factor} and end_factor={end_factor} must be in (0, 1] and "
                f"[0, 1], total_iters={total_iters} at least 1"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        done = min(step / self.total_iters, 1.0)
        return initial * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingWarmRestarts(Schedule):
    """Half a cosine from the initial rate to eta_min in T_0 steps, again and again, each T_mult times longer.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> None:
        if T_0 < 1 or T_mult < 1:
            raise ConfigError(f"CosineAnnealingWarmRestarts: T_0={T_0}, T_mult={T_mult} must be at least 1")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        period = self.T_0
        while step >= period:
            step, period = step - period, period * self.T_mult
        return self.eta_min + (initial - self.eta_min) * (1 + cos(pi * step / period)) / 2


class CosineAnnealingLR(Schedule):
    """lr = eta_min + (initial - eta_min) · (1 + cos(π · step / T_max)) / 2: down in T_max steps, then up.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983. For a warm-up and a rate that stays low after the
    end see :class:`CosineSchedule`.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ConfigError(f"CosineAnnealingLR: T_max={T_max} must be at least 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above."""
        return self.eta_min + (initial - self.eta_min) * (1 + cos(pi * step / self.T_max)) / 2


class ReduceLROnPlateau:
    """lr = max(lr · factor, min_lr) when a measured value has not improved for more than patience steps.

    ``step(value)`` after each measurement. ``mode``: "min" or "max"; better means by ``threshold``,
    relative ("rel") or absolute ("abs"); after a reduction ``cooldown`` steps are not counted.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs") or not 0 <= factor < 1:
            raise ConfigError(
                f"ReduceLROnPlateau: mode={mode!r} must be 'min' or 'max', threshold_mode={threshold_mode!r} "
                f"'rel' or 'abs', factor={factor} in [0, 1)"
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.best, self.bad, self.resting = (inf if mode == "min" else -inf), 0, 0

    def _better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            return sign * value > sign * self.best + self.threshold
        return sign * value > sign * self.best * (1 + sign * self.threshold)

    def step(self, value: float) -> None:
        """Take a new measurement into account."""
        if self._better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.resting > 0:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.patience:
            self.resting, self.bad = self.cooldown, 0
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower

    def state_dict(self) -> dict[str, Any]:
        """The best value and the counters."""
        return {"best": self.best, "bad": self.bad, "resting": self.resting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.best, self.bad, self.resting = state["best"], state["bad"], state["resting"]
