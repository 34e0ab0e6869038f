"""What training reads: kept features of the frozen part, or pictures that are augmented anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from nnlite import memory
from nnlite.data import Loader, Sample, cutmix, generator, mixup
from nnlite.data.mixing import one_hot
from nnlite.data.prefetch import on_device
from nnlite.data.random import MIX, balanced_order
from nnlite.graph import node_macs
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.feature_file import Features
from nnlite.transfer.features import Choice, choose_cache, in_batches, open_store
from nnlite.transfer.inference import run_over
from nnlite.transfer.job import Job
from nnlite.transfer.recipes import Stretch
from nnlite.transfer.stages import types_for
from nnlite.transfer.training import Batches

Batch = tuple[Array, Array]


@dataclass(frozen=True)
class Views:
    """Features of every picture at one value of the network: training views, the first unaugmented."""

    at: Value
    train: list[Features]
    held: Features
    aside: Features | None = None
    """Of the pictures that only say when to stop."""

    @property
    def plain(self) -> Features:
        """All training pictures, unaugmented, those that were set aside too."""
        if self.aside is None:
            return self.train[0]
        both = zip(self.train[0], self.aside, strict=True)
        return Features(*(np.concatenate(pair) for pair in both))


def compute_views(job: Job) -> tuple[Views, Views | None]:
    """Features at the head and, where they are kept for training the stages, at the cut."""
    module, head, config = job.module, job.head, job.config
    kinds = {stretch.phase for stretch in job.stretches}
    stages = "stages" in kinds
    kept = job.cut if job.cut.node is not None and stages else None
    mode = "memory"
    if kept is not None:
        choice = _choose_cache(job, kept) if job.cache_mode is None else Choice(job.cache_mode, "")
        mode, kept = choice.mode, None if choice.mode == "off" else kept
        if choice.reason:
            job.say(choice.reason)
        job.cache_mode = choice.mode
    elif config.cache == "disk":
        mode = "disk"
    at = head.features if kept is None else kept
    frozen = job.frozen_plan(at)
    if mode != "disk":  # whose files are named after the weights
        job.settle(frozen)
    store = open_store(config, mode, (job.chosen.preprocessing.planes, *job.chosen.preprocessing.size))
    plain, held_out = job.loader(job.train, False), job.loader(job.folder.validation, False)
    augmented = job.loader(job.train, True)
    show = job.callbacks.on_batches
    train = [store.compute(frozen, plain, 0, "features", show)]
    held = store.compute(frozen, held_out, 0, "features (held out)", show)
    aside = None
    if job.aside:
        set_aside = job.loader(job.aside, False)
        aside = store.compute(frozen, set_aside, 0, "features (set aside)", show)
        job.note_skipped(set_aside)
    others = range(1, config.views if "head" in kinds or stages else 1)
    train += store.compute_epochs(frozen, augmented, others, "features", show)
    for loader in (plain, held_out, augmented):
        job.note_skipped(loader)
    if store.found:
        sets = len(train) + 1 + bool(aside)
        job.say(f"{store.found} of {sets} sets of features were there from an earlier run")
    del frozen, store
    memory.release()  # the frozen part's block: nothing that follows is of its size
    views = Views(at, train, held, aside)
    if kept is None:
        return views, None
    rest = module.part([at], [head.features]).compile()

    def to_head(features: Features) -> Features:
        return features._replace(values=in_batches(rest, features.values, job.holding.pictures))

    at_head = Views(head.features, [to_head(one) for one in train], to_head(held), aside and to_head(aside))
    return at_head, views


def _choose_cache(job: Job, cut: Value) -> Choice:
    module, types = job.module, types_for(job.module, job.chosen.preprocessing.size)
    before = set(module.graph.between(module.graph.inputs, [cut]).nodes)
    macs = [0, 0]
    for node in module.graph.nodes:
        macs[node not in before] += node_macs(node, types)
    pictures = len(job.train) + -(-len(job.folder.validation) // job.config.views)
    return choose_cache(job.config, pictures, types[cut].shape[1:], (macs[0], macs[1]))


def classes_if_mixed(job: Job) -> int:
    """How many classes labels of mixed pictures have; 0 where pictures are not mixed."""
    return 0 if job.config.mix == "none" else len(job.folder.classes)


def _mixed(values: Array, labels: Array, config: FinetuneConfig, classes: int, at: tuple[int, int]) -> Batch:
    """One batch as ``config.mix`` mixes it; ``at`` is (epoch, place of the batch in it)."""
    if not classes:
        return values, labels
    mix = {"mixup": mixup, "cutmix": cutmix}[config.mix]
    return mix(values, one_hot(labels, classes), generator(config.seed, *at, MIX))


def over_views(
    views: list[Features], config: FinetuneConfig, phase: int, classes: int = 0
) -> Callable[[int, int], Batches]:
    """Epochs of shuffled batches, each epoch over the next view; mixed where ``classes`` is not 0."""

    def batches(epoch: int, first: int) -> Iterator[tuple[Array, Array]]:
        values, labels, _ = views[epoch % len(views)]
        rng = np.random.Generator(np.random.Philox([config.seed, phase, epoch]))
        balanced = config.sampler == "balanced"
        order = balanced_order(rng, labels) if balanced else rng.permutation(len(labels))
        for begin in range(first * config.batch_size, len(order), config.batch_size):
            chosen = np.sort(order[begin : begin + config.batch_size])
            at = epoch, begin // config.batch_size
            yield _mixed(_as_float32(values[chosen]), labels[chosen], config, classes, at)

    return batches


def _as_float32(values: Array) -> Array:
    return values.astype(np.float32, copy=False)


def _frozen_part(job: Job, cut: Value) -> Callable[[Array], Array]:
    """What is computed before the cut; nothing where everything is trained."""
    if cut.node is None:
        return lambda images: images
    return job.frozen_plan(cut)


def anew(job: Job, cut: Value, loader: Loader, stretch: Stretch) -> Callable[[int, int], Batches]:
    """Epochs of pictures that no epoch saw before, as they leave the frozen part."""
    prefix, views, classes = _frozen_part(job, cut), job.config.views, classes_if_mixed(job)
    views += sum(s.epochs for s in job.stretches if s.phase == "stages" and s.number < stretch.number)

    def batches(epoch: int, first: int) -> Iterator[tuple[Array, Array]]:
        # Epoch numbers go on after the views, so that no augmented picture is seen twice. A batch whose
        # pictures are all skipped is none: only by going through them is it known which one comes next.
        left_out = first if loader.on_bad_image == "fail" else 0
        passing = islice(loader.epoch(views + epoch, left_out), first - left_out, None)
        what = f"epoch {epoch + 1}/{stretch.epochs}"
        shown = job.callbacks.on_batches(passing, what, len(loader) - first)
        # Pictures are mixed as they are, before anything is computed of them.
        mixed = (
            _mixed(images, labels, job.config, classes, (views + epoch, number))
            for number, (images, labels, _) in enumerate(shown, first)
        )
        for images, labels in on_device(mixed, job.device):
            yield prefix(images), labels

    return batches


def features_at(job: Job, cut: Value, samples: Sequence[Sample], what: str) -> Features:
    """Pictures as they enter the unfrozen part; the frozen part needs to see them only once."""
    loader = job.loader(samples, False)
    return Features(*run_over(_frozen_part(job, cut), loader, 0, what, job.callbacks.on_batches))
