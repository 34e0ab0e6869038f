"""The state of one run, and how it begins: model and data read, head replaced, run folder made."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np

from nnlite import device, memory, onnx
from nnlite.data import Dataset, Loader, Sample, open_dataset
from nnlite.data.random import SPLIT, generator, permutation
from nnlite.device import CPU
from nnlite.errors import ConfigError, ModelError
from nnlite.graph import GraphModule
from nnlite.graph.head import Head, replace_head
from nnlite.graph.ir import Types
from nnlite.graph.plan import Plan
from nnlite.graph.stem import adapt_stem
from nnlite.node import Value
from nnlite.ops import ArrayType
from nnlite.transfer.callbacks import Callbacks
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.memory_plan import (
    Holding,
    MemoryPlan,
    Needs,
    kept_bytes,
    leaf_bytes,
    live_bytes,
    range_bytes,
    result_bytes,
)
from nnlite.transfer.memory_plan import choose as memory_plan_for
from nnlite.transfer.metadata import PREPROCESSING_KEY, Chosen, choose_preprocessing, metadata_of
from nnlite.transfer.normalisation import doubt, some_pictures
from nnlite.transfer.precision import Frozen
from nnlite.transfer.provenance import Provenance
from nnlite.transfer.recipes import Recipe, Situation, Stretch, choose_recipe
from nnlite.transfer.run_folder import RunFolder, check_writable
from nnlite.transfer.segments import segment_ends
from nnlite.transfer.stages import choose_cut, stage_cuts, types_for
from nnlite.transfer.targets import Targets, targets_for
from nnlite.transfer.training import EpochRecord

STEM = {
    1: "1 channel: the first convolution's weights are summed over the colours",
    4: "4 channels: three quarters of the first convolution's weights, and of their mean for the fourth",
}
"""What was done to a network that took three channels."""


@dataclass
class Job:
    """One run, passed from step to step."""

    config: FinetuneConfig
    folder: Dataset
    module: GraphModule
    head: Head
    cut: Value
    """Where the frozen part ends when the most stages are trained that the recipe has."""
    recipe: Recipe
    stretches: list[Stretch]
    chosen: Chosen
    targets: Targets
    run: RunFolder
    callbacks: Callbacks
    provenance: Provenance
    """Hashes of what the run began with."""
    memory_plan: MemoryPlan | None = None
    """What was decided for a budget of memory."""
    cache_mode: str | None = None
    """Where features are kept, once that is decided; a run that goes on must not decide otherwise."""
    device: str = CPU
    """Where the network computes, by its full name."""
    train: tuple[Sample, ...] = ()
    """What is learned from."""
    aside: tuple[Sample, ...] = ()
    """Training pictures that only say when to stop, and how sure to be."""
    temperature: float = 1.0
    """What the logits are divided by in the file that is written."""
    began: float = field(default_factory=time.perf_counter)
    history: list[EpochRecord] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.holding = Holding() if self.memory_plan is None else self.memory_plan.holding
        self.frozen = Frozen(self.config.frozen_precision, self.say)

    def frozen_plan(self, at: Value) -> Plan:
        """What is computed before ``at``, compiled in the precision of the frozen part."""
        part, rest = (
            self.module.part(self.module.graph.inputs, [at]),
            self.module.part([at], [self.head.features]),
        )
        loader = self.loader(self.folder.train, False)

        def settle(plan: Plan) -> None:
            self.module.forget()
            self.settle(plan)

        plan = self.frozen.compile(part, rest, loader, len(self.folder.classes), self.config.seed, settle)
        self.module.forget()
        return plan

    def settle(self, plan: Plan) -> None:
        """Let ``plan`` keep of its weights what batches of pictures that pass through need, no more."""
        one = (self.chosen.preprocessing.planes, *self.chosen.preprocessing.size)
        counts = range(1, self.holding.pictures + 1)
        plan.settle(*([ArrayType((count, *one), np.dtype(np.float32))] for count in counts))
        memory.release()  # what it was compiled from

    def say(self, text: str) -> None:
        """A line about a decision."""
        self.callbacks.on_message(text)

    def loader(
        self,
        samples: Sequence[Sample],
        augment: bool,
        shuffle: bool = False,
        batch: int | None = None,
        balance: bool = False,
    ) -> Loader:
        """Batches of ``samples``; decoded pictures are kept only where they will be seen again."""
        preprocessing, config = self.chosen.preprocessing, self.config
        transform = (
            preprocessing.training(config.augment, flip=config.flip)
            if augment
            else preprocessing.evaluation()
        )
        return Loader(
            samples, transform, batch or self.holding.pictures, shuffle=shuffle, seed=config.seed,
            workers=config.workers, on_bad_image=config.on_bad_image, at_least=preprocessing.decode_hint(),
            cache_bytes=self.holding.decoded if augment else 0, balance=balance,
            channels=preprocessing.planes,
        )  # fmt: skip

    def record(self, record: EpochRecord) -> None:
        """Write a line of the history."""
        self.history.append(record)
        self.run.append_history(record.to_dict())
        self.callbacks.on_epoch(record)

    def note_skipped(self, loader: Loader) -> None:
        """Remember the pictures that could not be read."""
        self.skipped.update({str(s.path): s.reason for s in loader.skipped})

    def let_go(self) -> None:
        """Give the network's memory back: what follows reads the file that was written."""
        del self.module, self.head, self.cut
        memory.release()


def prepare(config: FinetuneConfig, callbacks: Callbacks, run: RunFolder | None = None) -> Job:
    """Read everything and check everything that can be checked before the first picture is decoded.

    ``run``: the folder of a run to go on with, else a new one is made.
    """
    out, where = Path(config.out), device.use(config.device)
    if config.memory is not None:
        if memory.resident() is None:
            raise ConfigError(f"memory={config.memory!r} needs Linux, which counts what is resident")
        memory.frugal_malloc()
    check_writable(out)  # a long run must not end with a path that cannot be written
    original = onnx.load(config.model)
    split_seed = config.seed if config.split_seed is None else config.split_seed
    folder = open_dataset(
        config.data, validation=config.validation, seed=split_seed, task=config.task, images=config.images
    )
    targets = targets_for(folder, config.class_weights)
    if config.sampler == "balanced" and folder.task != "single":
        raise ConfigError(f"sampler='balanced' needs one class per picture, but this is {folder.task}")
    if config.calibrate and folder.task == "regression":
        raise ConfigError("calibrate=True is for classes and labels; numbers have no probabilities")
    callbacks.on_message(folder.describe())
    typical = typical_side(folder) if config.size is None else None
    chosen = choose_preprocessing(
        original, config.model, name=config.preprocessing, size=config.size, typical=typical
    )
    planes = chosen.preprocessing.planes
    if config.channels not in ("auto", str(planes)):
        if planes != 3:
            raise ConfigError(f"channels={config.channels!r}: the model was tuned for {planes} channels")
        chosen = replace(chosen, preprocessing=chosen.preprocessing.of_channels(int(config.channels)))
    h, w = chosen.preprocessing.size
    callbacks.on_message(f"input {h} x {w} pixels; preprocessing {chosen.reason}")
    if run is None and PREPROCESSING_KEY not in metadata_of(original):
        original.forget()  # most of it is not looked at
        shown = some_pictures(folder, chosen.preprocessing.decode_hint())
        if doubtful := doubt(original, chosen.preprocessing, shown):
            callbacks.on_message(f"warning: {doubtful}")
        del shown
    module, head = replace_head(original, len(folder.classes), config.head)
    if folder.task == "regression" and head.bias is None:
        raise ModelError(
            f"the head {head.node.name} has no bias, which numbers need; name another with --head"
        )
    module.input_sizes = ((None, chosen.preprocessing.planes, None, None),)
    if chosen.preprocessing.planes != planes:
        adapt_stem(module, chosen.preprocessing.planes)
        callbacks.on_message(STEM[chosen.preprocessing.planes])
    del original  # with the old head
    module.forget()
    memory.release()
    # A size that the model cannot take, or stages that it does not have, are found out here.
    types = types_for(module, (h, w))
    recipe = run.recipe() if run is not None else None
    if recipe is None:
        count, classes = len(folder.train), len(folder.classes)
        recipe = choose_recipe(config, Situation(module, types, head, folder.task, count, classes))
    cut = choose_cut(module, types, head, recipe.unfreeze)
    stretches = recipe.stretches(config, len(stage_cuts(module, types, head)))
    callbacks.on_message(recipe.reason)
    logits = types[module.graph.outputs[0]].shape
    if logits != (1, len(folder.classes)):
        raise ModelError(f"with the new head the model gives {list(logits)} for one picture, not [1,outputs]")
    memory_plan = run.memory_plan() if run is not None else None
    if config.memory is not None and memory_plan is None:
        needs = _needs(module, types, head, cut, folder, stretches)
        config, memory_plan = memory_plan_for(needs, config)
    if memory_plan is not None:
        callbacks.on_message(str(memory_plan))
    if run is None:
        run = RunFolder.create(config.run_dir, out)
        pictures = [sample.path for sample in (*folder.train, *folder.validation)]
        if Path(config.data).is_file():  # where labels come from a file, that counts as well
            pictures.append(Path(config.data))
        provenance = Provenance.note(Path(config.model), pictures)
        told = {"recipe": "auto" if recipe.name == "explicit" else recipe.name, "unfreeze": recipe.unfreeze}
        run.write_config(config.to_dict() | told | {"run_dir": None})
        run.write_json("inputs.json", provenance.to_dict())
        resolved = {
            "resolved_preprocessing": chosen.preprocessing.to_dict(),
            "resolved_recipe": recipe.to_dict(),
            "resolved_memory": None if memory_plan is None else memory_plan.to_dict(),
            "working_directory": os.getcwd(),
        }
        run.write_json("config.json", config.to_dict() | resolved)  # last: now it is a run to go on with
    else:
        provenance = run.provenance()
        provenance.check_model(Path(config.model))
        provenance.check()
    callbacks.on_message(f"new head {head.node.name!r} with {len(folder.classes)} outputs")
    if where != CPU:
        module.to(where)
        callbacks.on_message(f"computing on {device.describe(where)}")
    wanted = config.patience or config.calibrate
    train, aside = set_aside(folder.train, config) if wanted else (folder.train, ())
    job = Job(
        config, folder, module, head, cut, recipe, stretches, chosen, targets, run, callbacks, provenance,
        memory_plan, device=where, train=train, aside=aside,
    )  # fmt: skip
    callbacks.on_start(job)
    return job


def _needs(
    module: GraphModule,
    types: Types,
    head: Head,
    cut: Value,
    folder: Dataset,
    stretches: Sequence[Stretch],
) -> Needs:
    """What the run needs memory for, in bytes."""
    graph, trains = module.graph, any(stretch.phase == "stages" for stretch in stretches)
    before = graph.between(graph.inputs, [cut]) if cut.node is not None else None
    after = graph.between([cut], graph.outputs)
    picture = 4 * prod(types[graph.inputs[0]].shape)
    return Needs(
        now=memory.resident() or 0,
        peak=memory.peak_resident() or 0,
        weights=leaf_bytes(module, graph),
        frozen=leaf_bytes(module, before) if before is not None else 0,
        trained=leaf_bytes(module, after) if trains else 0,
        live=live_bytes(graph, types),
        kept=kept_bytes(after, types),
        recomputed=segment_ends(after, types)[1],
        results=result_bytes(graph, types),
        ranges=0 if before is None else range_bytes(before, types),
        head_features=4 * prod(types[head.features].shape),
        cut_features=4 * prod(types[cut].shape) if trains else 0,
        picture=3 * typical_side(folder) ** 2,
        prepared=picture,
        train=len(folder.train),
        held=len(folder.validation),
    )


def set_aside(
    samples: Sequence[Sample], config: FinetuneConfig
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What is learned from, and a part of every class that says when to stop and how sure to be.

    A class of one picture keeps it. ConfigError where nothing can be set aside.
    """
    chosen: set[int] = set()
    for label in sorted({sample.label for sample in samples}):
        own = [i for i, sample in enumerate(samples) if sample.label == label]
        count = min(max(round(len(own) * config.set_aside), 1), len(own) - 1)
        order = permutation(generator(config.seed, 1, max(label, 0), SPLIT), len(own))
        chosen.update(own[i] for i in order[:count].tolist())
    if not chosen:
        raise ConfigError(
            f"patience={config.patience}, calibrate={config.calibrate}: no class has a second picture to set "
            "aside; use neither"
        )
    kept = tuple(sample for i, sample in enumerate(samples) if i not in chosen)
    return kept, tuple(samples[i] for i in sorted(chosen))


def typical_side(folder: Dataset) -> int:
    """Median of the shorter sides of some of the pictures, from their headers alone."""
    from PIL import Image

    sides = []
    for sample in folder.train[:: max(1, len(folder.train) // 64)]:
        top, left, bottom, right = sample.box or (0.0, 0.0, 1.0, 1.0)
        if sample.pixels is not None:
            sides.append(min(sample.pixels.shape[:2]))
            continue
        try:
            with Image.open(sample.path) as picture:
                sides.append(min(picture.width * (right - left), picture.height * (bottom - top)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # a bad picture is reported where it is decoded
    return int(np.median(sides)) if sides else 224
