"""The main job: a model file and a folder of pictures in, a tuned model file and an honest evaluation out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import memory, metrics, onnx, random
from nnlite.data import ImageFolder, Loader
from nnlite.errors import ModelError, TrainingError
from nnlite.graph import GraphModule, add_channel_affine, node_macs
from nnlite.graph.head import Head, replace_head
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.optim import AdamW
from nnlite.transfer import baselines
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.evaluate import Classifier
from nnlite.transfer.feature_file import Features
from nnlite.transfer.features import Choice, choose_cache, in_batches, open_store
from nnlite.transfer.inference import Progress, run_over, silent, softmax
from nnlite.transfer.metadata import Chosen, choose_preprocessing, to_metadata
from nnlite.transfer.run_folder import RunFolder, check_writable
from nnlite.transfer.stages import choose_cut, freeze_below, types_for
from nnlite.transfer.training import Batches, EpochRecord, Phase

EVALUATION_BATCH = 8
"""Pictures at a time where nothing is trained: fewer are slower, more need more memory."""


@dataclass
class FinetuneResult:
    """What a run produced."""

    metrics: dict[str, Any]
    history: list[EpochRecord]
    out: Path
    run_dir: Path


@dataclass
class _Job:
    """The state of one run, passed from step to step."""

    config: FinetuneConfig
    folder: ImageFolder
    module: GraphModule
    head: Head
    cut: Value
    """Where the frozen part ends in the second phase."""
    chosen: Chosen
    run: RunFolder
    progress: Progress
    say: Callable[[str], None]
    history: list[EpochRecord] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def loader(
        self, samples: Any, augment: bool, shuffle: bool = False, batch: int = EVALUATION_BATCH
    ) -> Loader:
        """Batches of ``samples``; decoded pictures are kept only where they will be seen again."""
        preprocessing, config = self.chosen.preprocessing, self.config
        transform = preprocessing.training(flip=config.flip) if augment else preprocessing.evaluation()
        return Loader(
            samples, transform, batch, shuffle=shuffle, seed=config.seed, workers=config.workers,
            on_bad_image=config.on_bad_image, at_least=preprocessing.decode_hint(),
            cache_bytes=256 << 20 if augment else 0,
        )  # fmt: skip

    def record(self, record: EpochRecord) -> None:
        self.history.append(record)
        self.run.append_history(record.to_dict())

    def note_skipped(self, loader: Loader) -> None:
        self.skipped.update({str(s.path): s.reason for s in loader.skipped})

    def let_go(self) -> None:
        """Give the network's memory back: what follows reads the file that was written."""
        del self.module, self.head, self.cut
        memory.release()


def finetune(
    config: FinetuneConfig, *, progress: Progress = silent, say: Callable[[str], None] = lambda text: None
) -> FinetuneResult:
    """Tune ``config.model`` on ``config.data`` and write the result.

    ``progress`` sees every batch, ``say`` gets a line for every decision. Raises NnliteError for
    anything a user can mend; what was finished until then lies in the run folder.
    """
    start = time.perf_counter()
    random.manual_seed(config.seed)
    job = _prepare(config, progress, say)
    at_head, at_cut = _features(job)
    _train_head(job, at_head)
    if config.unfreeze != "none" and config.epochs:
        _guarded(job, lambda: _train_stages(job, at_cut))
    tuned_seconds = time.perf_counter() - start
    out = Path(config.out)
    _export(job, out)
    job.let_go()
    report = _evaluate(job, out)
    report["seconds"] = {"tuning": tuned_seconds}
    if config.baselines:
        report["baselines"] = _baselines(job, at_head)
    report["seconds"]["total"] = time.perf_counter() - start
    report["skipped"] = [{"path": path, "reason": reason} for path, reason in sorted(job.skipped.items())]
    job.run.write_json("metrics.json", report)
    job.run.copy(out, "tuned.onnx")
    return FinetuneResult(report, job.history, out, job.run.path)


# ------------------------------------------------------------------------------------ preparing


def _prepare(config: FinetuneConfig, progress: Progress, say: Callable[[str], None]) -> _Job:
    out = Path(config.out)
    check_writable(out)  # a long run must not end with a path that cannot be written
    original = onnx.load(config.model)
    folder = ImageFolder.open(config.data, validation=config.validation, seed=config.seed)
    say(folder.describe())
    typical = _typical_side(folder) if config.size is None else None
    chosen = choose_preprocessing(
        original, config.model, name=config.preprocessing, size=config.size, typical=typical
    )
    h, w = chosen.preprocessing.size
    say(f"input {h} x {w} pixels; preprocessing {chosen.reason}")
    module, head = replace_head(original, len(folder.classes), config.head)
    module.input_sizes = ((None, 3, None, None),)
    # A size that the model cannot take, or stages that it does not have, are found out here.
    types = types_for(module, (h, w))
    cut = choose_cut(module, types, head, config.unfreeze)
    logits = types[module.graph.outputs[0]].shape
    if logits != (1, len(folder.classes)):
        raise ModelError(f"with the new head the model gives {list(logits)} for one picture, not [1,classes]")
    run = RunFolder.create(config.run_dir, out)
    run.write_json(
        "config.json", config.to_dict() | {"resolved_preprocessing": chosen.preprocessing.to_dict()}
    )
    say(f"new head {head.node.name!r} with {len(folder.classes)} classes")
    return _Job(config, folder, module, head, cut, chosen, run, progress, say)


def _typical_side(folder: ImageFolder) -> int:
    """Median of the shorter sides of some of the pictures, from their headers alone."""
    from PIL import Image

    sides = []
    for sample in folder.train[:: max(1, len(folder.train) // 64)]:
        try:
            with Image.open(sample.path) as picture:
                sides.append(min(picture.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # a bad picture is reported where it is decoded
    return int(np.median(sides)) if sides else 224


# ------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class _Views:
    """Features of every picture at one value of the network: training views, the first unaugmented."""

    at: Value
    train: list[Features]
    held: Features


def _features(job: _Job) -> tuple[_Views, _Views | None]:
    """Features at the head and, where they are kept for the unfrozen stages, at the cut."""
    module, head, config = job.module, job.head, job.config
    kept = job.cut if job.cut.node is not None and config.unfreeze != "none" and config.epochs else None
    mode = "memory"
    if kept is not None:
        choice = _choose_cache(job, kept)
        mode, kept = choice.mode, None if choice.mode == "off" else kept
        job.say(choice.reason)
    elif config.cache == "disk":
        mode = "disk"
    at = head.features if kept is None else kept
    frozen = module.part(module.graph.inputs, [at]).compile()
    store = open_store(config, mode, (3, *job.chosen.preprocessing.size))
    plain, held_out = job.loader(job.folder.train, False), job.loader(job.folder.validation, False)
    augmented = job.loader(job.folder.train, True)
    train = [store.compute(frozen, plain, 0, "features", job.progress)]
    held = store.compute(frozen, held_out, 0, "features (held out)", job.progress)
    for view in range(1, config.views):
        what = f"features, view {view + 1}/{config.views}"
        train.append(store.compute(frozen, augmented, view, what, job.progress))
    for loader in (plain, held_out, augmented):
        job.note_skipped(loader)
    if store.found:
        job.say(f"{store.found} of {config.views + 1} sets of features were there from an earlier run")
    memory.release()  # the frozen part's block: nothing that follows is of its size
    views = _Views(at, train, held)
    if kept is None:
        return views, None
    rest = module.part([at], [head.features]).compile()

    def to_head(features: Features) -> Features:
        return features._replace(values=in_batches(rest, features.values, EVALUATION_BATCH))

    return _Views(head.features, [to_head(one) for one in train], to_head(held)), views


def _choose_cache(job: _Job, cut: Value) -> Choice:
    module, types = job.module, types_for(job.module, job.chosen.preprocessing.size)
    before = set(module.graph.between(module.graph.inputs, [cut]).nodes)
    macs = [0, 0]
    for node in module.graph.nodes:
        macs[node not in before] += node_macs(node, types)
    pictures = len(job.folder.train) + -(-len(job.folder.validation) // job.config.views)
    return choose_cache(job.config, pictures, types[cut].shape[1:], (macs[0], macs[1]))


def _over_views(views: list[Features], config: FinetuneConfig, phase: int) -> Callable[[int], Batches]:
    """Epochs of shuffled batches, each epoch over the next view."""

    def batches(epoch: int) -> Iterator[tuple[Array, Array]]:
        values, labels, _ = views[epoch % len(views)]
        order = np.random.Generator(np.random.Philox([config.seed, phase, epoch])).permutation(len(labels))
        for begin in range(0, len(order), config.batch_size):
            chosen = np.sort(order[begin : begin + config.batch_size])
            yield _as_float32(values[chosen]), labels[chosen]

    return batches


def _as_float32(values: Array) -> Array:
    return values.astype(np.float32, copy=False)


def _train_head(job: _Job, views: _Views) -> None:
    """Train the head on the frozen backbone's features."""
    config = job.config
    freeze_below(job.module, views.at)
    layer = job.module.part([views.at], job.module.graph.outputs)
    steps = -(-len(views.train[0].labels) // config.batch_size)
    optimizer = AdamW(
        [p for p in layer.parameters() if p.requires_grad],
        lr=config.head_learning_rate, weight_decay=config.weight_decay,
    )  # fmt: skip
    phase = Phase(
        "head", layer, optimizer, config.head_epochs, steps, _over_views(views.train, config, 0),
        lambda: _validate(layer, views.held), config.label_smoothing,
    )  # fmt: skip
    shape = list(views.train[0].values.shape[1:])
    job.say(f"training the head on frozen features {shape}, {config.head_epochs} epochs")
    _guarded(job, lambda: phase.run(job.record))


def _train_stages(job: _Job, kept: _Views | None) -> None:
    """Train the unfrozen stages with the head: on kept features, or on pictures augmented anew."""
    config, module, cut = job.config, job.module, job.cut
    trained, total = freeze_below(module, cut)
    suffix = module.part([cut], module.graph.outputs)
    merge = None
    if config.tune == "affine":
        suffix, merge = _with_affine(suffix, job.head)
        trained = sum(p.size for p in suffix.parameters() if p.requires_grad)
    suffix = suffix.fused()
    say_cut = "everything" if cut.node is None else f"what follows {cut.name!r}"
    job.say(f"training {say_cut}: {trained:,} of {total:,} parameters, {config.epochs} epochs")
    loader: Loader | None = None
    if kept is not None:
        batches, held = _over_views(kept.train, config, 1), kept.held
        steps = -(-len(kept.train[0].labels) // config.batch_size)
    else:
        loader = job.loader(job.folder.train, True, shuffle=True, batch=config.batch_size)
        batches, held, steps = _anew(job, loader), _held_out_at_cut(job), len(loader)
    optimizer = AdamW(
        _parameter_groups(suffix, job.head, config), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    phase = Phase(
        "stages", suffix, optimizer, config.epochs, steps, batches,
        lambda: _validate(suffix, held), config.label_smoothing,
    )  # fmt: skip
    try:
        phase.run(job.record)
    finally:
        if merge is not None:  # also where training had to stop: the best so far is written
            merge()
    if loader is not None:
        job.note_skipped(loader)


def _with_affine(suffix: GraphModule, head: Head) -> tuple[GraphModule, Callable[[], None]]:
    """``suffix`` with a scale and a shift per channel, which alone are trained, with the head."""
    for value in suffix.graph.arrays:
        if value not in (head.weight, head.bias):
            suffix.leaf(value).requires_grad = False
    return add_channel_affine(suffix)


def _frozen_part(job: _Job) -> Callable[[Array], Array]:
    """What is computed before the cut; nothing where everything is trained."""
    if job.cut.node is None:
        return lambda images: images
    return job.module.part(job.module.graph.inputs, [job.cut]).compile()


def _anew(job: _Job, loader: Loader) -> Callable[[int], Batches]:
    """Epochs of pictures that no epoch saw before, as they leave the frozen part."""
    prefix, config = _frozen_part(job), job.config

    def batches(epoch: int) -> Iterator[tuple[Array, Array]]:
        # Epoch numbers go on after the views, so that no augmented picture is seen twice.
        number = config.views + epoch
        shown = job.progress(loader.epoch(number), f"epoch {epoch + 1}/{config.epochs}", len(loader))
        for batch in shown:
            yield prefix(batch.images), batch.labels

    return batches


def _held_out_at_cut(job: _Job) -> Features:
    """Held-out pictures as they enter the unfrozen part; the frozen part needs to see them only once."""
    loader = job.loader(job.folder.validation, False)
    return Features(*run_over(_frozen_part(job), loader, 0, "held out", job.progress))


def _validate(part: GraphModule, held: Features) -> tuple[float, float]:
    logits = in_batches(part.compile(), held.values, EVALUATION_BATCH)
    return _loss_and_accuracy(logits, held.labels)


def _parameter_groups(suffix: GraphModule, head: Head, config: FinetuneConfig) -> list[dict[str, Any]]:
    """The pretrained layers at the learning rate, the new head at three times of it."""
    own: set[Value | None] = {head.weight, head.bias}
    pretrained = [
        suffix.leaf(v) for v in suffix.graph.arrays if v not in own and suffix.leaf(v).requires_grad
    ]
    new = [suffix.leaf(v) for v in suffix.graph.arrays if v in own]
    groups = [{"params": new, "lr": 3 * config.learning_rate}]
    return [{"params": pretrained}, *groups] if pretrained else groups


def _loss_and_accuracy(logits: Array, labels: Array) -> tuple[float, float]:
    return metrics.log_loss(labels, softmax(logits)), float((logits.argmax(1) == labels).mean())


def _guarded(job: _Job, train: Callable[[], None]) -> None:
    """When training has to stop, the best weights so far are written before the error goes on."""
    try:
        train()
    except TrainingError as error:
        best = job.run.path / "best.onnx"
        _export(job, best)
        raise TrainingError(f"{error}. They are in {best}") from None


# ------------------------------------------------------------------------------------ finishing


def _export(job: _Job, path: Path) -> None:
    preprocessing = job.chosen.preprocessing
    declared = job.module.origin.outline.graph.input
    name = job.module.inputs[0]
    sizes = next(onnx.declared_sizes(entry) for entry in declared if entry.name == name)
    changed = sizes[2:] not in ((None, None), preprocessing.size)
    onnx.save(
        job.module, path,
        metadata=to_metadata(preprocessing, job.folder.classes),
        input_sizes=[["N", 3, *preprocessing.size]] if changed else None, fold=job.config.fold,
    )  # fmt: skip


def _evaluate(job: _Job, path: Path) -> dict[str, Any]:
    """Metrics of the file that was written, read anew: what is reported is what was exported."""
    classifier = Classifier.open(path)
    loader = job.loader(job.folder.validation, False)
    scores, labels, indices = run_over(classifier.scores, loader, 0, "evaluate", job.progress)
    report = metrics.report(labels, scores, job.folder.classes)
    report["model"], report["data"] = job.config.model, job.config.data
    report["train_pictures"] = len(job.folder.train)
    report["split"] = job.folder.split
    report["preprocessing"] = job.chosen.preprocessing.to_dict() | {"from": job.chosen.reason}
    names = [str(job.folder.validation[i].path) for i in indices]
    report["predictions"] = [
        {"picture": name, "label": int(label), "predicted": int(s.argmax()), "probability": float(s.max())}
        for name, label, s in zip(names, labels, scores, strict=True)
    ]
    return report


def _baselines(job: _Job, features: _Views) -> dict[str, Any]:
    config, classes = job.config, len(job.folder.classes)
    train, held = features.train[0][:2], features.held[:2]
    job.say("baselines on the same split")
    result: dict[str, Any] = {"majority": baselines.majority(train[1], held[1])}
    result["probe"] = baselines.probe(*train, *held, classes)
    presentations = sum(record.pictures for record in job.history)
    result["scratch"] = baselines.from_scratch(
        job.folder, presentations, batch_size=config.batch_size, seed=config.seed, workers=config.workers,
        on_bad_image=config.on_bad_image, progress=job.progress, on_epoch=job.record,
    )  # fmt: skip
    return result
