"""What travels with a model in its ``metadata_props``: preprocessing and class names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnlite.data import Preprocessing
from nnlite.errors import ConfigError, ModelError
from nnlite.graph import GraphModule

PREPROCESSING_KEY = "nnlite.preprocessing"
CLASSES_KEY = "nnlite.classes"
TASK_KEY = "nnlite.task"
TASKS = ("single", "multi", "regression")
DEFAULT_SIZE = 224
MAX_CLASSES = 100_000

KNOWN_FAMILIES = (
    ("efficientnet_lite", "lite"),
    ("efficientnet-lite", "lite"),
    ("inception_v3_tf", "inception"),
)
"""Part of a file's name -> preprocessing, where ImageNet's mean and deviation would be wrong."""


@dataclass(frozen=True)
class Chosen:
    """A preprocessing, and in words where it comes from."""

    preprocessing: Preprocessing
    reason: str


def metadata_of(module: GraphModule) -> dict[str, str]:
    """The model's ``metadata_props``."""
    return dict(module.origin.metadata) if module.origin is not None else {}


def to_metadata(preprocessing: Preprocessing, classes: Sequence[str], task: str = "single") -> dict[str, str]:
    """The entries that :func:`classes_of`, :func:`task_of` and :func:`choose_preprocessing` read back."""
    return {
        PREPROCESSING_KEY: preprocessing.to_json(),
        CLASSES_KEY: json.dumps(list(classes)),
        TASK_KEY: task,
    }


def task_of(module: GraphModule) -> str:
    """What the model was tuned for; one class per picture where it does not say. Else ModelError."""
    task = metadata_of(module).get(TASK_KEY, "single")
    if task not in TASKS:
        raise ModelError(f"the model's metadata {TASK_KEY} is {task[:40]!r}, not one of {', '.join(TASKS)}")
    return task


def classes_of(module: GraphModule) -> list[str] | None:
    """Class names that travel with the model; ModelError when they are not a list of names."""
    text = metadata_of(module).get(CLASSES_KEY)
    if text is None:
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the model's metadata {CLASSES_KEY} is not JSON: {error}") from None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(names) > MAX_CLASSES:
        raise ModelError(f"the model's metadata {CLASSES_KEY} must be a list of names")
    return names


def input_size(module: GraphModule, typical: int | None) -> tuple[int, int]:
    """Height and width of the input: the declared ones, else what suits pictures of ``typical`` side.

    A model that takes any size was most likely trained at 224; smaller pictures are not enlarged,
    which would cost time and add nothing. Networks halve five times, so a multiple of 32 is taken.
    """
    sizes = (module.input_sizes or ((),))[0]
    declared = sizes[2:] if len(sizes) == 4 else ()
    known = [size for size in declared if size is not None]
    if known:
        return known[0], known[-1]
    if typical is None or typical >= DEFAULT_SIZE:
        return DEFAULT_SIZE, DEFAULT_SIZE
    side = max(64, -(-typical // 32) * 32)
    return side, side


def check_picture_input(module: GraphModule) -> None:
    """ModelError unless the model takes one batch of pictures [N,C,H,W] of 1, 3 or 4 channels."""
    sizes = module.input_sizes or ()
    if len(module.graph.inputs) != 1 or not sizes or len(sizes[0]) != 4 or sizes[0][1] not in (1, 3, 4, None):
        shapes = ", ".join(
            f"{n} {[s or '?' for s in sz]}" for n, sz in zip(module.inputs, sizes, strict=False)
        )
        raise ModelError(
            f"the model's inputs are {shapes}, but one input [N,C,H,W] of pictures is needed, with 1, 3 or 4 "
            "channels"
        )


def choose_preprocessing(
    module: GraphModule,
    path: str | Path,
    *,
    name: str | None = None,
    size: int | None = None,
    typical: int | None = None,
) -> Chosen:
    """How pictures are prepared: as told, as the file's metadata say, as its name tells, or ImageNet's.

    ``typical`` is the usual side of the user's pictures, for models that take any size.
    """
    check_picture_input(module)
    stored = metadata_of(module).get(PREPROCESSING_KEY)
    if size is not None and not 16 <= size <= 4096:
        raise ConfigError(f"size={size} must be 16 to 4096 pixels")
    side = input_size(module, typical) if size is None else (size, size)
    if name is not None:
        return Chosen(Preprocessing.told(name, side), f"{name}, as told")
    if stored is not None:
        try:
            known = Preprocessing.from_json(stored)
        except ConfigError as error:
            raise ModelError(f"{path}: metadata {PREPROCESSING_KEY}: {error}") from None
        if size is None:
            return Chosen(known, "from the model's metadata")
        values = known.to_dict() | {"size": [size, size]}
        return Chosen(Preprocessing.from_dict(values), f"from the model's metadata, at {size} pixels as told")
    for part, family in KNOWN_FAMILIES:
        if part in Path(path).name.lower():
            return Chosen(Preprocessing.named(family, side, crop=1.0), f"{family}, by the file's name")
    reason = "imagenet, the usual one (the file does not say; tell with --preprocessing)"
    return Chosen(Preprocessing.named("imagenet", side, crop=1.0), reason)
