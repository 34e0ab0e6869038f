"""Recipes: which phases of training a run goes through, in which order, and why.

probe     the head alone, solved exactly
partial   the head, then the last stages with it
full      the head, then everything
gradual   the head, then one stage more at a time
auto      the one of these that suits the number of pictures and the time that is allowed
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nnlite.errors import ConfigError
from nnlite.graph import GraphModule, node_macs
from nnlite.graph.head import Head
from nnlite.graph.ir import Types
from nnlite.node import Value
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.stages import choose_cut, stage_cuts

FEW = 4
"""Training pictures per class below which features are not tuned: weights then follow single pictures."""
MANY = 10_000
"""Training pictures from which on every layer is tuned."""
TIMED = 8
"""Pictures in the batch that is timed where a budget is given."""


class Stretch(NamedTuple):
    """One phase of a recipe."""

    phase: str
    """A name of :data:`nnlite.transfer.phases.PHASES`."""
    unfreeze: str
    epochs: int
    number: int
    """Its place, which its random order is keyed by."""


@dataclass(frozen=True)
class Recipe:
    """What was decided: a name, how deep the network is unfrozen, and why."""

    name: str
    unfreeze: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """For a JSON file."""
        return {"name": self.name, "unfreeze": self.unfreeze, "reason": self.reason}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """What :meth:`to_dict` wrote."""
        return cls(*(str(values[key]) for key in ("name", "unfreeze", "reason")))

    def stretches(self, config: FinetuneConfig, stages: int) -> list[Stretch]:
        """The phases; ``stages``: how many stages the network has."""
        if self.name == "probe":
            return [Stretch("probe", "none", 0, 0)]
        head = Stretch("head", "none", config.head_epochs, 0)
        if self.unfreeze == "none" or not config.epochs:
            return [head]
        if self.name != "gradual":
            return [head, Stretch("stages", self.unfreeze, config.epochs, 1)]
        depth = stages if self.unfreeze == "all" else int(self.unfreeze)
        shares = [len(part) for part in np.array_split(np.arange(config.epochs), depth)]
        steps = [Stretch("stages", str(i + 1), share, i + 1) for i, share in enumerate(shares) if share]
        return [head, *steps]


class Situation(NamedTuple):
    """What a decision looks at."""

    module: GraphModule
    types: Types
    head: Head
    task: str
    pictures: int
    """How many there are to train on."""
    classes: int


def choose_recipe(config: FinetuneConfig, situation: Situation) -> Recipe:
    """The recipe that ``config`` asks for; ``auto`` decides by the pictures and, if given, the budget.

    Raises ConfigError where ``recipe`` and ``unfreeze`` contradict each other.
    """
    name, depth = config.recipe, config.unfreeze
    if name == "probe" and not solvable(situation):
        raise ConfigError("recipe='probe' needs one class per picture and a linear head with a bias")
    if name == "auto" and depth is not None:
        return Recipe("explicit", depth, f"recipe: unfreeze {depth}, as told")
    if name == "auto":
        return _auto(config, situation)
    allowed = {"probe": ("none",), "full": ("all",)}.get(name)
    if depth is not None and (depth not in allowed if allowed else depth == "none"):
        raise ConfigError(f"unfreeze={depth!r} contradicts recipe={name!r}; leave one of them out")
    default = {"probe": "none", "partial": "1"}.get(name, "all")
    return Recipe(name, depth or default, f"recipe: {name}, as told")


def solvable(situation: Situation) -> bool:
    """Whether the head is a multinomial logistic regression."""
    head = situation.head
    return situation.task == "single" and head.node.op.name != "conv2d" and head.bias is not None


def _auto(config: FinetuneConfig, situation: Situation) -> Recipe:
    pictures = situation.pictures
    each = pictures / (max(situation.classes, 1) if situation.task == "single" else 1)
    last = "probe" if solvable(situation) else "partial"
    if each < FEW and last == "probe":
        return Recipe("probe", "none", f"recipe: probe, for only {each:.1f} training pictures a class")
    wanted = list(dict.fromkeys(["full", "partial", last] if pictures >= MANY else ["partial", last]))
    why = f"for {pictures} training pictures, {each:.0f} a class"
    deep = {"full": "all", "partial": "1", "probe": "none"}
    if config.budget is None:
        return Recipe(wanted[0], deep[wanted[0]], f"recipe: {wanted[0]}, {why}")
    speed = _seconds_per_mac(situation)
    for name in wanted:
        minutes = speed * _macs(config, situation, deep[name]) / 60
        if minutes <= config.budget:
            break
    about = f"about {minutes:.2g} of the {config.budget:g} minutes allowed"
    return Recipe(name, deep[name], f"recipe: {name}, {why}: {about}")


def _macs(config: FinetuneConfig, situation: Situation, unfreeze: str) -> float:
    """Multiplications and additions of a run: views through the frozen part, then epochs of the rest."""
    module, types, graph = situation.module, situation.types, situation.module.graph
    cut = choose_cut(module, types, situation.head, unfreeze)
    before = set(graph.between(graph.inputs, [cut]).nodes) if cut.node is not None else set()
    frozen = sum(node_macs(node, types) for node in graph.nodes if node in before)
    rest = sum(node_macs(node, types) for node in graph.nodes if node not in before)
    # Backward costs about twice what forward does.
    return float(situation.pictures) * (config.views * (frozen + rest) + config.epochs * 3.0 * rest)


def _seconds_per_mac(situation: Situation) -> float:
    module, types = situation.module, situation.types
    plan, shape = module.compile(), types[module.graph.inputs[0]].shape
    pictures = np.zeros((TIMED, *shape[1:]), np.float32)
    plan(pictures)
    begin = time.perf_counter()
    plan(pictures)
    total = sum(node_macs(node, types) for node in module.graph.nodes)
    return (time.perf_counter() - begin) / (TIMED * max(total, 1))


def depths(module: GraphModule, types: Types, head: Head) -> dict[Value, int]:
    """For each tensor before the head how many stages later ones follow its own."""
    result: dict[Value, int] = {}
    for depth, cut in enumerate(reversed(stage_cuts(module, types, head))):
        for value in module.graph.between([cut], [head.features]).arrays:
            result.setdefault(value, depth)
    return result


def names(stretches: Sequence[Stretch]) -> list[str]:
    """What the phases are called in the history: ``stages`` with its depth where there are several."""
    several = sum(stretch.phase == "stages" for stretch in stretches) > 1
    return [f"stages {s.unfreeze}" if several and s.phase == "stages" else s.phase for s in stretches]
