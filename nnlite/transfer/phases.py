"""The phases of training that a recipe is made of: each is one function, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nnlite import memory
from nnlite.device import CPU
from nnlite.errors import TrainingError
from nnlite.graph import GraphModule, add_channel_affine
from nnlite.graph.head import Head
from nnlite.node import Value
from nnlite.optim import AdamW
from nnlite.transfer import logistic
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.feature_file import Features
from nnlite.transfer.features import in_batches
from nnlite.transfer.job import Job
from nnlite.transfer.memory_plan import WAITING
from nnlite.transfer.outcome import export
from nnlite.transfer.recipes import Stretch, depths, names
from nnlite.transfer.segments import Recomputed
from nnlite.transfer.stages import choose_cut, freeze_below, types_for, write_head
from nnlite.transfer.training import Phase, Rules
from nnlite.transfer.views import Views, anew, classes_if_mixed, features_at, over_views


class Trainer(Protocol):
    """Who runs the phases: :class:`~nnlite.transfer.checkpoint.Keeper`, or a test of learning rates."""

    @property
    def anchors(self) -> Mapping[Any, Any]:
        """Where pretrained weights began, if they are pulled back there."""

    def train(self, phase: Phase) -> None:
        """Run a phase, or what is left of it."""

    def finish_phase(self) -> None:
        """The phase is done."""


@dataclass(frozen=True)
class Material:
    """What all phases of a run learn from, and who runs them."""

    at_head: Views
    at_cut: Views | None
    """None where features at the cut are not kept: pictures are then augmented anew."""
    keeper: Trainer


def probe(job: Job, material: Material, stretch: Stretch) -> None:
    """Solve the head exactly: multinomial logistic regression on the features, written into the layer."""
    views, head = material.at_head, job.head
    values, labels = views.train[0][:2]
    job.say(f"solving the head on frozen features {list(values.shape[1:])}")
    freeze_below(job.module, views.at)
    model = logistic.fit(values, labels, len(job.folder.classes))
    write_head(job.module, head, model.weight, model.bias)
    job.say(f"C = {model.c:g} by cross-validation")


def head(job: Job, material: Material, stretch: Stretch) -> None:
    """Train the head on the frozen backbone's features."""
    config, views = job.config, material.at_head
    freeze_below(job.module, views.at)
    layer = job.module.part([views.at], job.module.graph.outputs)
    steps = -(-len(views.train[0].labels) // config.batch_size)
    optimizer = AdamW(
        [p for p in layer.parameters() if p.requires_grad],
        lr=config.head_learning_rate, weight_decay=config.weight_decay,
    )  # fmt: skip
    aside = views.aside
    phase = Phase(
        "head", layer, optimizer, stretch.epochs, steps, over_views(views.train, config, stretch.number),
        lambda: _validate(job, layer, views.held),
        None if aside is None else lambda: _validate(job, layer, aside)[0],
        rules=Rules.of(config, job.holding), targets=job.targets, on_step=job.callbacks.on_step, say=job.say,
    )  # fmt: skip
    shape = list(views.train[0].values.shape[1:])
    job.say(f"training the head on frozen features {shape}, {stretch.epochs} epochs")
    material.keeper.train(phase)


def stages(job: Job, material: Material, stretch: Stretch) -> None:
    """Train unfrozen stages with the head: on kept features, or on pictures augmented anew.

    What is read enters at the deepest cut of the recipe; what lies between that and this phase's own
    stays frozen.
    """
    config, module, cut, kept = job.config, job.module, job.cut, material.at_cut
    types = types_for(module, job.chosen.preprocessing.size)
    own_cut = choose_cut(module, types, job.head, stretch.unfreeze)
    trained, total = freeze_below(module, own_cut, config.train_batch_norm)
    suffix = module.part([cut], module.graph.outputs)
    merge = None
    if config.tune == "affine":
        suffix, merge = _with_affine(suffix, job.head)
        trained = sum(p.size for p in suffix.parameters() if p.requires_grad)
    suffix = suffix.fused().to(job.device)
    say_cut = "everything" if own_cut.node is None else f"what follows {own_cut.name!r}"
    job.say(f"training {say_cut}: {trained:,} of {total:,} parameters, {stretch.epochs} epochs")
    loader, aside = None, None
    if kept is not None:
        batches = over_views(kept.train, config, stretch.number, classes_if_mixed(job))
        held, aside = kept.held, kept.aside
        steps = -(-len(kept.train[0].labels) // config.batch_size)
    else:
        balance = config.sampler == "balanced"
        loader = job.loader(job.train, True, shuffle=True, batch=config.batch_size, balance=balance)
        batches, steps = anew(job, cut, loader, stretch), len(loader)
        held = features_at(job, cut, job.folder.validation, "held out")
        if job.aside:
            aside = features_at(job, cut, job.aside, "set aside")
    depth = depths(module, types, job.head)
    optimizer = AdamW(
        _parameter_groups(suffix, job.head, config, depth),
        lr=config.learning_rate, weight_decay=config.weight_decay,
    )  # fmt: skip
    anchors = material.keeper.anchors
    if config.l2_sp and merge is not None:  # scales begin at 1, shifts at 0
        anchors = {
            p: p.to(CPU).numpy().copy(order="K") for g in optimizer.param_groups[:-1] for p in g["params"]
        }
    again = Recomputed(suffix, types[cut]) if job.holding.recompute else None
    phase = Phase(
        names(job.stretches)[stretch.number], suffix, optimizer, stretch.epochs, steps, batches,
        lambda: _validate(job, suffix, held),
        None if aside is None else lambda: _validate(job, suffix, aside)[0],
        rules=Rules.of(config, job.holding), anchors=anchors, targets=job.targets,
        forward=again, on_step=job.callbacks.on_step, say=job.say,
    )  # fmt: skip
    if module.origin is not None:
        module.origin.forget()  # the file's pages: what is trained was copied out of them
    limit = memory.limit()
    if again is not None:
        memory.set_limit(min(limit, int(WAITING * config.batch_size * again.bytes)))
    try:
        material.keeper.train(phase)
    finally:
        memory.set_limit(limit)
        if merge is not None:  # also where training had to stop: the best so far is written
            merge()
    if loader is not None:
        job.note_skipped(loader)


PHASES: dict[str, Callable[[Job, Material, Stretch], None]] = {
    "probe": probe, "head": head, "stages": stages,
}  # fmt: skip


def run_phase(stretch: Stretch, job: Job, material: Material) -> None:
    """One phase; when it has to stop, the best weights so far are written before the error goes on."""
    try:
        PHASES[stretch.phase](job, material, stretch)
        material.keeper.finish_phase()
    except TrainingError as error:
        best = job.run.path / "best.onnx"
        export(job, best)
        raise TrainingError(f"{error}. They are in {best}") from None


def _with_affine(suffix: GraphModule, head: Head) -> tuple[GraphModule, Callable[[], None]]:
    """``suffix`` with a scale and a shift per channel, which alone are trained, with the head."""
    for value in suffix.graph.arrays:
        if value not in (head.weight, head.bias):
            suffix.leaf(value).requires_grad = False
    return add_channel_affine(suffix)


def _validate(job: Job, part: GraphModule, held: Features) -> tuple[float, float]:
    return job.targets.judge(in_batches(part.compile(), held.values, job.holding.pictures), held.labels)


def _parameter_groups(
    suffix: GraphModule, head: Head, config: FinetuneConfig, depth: Mapping[Value, int]
) -> list[dict[str, Any]]:
    """The last stage at the learning rate, each one before it at a part of that, the head at three times."""
    own: set[Value | None] = {head.weight, head.bias}
    by_depth: dict[int, list[Any]] = {}
    for value in suffix.graph.arrays:
        if value not in own and suffix.leaf(value).requires_grad:
            by_depth.setdefault(depth.get(value, 0), []).append(suffix.leaf(value))
    decay = {"weight_decay": 0.0} if config.l2_sp else {}
    groups: list[dict[str, Any]] = [
        {"params": params, "lr": config.learning_rate * config.stage_decay**n, **decay}
        for n, params in sorted(by_depth.items())
    ]
    new = [suffix.leaf(v) for v in suffix.graph.arrays if v in own]
    return [*groups, {"params": new, "lr": 3 * config.learning_rate}]
