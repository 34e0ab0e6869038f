"""The phases of training that a recipe is made of: each is one function, found by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nnlite.errors import TrainingError
from nnlite.graph import GraphModule, add_channel_affine
from nnlite.graph.head import Head
from nnlite.node import Value
from nnlite.optim import AdamW
from nnlite.transfer.checkpoint import Keeper
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.feature_file import Features
from nnlite.transfer.features import in_batches
from nnlite.transfer.job import EVALUATION_BATCH, Job
from nnlite.transfer.outcome import export
from nnlite.transfer.stages import freeze_below
from nnlite.transfer.training import Phase, Rules
from nnlite.transfer.views import Views, anew, classes_if_mixed, held_out_at, over_views


@dataclass(frozen=True)
class Material:
    """What all phases of a run learn from, and who runs them."""

    at_head: Views
    at_cut: Views | None
    """None where features at the cut are not kept: pictures are then augmented anew."""
    keeper: Keeper


def head(job: Job, material: Material) -> None:
    """Train the head on the frozen backbone's features."""
    config, views = job.config, material.at_head
    freeze_below(job.module, views.at)
    layer = job.module.part([views.at], job.module.graph.outputs)
    steps = -(-len(views.train[0].labels) // config.batch_size)
    optimizer = AdamW(
        [p for p in layer.parameters() if p.requires_grad],
        lr=config.head_learning_rate, weight_decay=config.weight_decay,
    )  # fmt: skip
    phase = Phase(
        "head", layer, optimizer, config.head_epochs, steps, over_views(views.train, config, 0),
        lambda: _validate(job, layer, views.held), rules=_rules(config), targets=job.targets,
        on_step=job.callbacks.on_step,
    )  # fmt: skip
    shape = list(views.train[0].values.shape[1:])
    job.say(f"training the head on frozen features {shape}, {config.head_epochs} epochs")
    material.keeper.train(phase)


def stages(job: Job, material: Material) -> None:
    """Train the unfrozen stages with the head: on kept features, or on pictures augmented anew."""
    config, module, cut, kept = job.config, job.module, job.cut, material.at_cut
    trained, total = freeze_below(module, cut)
    suffix = module.part([cut], module.graph.outputs)
    merge = None
    if config.tune == "affine":
        suffix, merge = _with_affine(suffix, job.head)
        trained = sum(p.size for p in suffix.parameters() if p.requires_grad)
    suffix = suffix.fused()
    say_cut = "everything" if cut.node is None else f"what follows {cut.name!r}"
    job.say(f"training {say_cut}: {trained:,} of {total:,} parameters, {config.epochs} epochs")
    loader = None
    if kept is not None:
        batches, held = over_views(kept.train, config, 1, classes_if_mixed(job)), kept.held
        steps = -(-len(kept.train[0].labels) // config.batch_size)
    else:
        loader = job.loader(
            job.folder.train,
            True,
            shuffle=True,
            batch=config.batch_size,
            balance=config.sampler == "balanced",
        )
        batches, held, steps = anew(job, cut, loader, config.epochs), held_out_at(job, cut), len(loader)
    optimizer = AdamW(
        _parameter_groups(suffix, job.head, config), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    phase = Phase(
        "stages", suffix, optimizer, config.epochs, steps, batches,
        lambda: _validate(job, suffix, held), rules=_rules(config), targets=job.targets,
        on_step=job.callbacks.on_step,
    )  # fmt: skip
    try:
        material.keeper.train(phase)
    finally:
        if merge is not None:  # also where training had to stop: the best so far is written
            merge()
    if loader is not None:
        job.note_skipped(loader)


PHASES: dict[str, Callable[[Job, Material], None]] = {"head": head, "stages": stages}


def run_phase(name: str, job: Job, material: Material) -> None:
    """One phase; when it has to stop, the best weights so far are written before the error goes on."""
    try:
        PHASES[name](job, material)
        material.keeper.finish_phase()
    except TrainingError as error:
        best = job.run.path / "best.onnx"
        export(job, best)
        raise TrainingError(f"{error}. They are in {best}") from None


def _rules(config: FinetuneConfig) -> Rules:
    return Rules(label_smoothing=config.label_smoothing)


def _with_affine(suffix: GraphModule, head: Head) -> tuple[GraphModule, Callable[[], None]]:
    """``suffix`` with a scale and a shift per channel, which alone are trained, with the head."""
    for value in suffix.graph.arrays:
        if value not in (head.weight, head.bias):
            suffix.leaf(value).requires_grad = False
    return add_channel_affine(suffix)


def _validate(job: Job, part: GraphModule, held: Features) -> tuple[float, float]:
    return job.targets.judge(in_batches(part.compile(), held.values, EVALUATION_BATCH), held.labels)


def _parameter_groups(suffix: GraphModule, head: Head, config: FinetuneConfig) -> list[dict[str, Any]]:
    """The pretrained layers at the learning rate, the new head at three times of it."""
    own: set[Value | None] = {head.weight, head.bias}
    pretrained = [
        suffix.leaf(v) for v in suffix.graph.arrays if v not in own and suffix.leaf(v).requires_grad
    ]
    new = [suffix.leaf(v) for v in suffix.graph.arrays if v in own]
    groups = [{"params": new, "lr": 3 * config.learning_rate}]
    return [{"params": pretrained}, *groups] if pretrained else groups
