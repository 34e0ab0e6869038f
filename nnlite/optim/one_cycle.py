"""One cycle: the learning rate up and down again, the momentum the other way."""

from __future__ import annotations

from math import cos, pi
from typing import NamedTuple

from nnlite.errors import ConfigError
from nnlite.optim.optimizer import Optimizer
from nnlite.optim.schedule import Schedule


class Phase(NamedTuple):
    """From the end of the phase before to step ``end``: rate and momentum, at first and at last."""

    end: float
    rates: tuple[float, float]
    momenta: tuple[float, float]


class OneCycleLR(Schedule):
    """From max_lr / div_factor up to max_lr in pct_start of the steps, then down to the first rate
    divided by final_div_factor, along half cosines ("cos") or lines ("linear").

    With ``cycle_momentum`` momentum (or the first of betas) goes from max_momentum down to base_momentum
    meanwhile, and back. With ``three_phase`` the way down leads to the first rate in as many steps as the way
    up, and from there to the last. ``total_steps`` may be given as ``epochs`` and ``steps_per_epoch``.
    Raises ConfigError for options out of range.
    Source: Smith and Topin 2018, arXiv:1708.07120; torch.optim.lr_scheduler.OneCycleLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ConfigError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1 or not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise ConfigError(
                f"OneCycleLR: total_steps={total_steps} must be at least 1, pct_start={pct_start} in [0, 1], "
                f"anneal_strategy={anneal_strategy!r} 'cos' or 'linear'"
            )
        names = [name for name in ("betas", "momentum") if name in optimizer.defaults]
        if cycle_momentum and not names:
            raise ConfigError(
                f"OneCycleLR: {type(optimizer).__name__} has no momentum to cycle; say cycle_momentum=False"
            )
        self.total_steps, self.anneal_strategy = total_steps, anneal_strategy
        self.cycled = names[0] if cycle_momentum else None
        first = max_lr / div_factor
        last = first / final_div_factor
        up, down = (max_momentum, base_momentum), (base_momentum, max_momentum)
        peak, end = pct_start * total_steps - 1, float(total_steps - 1)
        self.phases = [Phase(peak, (first, max_lr), up), Phase(end, (max_lr, last), down)]
        if three_phase:
            back = Phase(2 * pct_start * total_steps - 2, (max_lr, first), down)
            still = Phase(end, (first, last), (max_momentum, max_momentum))
            self.phases = [self.phases[0], back, still]
        super().__init__(optimizer)

    def _phase(self, step: int) -> tuple[Phase, float]:
        """The phase of ``step``, and how much of it is done, 0 to 1."""
        start = 0.0
        for phase in self.phases[:-1]:
            if step <= phase.end:
                return phase, (step - start) / (phase.end - start) if phase.end > start else 1.0
            start = phase.end
        phase = self.phases[-1]
        return phase, min((step - start) / (phase.end - start), 1.0) if phase.end > start else 1.0

    def _between(self, ends: tuple[float, float], done: float) -> float:
        if self.anneal_strategy == "linear":
            return ends[0] + (ends[1] - ends[0]) * done
        return ends[1] + (ends[0] - ends[1]) * (1 + cos(pi * done)) / 2

    def rate(self, initial: float, step: int) -> float:
        """The rate by the formula above; ``initial`` does not count."""
        phase, done = self._phase(step)
        return self._between(phase.rates, done)

    def _set(self) -> None:
        super()._set()
        if self.cycled is None:
            return
        phase, done = self._phase(self.steps)
        momentum = self._between(phase.momenta, done)
        for group in self.optimizer.param_groups:
            group[self.cycled] = momentum if self.cycled == "momentum" else (momentum, group["betas"][1])
