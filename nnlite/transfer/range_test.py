"""A range test: how the loss answers to a learning rate that grows from step to step.

The phase that the options end in is prepared as for a run; then its weights take steps with rates from
``low`` to ``high``, evenly in the logarithm, until the loss leaves for good. Suggested is the rate at which
the smoothed loss falls most steeply. Source: Smith 2017, arXiv:1506.01186.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import exp, isfinite, log, log10
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import random
from nnlite.errors import ConfigError, TrainingError
from nnlite.layout import Array
from nnlite.tensors import Tensor
from nnlite.transfer.callbacks import Callback, Callbacks
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.job import prepare
from nnlite.transfer.phases import PHASES, Material
from nnlite.transfer.training import Phase
from nnlite.transfer.views import compute_views

SMOOTHING = 0.8
"""Part of the old in the running mean of the loss."""
LOST = 3.0
"""Times the lowest loss so far at which the test ends."""
FEWEST = 5


@dataclass(frozen=True)
class RangeTest:
    """What was seen: the phase, (learning rate, smoothed loss) for every step, and the rate to take."""

    phase: str
    points: tuple[tuple[float, float], ...]
    suggestion: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"phase": self.phase, "suggestion": self.suggestion, "points": [list(p) for p in self.points]}


def find_learning_rate(
    config: FinetuneConfig,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 60,
    callbacks: Sequence[Callback] = (),
) -> RangeTest:
    """Test rates for the last phase of ``config``'s recipe (its head's, where nothing else is trained).

    Nothing is written. Raises ConfigError for a range that is none, or a recipe that takes no steps, and
    TrainingError when the loss is lost within the first steps.
    """
    if not 0 < low < high or steps < FEWEST:
        raise ConfigError(f"low={low:g}, high={high:g}, steps={steps}: need 0 < low < high, {FEWEST} steps")
    with tempfile.TemporaryDirectory() as folder:
        own = replace(config, out=str(Path(folder) / "tuned.onnx"), run_dir=str(Path(folder) / "run"))
        random.manual_seed(own.seed)
        job = prepare(own, Callbacks(callbacks))
        last = job.stretches[-1]
        if last.phase == "probe":
            raise ConfigError("recipe='probe' is solved, not trained: it has no learning rate")
        sweep = _Sweep(len(job.stretches), low, high, steps)
        material = Material(*compute_views(job), sweep)
        for stretch in job.stretches:
            PHASES[stretch.phase](job, material, stretch)
    rates, losses = zip(*sweep.points, strict=True)
    return RangeTest(sweep.phase, sweep.points, _steepest(rates, losses))


class _Sweep:
    """Takes the place of who runs the phases: trains all but the last, and sweeps through that one."""

    def __init__(self, phases: int, low: float, high: float, steps: int) -> None:
        self.left = phases
        self.rates = [exp(log(low) + i / (steps - 1) * log(high / low)) for i in range(steps)]
        self.anchors: dict[Any, Any] = {}
        self.phase = ""
        self.points: tuple[tuple[float, float], ...] = ()

    def train(self, phase: Phase) -> None:
        """One phase, or the sweep."""
        self.left -= 1
        if self.left:
            phase.run(lambda record: None)
            return
        self.phase, points = phase.name, list(self._swept(phase))
        if len(points) < FEWEST:
            raise TrainingError(f"the loss is lost after {len(points)} steps; begin with a smaller --low")
        self.points = tuple(points)

    def finish_phase(self) -> None:
        """Nothing is kept."""

    def _swept(self, phase: Phase) -> Iterator[tuple[float, float]]:
        groups, initial = phase.optimizer.param_groups, phase.schedule.initial
        mean, lowest = 0.0, float("inf")
        phase.module.train()
        with np.errstate(over="ignore", invalid="ignore"):  # it is pushed until it breaks
            for step, (rate, (inputs, labels)) in enumerate(
                zip(self.rates, _endless(phase), strict=False), 1
            ):
                for group, own in zip(groups, initial, strict=True):
                    group["lr"] = rate * own / initial[0]
                logits = phase.module(Tensor(inputs))
                loss = phase.targets.loss(logits, labels, phase.rules.label_smoothing)
                mean = SMOOTHING * mean + (1 - SMOOTHING) * float(loss.item())
                smooth = mean / (1 - SMOOTHING**step)
                lowest = min(lowest, smooth)
                if not isfinite(smooth) or smooth > LOST * lowest:
                    return
                yield rate, smooth
                phase.optimizer.zero_grad()
                loss.backward()
                phase.optimizer.step()


def _endless(phase: Phase) -> Iterator[tuple[Array, Array]]:
    for epoch in count():
        yield from phase.batches(epoch, 0)


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate before the lowest loss at which it falls most per factor of ten."""
    end = max(int(np.argmin(losses)) + 1, 2)
    slopes = np.gradient(np.array(losses), np.log10(rates))[:end]
    return float(rates[int(slopes.argmin())])


# ------------------------------------------------------------------------------------- drawing


def to_svg(result: RangeTest) -> str:
    """The curve over a logarithmic axis, the suggestion marked."""
    width, height, left, bottom, edge = 640, 360, 60, 50, 20
    xs = [log10(rate) for rate, _ in result.points]
    ys = [loss for _, loss in result.points]
    x0, x1, y0, y1 = xs[0], xs[-1], min(ys), max(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x0) / ((x1 - x0) or 1), (y - y0) / ((y1 - y0) or 1)
        return left + across * (width - left - edge), height - bottom - up * (height - bottom - 2 * edge)

    curve = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(xs, ys, strict=True))
    marked, base = place(log10(result.suggestion), y0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="{edge}">smoothed loss over the learning rate, phase {result.phase}</text>',
        f'<line x1="{left}" y1="{base:.1f}" x2="{width - edge}" y2="{base:.1f}" stroke="#999"/>',
    ]
    for power in range(round(x0), round(x1) + 1):
        if x0 - 1e-9 <= power <= x1 + 1e-9:
            x, y = place(power, y0)
            parts.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">1e{power}</text>')
    for loss in (y0, y1):
        _, y = place(x0, loss)
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{loss:.2f}</text>')
    parts += [
        f'<line x1="{marked:.1f}" y1="{2 * edge}" x2="{marked:.1f}" y2="{base:.1f}" stroke="#c50" '
        'stroke-dasharray="4"/>',
        f'<text x="{marked + 5:.1f}" y="{2 * edge + 10}" fill="#c50">{result.suggestion:.1e}</text>',
        f'<polyline points="{curve}" fill="none" stroke="#06c" stroke-width="2"/>',
        "</svg>\n",
    ]
    return "\n".join(parts)
