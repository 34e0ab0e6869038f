"""The precision of the frozen part: what it costs and gains, measured on the user's own pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from nnlite import memory
from nnlite.data import Loader
from nnlite.graph import GraphModule
from nnlite.graph.plan import Plan, Precision
from nnlite.layout import Array
from nnlite.transfer.logistic import cross_validated_accuracy

FrozenPrecision = Literal["fp32", "bf16", "int8", "auto"]
CALIBRATION = 16
"""Pictures on which int8 measures ranges."""
PICTURES = 128
"""Pictures on which a precision is judged."""
LEAST_COSINE, LEAST_GAIN = 0.98, -0.01
"""What auto tolerates: the mean cosine between features, and what the probe's accuracy may change."""


def tried(wanted: FrozenPrecision) -> tuple[Precision, ...]:
    """What is compared with fp32 where ``wanted`` was asked for."""
    if wanted == "fp32":
        return ()
    return ("bf16", "int8") if wanted == "auto" else (wanted,)


@dataclass(frozen=True)
class Trial:
    """One precision beside float32, on the same pictures."""

    precision: Precision
    mean_cosine: float
    least_cosine: float
    accuracy: float | None
    """Of a logistic regression on the features, cross-validated; None without two pictures of each class."""
    accuracy_fp32: float | None
    speed: float
    """Time of a batch in float32 over that in this precision."""
    pictures: int

    @property
    def is_good(self) -> bool:
        """Whether auto would take it, were it the fastest."""
        if self.mean_cosine < LEAST_COSINE:
            return False
        if self.accuracy is None or self.accuracy_fp32 is None:
            return True
        return self.accuracy - self.accuracy_fp32 >= LEAST_GAIN

    def __str__(self) -> str:
        text = f"frozen part in {self.precision}: feature cosine {self.mean_cosine:.4f} mean, "
        text += f"{self.least_cosine:.4f} least; "
        if self.accuracy is not None and self.accuracy_fp32 is not None:
            text += f"probe {self.accuracy:.1%} against {self.accuracy_fp32:.1%} in fp32; "
        return text + f"{self.speed:.2f} times as fast ({self.pictures} training pictures)"


@dataclass
class Frozen:
    """Compiles frozen parts in the precision that was asked for, which is judged once for a run."""

    wanted: FrozenPrecision
    say: Callable[[str], None]
    decided: Precision | None = None
    """What is computed with, once that is known; a run that goes on must not decide otherwise."""
    trials: list[Trial] = field(default_factory=list)

    def compile(
        self, part: GraphModule, rest: GraphModule, loader: Loader, classes: int, seed: int = 0,
        settle: Callable[[Plan], None] = lambda plan: None,
    ) -> Plan:  # fmt: skip
        """A plan of ``part``; ``rest`` leads from its output to the features [N,...] of a classifier.

        ``loader`` gives the unaugmented training pictures, from ``classes`` classes. ``settle`` lets a plan
        that is only tried keep no more than it needs: several are there at once.
        """
        if self.wanted == "fp32":
            return part.compile()
        if self.decided is None:
            self.decided = self._judge(part, rest, loader, classes, seed, settle)
            memory.release()
        return _plan(part, self.decided, loader)

    def report(self) -> dict[str, Any]:
        """What was decided and measured, as plain JSON types."""
        return {"precision": self.decided or "fp32", "trials": [asdict(trial) for trial in self.trials]}

    def _judge(
        self, part: GraphModule, rest: GraphModule, loader: Loader, classes: int, seed: int,
        settle: Callable[[Plan], None],
    ) -> Precision:  # fmt: skip
        """Measure; the precision that was asked for, or the fastest that is good."""
        names = tried(self.wanted)
        plans: dict[Precision, Plan] = {}
        for name in (*reversed(names), "fp32"):  # int8 first: measuring ranges takes the most memory
            plans[name] = _plan(part, name, loader)
            settle(plans[name])
        plans = {name: plans[name] for name in ("fp32", *names)}
        seconds = _seconds(plans, _pictures(loader, loader.batch_size))
        speed = {name: seconds["fp32"] / seconds[name] for name in names}
        slower = [name for name in names if self.wanted == "auto" and speed[name] <= 1]
        for name in slower:  # need not be judged
            del plans[name]
        if len(plans) > 1:
            self._compare(plans, speed, rest, _some(loader, PICTURES), classes, seed)
        if self.wanted != "auto":
            return names[0]
        good = [trial for trial in self.trials if trial.is_good]
        best: Precision = max(good, key=lambda trial: trial.speed).precision if good else "fp32"
        listed = ", ".join(f"{name} is {speed[name]:.2f} times as fast" for name in slower)
        self.say(f"frozen precision auto: {best}" + (f" ({listed})" if listed else ""))
        return best

    def _compare(
        self, plans: dict[Precision, Plan], speed: dict[Precision, float], rest: GraphModule, loader: Loader,
        classes: int, seed: int,
    ) -> None:  # fmt: skip
        """A trial of every precision beside float32, a line about each."""
        features, labels = _features(plans, rest, loader)
        accuracy: dict[Precision, float | None] = dict.fromkeys(plans)
        if labels.dtype.kind == "i":  # one class per picture
            accuracy = {n: cross_validated_accuracy(f, labels, classes, seed) for n, f in features.items()}
        for name in plans:
            if name != "fp32":
                cosine = _cosine(features[name], features["fp32"])
                trial = Trial(
                    name, float(cosine.mean()), float(cosine.min()), accuracy[name], accuracy["fp32"],
                    speed[name], len(labels),
                )  # fmt: skip
                self.trials.append(trial)
                self.say(str(trial))


def _plan(part: GraphModule, precision: Precision, loader: Loader) -> Plan:
    # Read anew for each plan, which forgets them when it has been compiled.
    return part.compile(precision, (_pictures(loader, CALIBRATION),) if precision == "int8" else ())


def _pictures(loader: Loader, count: int) -> Array:
    """At most ``count`` of them, prepared."""
    return np.concatenate([batch.images for batch in _some(loader, count).epoch(0)])


def _some(loader: Loader, count: int) -> Loader:
    """A loader of at most ``count`` of the samples, spread over all of them."""
    step = max(1, len(loader.samples) // count)
    return Loader(
        loader.samples[::step][:count], loader.transform, loader.batch_size, shuffle=False, seed=loader.seed,
        on_bad_image=loader.on_bad_image, at_least=loader.at_least, channels=loader.channels, cache_bytes=0,
    )  # fmt: skip


def _seconds(plans: dict[Precision, Plan], images: Array) -> dict[Precision, float]:
    """The least time of a batch of each plan, measured in turns."""
    least = dict.fromkeys(plans, float("inf"))
    for _ in range(4):  # the first call compiles
        for name, plan in plans.items():
            begin = time.perf_counter()
            plan(images)
            least[name] = min(least[name], time.perf_counter() - begin)
    return least


def _features(
    plans: dict[Precision, Plan], rest: GraphModule, loader: Loader
) -> tuple[dict[Precision, Array], Array]:
    """Features [N,D] of every plan at the classifier, and labels."""
    to_head = rest.compile()
    rows: dict[Precision, list[Array]] = {name: [] for name in plans}
    labels = []
    for batch in loader.epoch(0):
        labels.append(batch.labels)
        for name, plan in plans.items():
            features = to_head(plan(batch.images))
            rows[name].append(features.reshape(len(features), -1).copy())
    return {name: np.concatenate(some) for name, some in rows.items()}, np.concatenate(labels)


def _cosine(a: Array, b: Array) -> Array:
    """Of each row of a with that of b."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) / np.maximum(norms, 1e-300))
