"""A budget of memory: what a run will have resident at most, and what it can do without.

    what is resident already + the largest of its phases' needs ─▶ prediction ─▶ savings until it fits

Measured at the start is the process with the network read, its weights forgotten; the rest follows from
shapes: weights while they are folded and packed (twice), then as they are packed, what lives at once in the
arena of a plan, features of all views, what the backward pass keeps of the unfrozen part, and copies of what
is trained; where the frozen part is in a smaller precision, the trial of it beside float32. Mapped files
count as well, so that features in files are no saving here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import ConfigError
from nnlite.graph import Graph, GraphModule
from nnlite.graph.calibrate import BATCH, SAMPLES
from nnlite.graph.ir import Types, operands
from nnlite.ops import ArrayType
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.features import TOGETHER
from nnlite.transfer.precision import CALIBRATION, PICTURES, tried
from nnlite.transfer.training import Rules

MARGIN = 0.03
"""Part of the budget that a prediction leaves free."""
SAME = ("batch_norm", "relu", "clamp")
"""What comes with what it reads: it is computed again, or lies in its place, or is one with it in a plan."""
SLACK = 4 << 20
"""Code that is imported and objects that are made only later."""
COMPILED = 2.4
"""Of weights while a plan is compiled: as read or folded, folded or packed, and the largest in float64."""
COPIES = 9
"""Of what is trained, beside its gradient: two moments, the best so far, that of the epoch; folded and packed
where validation runs; one row-major while it is written; two for blocks that wait for reuse."""
KEPT = 1.3
"""Bytes of a backward pass over those of the results that it keeps: gradients and scratch memory."""
WAITING = 0.2
"""Of the bytes that a backward pass holds which computes results again, those of blocks that may wait for
reuse: what was saved of one segment is in the way of the next one's larger blocks."""
TRIAL = "trial of precisions"
SIZES = {"fp32": 1.0, "bf16": 0.5, "int8": 0.25}
"""Bytes of packed weights over those of float32; of ``auto`` it is not known before the trial."""
INTERPRETED = 1.5
"""Bytes that live at once where int8 measures ranges, which no plan lays out, over those in a plan."""
MAPS = 6 << 20
"""Bytes of what only the report needs: its code, drawings, and batches of covered pictures."""
SCRATCH = 4 << 20
"""Bytes per picture of a batch that the small network from scratch takes."""


@dataclass(frozen=True)
class Holding:
    """What a run has in memory at a time, beside what its options say."""

    pictures: int = 2
    """At a time where nothing is trained: fewer are slower, more need more memory."""
    decoded: int = 256 << 20
    """Bytes of decoded pictures that are kept for the next view of them."""
    scratch: bool = True
    """Whether a small network is trained from scratch, to compare with."""
    maps: bool = True
    """Whether the report shows where the network looked."""
    step_in_backward: bool = False
    """Whether gradients are used and freed while backward runs, where the rules of training allow it."""
    recompute: bool = False
    """Whether backward computes results of the unfrozen part again, segment by segment."""


@dataclass(frozen=True)
class Needs:
    """Bytes that predictions are made of."""

    now: int
    """Resident already."""
    peak: int
    """Resident at most so far."""
    weights: int
    frozen: int
    """Of the weights, those before the cut."""
    trained: int
    live: int
    """What lives at once in the frozen part, for one picture."""
    kept: int
    """Results of the unfrozen part that wait for the backward pass, for one picture."""
    recomputed: int
    """All results that a backward pass holds at once which computes them again, segment by segment."""
    results: int
    """All results of the whole network, for one picture."""
    ranges: int
    """What int8 looks at of the frozen part's results, to measure their ranges."""
    head_features: int
    """Of one picture at the head; ``cut_features``: where what is trained begins, if stages are."""
    cut_features: int
    picture: int
    """One decoded picture; ``prepared``: as the network takes it."""
    prepared: int
    train: int
    """Number of training pictures; ``held``: held out."""
    held: int


def predict(needs: Needs, config: FinetuneConfig, holding: Holding) -> dict[str, int]:
    """Bytes resident at most in each phase of a run."""
    base = needs.now + SLACK
    sets = config.views * needs.train + needs.held
    anew = config.cache == "off" or not needs.frozen  # training pictures are augmented anew in every epoch
    features = sets * needs.head_features + (needs.held if anew else sets) * needs.cut_features
    decoded = min(holding.decoded, needs.train * needs.picture)

    def loaded(pictures: int) -> int:
        """Batches of so many pictures, waiting and in work."""
        return (config.workers + 1) * (2 * needs.picture + pictures * needs.prepared)

    loading = loaded(holding.pictures)

    def planned(weights: int, rest: int, settled: bool = True) -> int:
        """A plan that is compiled, and then used with ``rest`` beside it."""
        used = (1 if settled else 2) * weights + holding.pictures * needs.live + loading + rest
        return max(int(COMPILED * weights), used)

    together = needs.train if config.cache == "disk" else min(needs.train, TOGETHER)
    views = features + (min(holding.decoded, together * needs.picture) if config.views > 1 else 0)
    frozen = int(needs.frozen * SIZES.get(config.frozen_precision, 1.0))
    phases = {"features": base + planned(frozen, views, settled=config.cache != "disk")}
    before, ranges = needs.weights if anew else needs.frozen, 0
    names = tried(config.frozen_precision)
    if "int8" in names:
        ranges = needs.ranges + int(INTERPRETED * BATCH * needs.live) + CALIBRATION * needs.prepared
    if names:
        compiling = int(COMPILED * before) + ranges
        plans = int((1 + sum(SIZES[name] for name in names)) * before)
        plans += (1 + len(names)) * (holding.pictures * needs.live + 8 * PICTURES * needs.head_features)
        comparing = plans + int(COMPILED * (needs.weights - before)) + loading
        phases[TRIAL] = base + max(compiling, comparing)
    if needs.trained:
        gradient = 0 if Rules.of(config, holding).steps_in_backward else needs.trained
        step = COPIES * needs.trained + gradient
        if holding.recompute:  # few blocks wait, and validation's copies are there when the results are not
            passing = max(int(KEPT * config.batch_size * needs.recomputed), 2 * needs.trained)
            step -= 4 * needs.trained
        else:
            passing = int(KEPT * config.batch_size * needs.kept)
        # Where no features are kept the frozen part is compiled again, with the first batch.
        step += max(passing, ranges) if anew and needs.frozen else passing
        if anew:
            step += decoded + loaded(config.batch_size)
            if needs.frozen:  # whole training batches pass through the frozen part
                step += 2 * frozen + config.batch_size * needs.live
        phases["stages"] = base + features + step
    phases["evaluation"] = base + (features if config.baselines else 0) + planned(needs.weights, 0)
    if config.baselines:
        # Four arrays like the features, in float64: centred, rotated, and their singular vectors.
        phases["probe baseline"] = base + features + 8 * needs.train * needs.head_features
        if holding.scratch:
            all_decoded = (needs.train + needs.held) * needs.picture
            phases["scratch baseline"] = base + features + all_decoded + config.batch_size * SCRATCH
    if config.report and config.pictures and holding.maps:
        phases["maps of the report"] = base + MAPS + planned(needs.weights, 0)
    return {"start": needs.peak} | phases


Saving = tuple[str, Callable[[FinetuneConfig, Holding], tuple[FinetuneConfig, Holding]]]


def _smaller_steps(config: FinetuneConfig, holding: Holding) -> tuple[FinetuneConfig, Holding]:
    """Half the pictures and twice the batches per step: the same step, but for the statistics of a batch."""
    if config.batch_size % 2 or config.train_batch_norm or config.mix != "none":
        return config, holding
    return replace(config, batch_size=config.batch_size // 2, accumulate=config.accumulate * 2), holding


def _no_kept_features(config: FinetuneConfig, holding: Holding) -> tuple[FinetuneConfig, Holding]:
    return (replace(config, cache="off") if config.cache == "auto" else config), holding


def _recompute(config: FinetuneConfig, holding: Holding) -> tuple[FinetuneConfig, Holding]:
    """Not where running statistics would be updated twice."""
    return config, replace(holding, recompute=not config.train_batch_norm)


def _fp32(config: FinetuneConfig, holding: Holding) -> tuple[FinetuneConfig, Holding]:
    """A trial compares with float32, and so takes more than float32 alone."""
    auto = config.frozen_precision == "auto"
    return (replace(config, frozen_precision="fp32") if auto else config), holding


SAVINGS: tuple[Saving, ...] = (
    ("gradients are used and freed during backward", lambda c, h: (c, replace(h, step_in_backward=True))),
    ("decoded pictures are not kept", lambda c, h: (c, replace(h, decoded=0))),
    ("one picture at a time", lambda c, h: (c, replace(h, pictures=1))),
    ("one thread decodes", lambda c, h: (replace(c, workers=min(c.workers, 1)), h)),
    (TRIAL, _fp32),
    ("results of the stages are computed again in backward", _recompute),
    *(("half the batch, twice as many for a step", _smaller_steps),) * 5,
    ("no maps in the report (nnlite report RUN draws them)", lambda c, h: (c, replace(h, maps=False))),
    ("features at the cut are not kept", _no_kept_features),
    ("no network from scratch to compare with", lambda c, h: (c, replace(h, scratch=False))),
)
"""In the order in which they are taken: first what costs time alone, last what a user would miss."""


@dataclass(frozen=True)
class MemoryPlan:
    """What was decided for a budget."""

    budget: int
    predicted: int
    phase: str
    """Where the peak is predicted."""
    choices: tuple[str, ...]
    holding: Holding

    def __str__(self) -> str:
        text = f"memory: {_mb(self.predicted)} predicted of {_mb(self.budget)}, at the {self.phase}"
        return "; ".join((text, *self.choices))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self) | {"choices": list(self.choices)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> MemoryPlan:
        """What :meth:`to_dict` gave; TypeError or LookupError when it is damaged."""
        holding, choices = Holding(**stored["holding"]), tuple(stored["choices"])
        return cls(**{**stored, "holding": holding, "choices": choices})


def choose(needs: Needs, config: FinetuneConfig) -> tuple[FinetuneConfig, MemoryPlan]:
    """The options, and the fewest savings in their order, with which a run stays in ``config.memory``.

    Raises ConfigError with the smallest budget that is possible when none is enough.
    """
    assert config.memory is not None
    budget = memory.parse_bytes("memory", config.memory)

    def applied(taken: list[Saving]) -> tuple[FinetuneConfig, Holding, int, str]:
        changed, holding = config, Holding()
        for _, saving in taken:
            changed, holding = saving(changed, holding)
        phases = predict(needs, changed, holding)
        worst = max(phases, key=phases.__getitem__)
        return changed, holding, int(phases[worst] / (1 - MARGIN)), worst

    # Not always all of them: a step of several batches needs the gradients that another saving frees.
    attempts = [list(SAVINGS[:count]) for count in range(len(SAVINGS) + 1)]
    taken = next((some for some in attempts if applied(some)[2] <= budget), None)
    if taken is None:
        taken = min(attempts, key=lambda some: applied(some)[2])
        least = applied(taken)[2]
        raise ConfigError(
            f"memory={config.memory!r}: this run needs at least {-(-least // 10**6)}MB "
            f"(the {applied(taken)[3]}); allow that, or use "
            + (
                "frozen_precision='fp32'"
                if applied(taken)[3] == TRIAL
                else "a smaller --size or fewer stages"
            )
        )
    for saving in [*taken]:  # what turned out not to be needed
        without = [*taken]
        without.remove(saving)
        if applied(without)[2] <= budget:
            taken = without
    changed, holding, predicted, worst = applied(taken)
    choices = dict.fromkeys(text for text, _ in taken if text != TRIAL)
    if names := tried(config.frozen_precision):
        phases = predict(needs, replace(changed, frozen_precision=config.frozen_precision), holding)
        others, own = " and ".join(names), changed.frozen_precision
        kept = own == config.frozen_precision
        taken_by = int((phases[TRIAL] if kept else max(phases.values())) / (1 - MARGIN))
        text = f"comparing {others} with fp32 takes" if kept else f"with a choice of {others} it would take"
        text = f"precision {own}: {text} {_mb(taken_by)}"
        choices[text] = None
    return changed, MemoryPlan(budget, predicted, worst, tuple(choices), holding)


def live_bytes(graph: Graph, types: Types) -> int:
    """Most bytes of results that live at once when nodes run in order, elementwise ones in place."""
    last: dict[Any, int] = {}
    for index, node in enumerate(graph.nodes):
        last |= dict.fromkeys(operands(node), index)
    current = most = 0
    for index, node in enumerate(graph.nodes):
        inputs = {v for v in operands(node) if v not in graph.arrays}
        made = sum(array_bytes(types[v]) for v in node.outputs)
        freed = sum(array_bytes(types[v]) for v in inputs if last[v] == index)
        first = node.inputs[0] if node.inputs else None
        in_place = first in inputs and types[first].shape == types[node.outputs[0]].shape
        most = max(most, current + (0 if in_place and node.op.name != "conv2d" else made))
        current = max(current + made - freed, 0)
    return most


def result_bytes(graph: Graph, types: Types) -> int:
    """Bytes of the results of all nodes."""
    return sum(array_bytes(types[value]) for node in graph.nodes for value in node.outputs)


def kept_bytes(graph: Graph, types: Types) -> int:
    """Bytes of the results that wait for a backward pass.

    Batch norm and ReLU come with what they read: what they make is computed again, or lies in its place.
    """
    kept = (node for node in graph.nodes if node.op.name not in SAME)
    return sum(array_bytes(types[value]) for node in kept for value in node.outputs)


def range_bytes(graph: Graph, types: Types) -> int:
    """Bytes of the numbers that int8 measures ranges on, of every value that is not the same one bounded."""
    batches = -(-CALIBRATION // BATCH)
    made = [v for n in graph.nodes if n.op.name not in SAME for v in n.outputs]
    return sum(batches * min(4 * SAMPLES, BATCH * array_bytes(types[value])) for value in made)


def leaf_bytes(module: GraphModule, graph: Graph) -> int:
    """Bytes of the parameters that ``graph`` reads."""
    leaves = map(module.leaf, graph.arrays)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def array_bytes(known: ArrayType) -> int:
    """Bytes of an array of a known type."""
    return prod(known.shape) * np.dtype(known.dtype).itemsize


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
