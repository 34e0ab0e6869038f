"""Labelled pictures, wherever they come from: what every reader gives and every loader takes."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from nnlite.data.decode import decode, decode_array
from nnlite.data.random import SPLIT, generator, permutation
from nnlite.errors import ConfigError, DataError
from nnlite.layout import Array

Task = Literal["single", "multi", "regression"]
"""What is to be said of a picture: its one class, all labels that apply, or numbers."""

Split = Literal["folders", "file", "seed"]
"""What divided training from validation: folders, a column or array of the file, or the seed."""

Box = tuple[float, float, float, float]
"""(top, left, bottom, right) as fractions of the upright picture's height and width."""

TRAIN = ("train", "training")
HELD_OUT = (("val", "valid", "validation"), ("test",))
"""Names of the parts; test validates only where nothing better exists."""


@dataclass(frozen=True)
class Sample:
    """One picture, or a part of one, and what is known about it.

    ``label`` is the index of its class; ``values`` take its place where a picture has several labels (0
    or 1 for each) or numbers. ``box`` cuts a part out. ``pixels`` are those of a picture that came in
    an array, uint8 or uint16 [H,W] or [H,W,C], and ``row`` is its place in the file at ``path``.
    """

    path: Path
    label: int = -1
    values: tuple[float, ...] = ()
    box: Box | None = None
    row: int | None = None
    pixels: Array | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """What to call it in a message."""
        if self.row is not None:
            return f"{self.path}[{self.row}]"
        if self.box is not None:
            return f"{self.path} at {', '.join(f'{edge:.3f}' for edge in self.box)}"
        return str(self.path)

    def read(self, *, at_least: tuple[int, int] | None = None, channels: int = 3) -> Array:
        """Its pixels, uint8 [H,W,channels]; channels and errors are those of :func:`nnlite.data.decode`."""
        if self.pixels is not None:
            return decode_array(self.pixels, channels)
        if self.box is None:
            return decode(self.path, at_least=at_least, channels=channels)
        top, left, bottom, right = self.box
        if at_least is not None:  # the part is to be as large, not the whole
            at_least = (round(at_least[0] / (bottom - top)), round(at_least[1] / (right - left)))
        picture = decode(self.path, at_least=at_least, channels=channels)
        H, W = picture.shape[:2]
        y, x = min(round(top * H), H - 1), min(round(left * W), W - 1)
        part = picture[y : max(round(bottom * H), y + 1), x : max(round(right * W), x + 1)]
        return np.ascontiguousarray(part)

    def digest(self, known: dict[Path, str]) -> str:
        """SHA-256 of what the pixels follow from; ``known`` remembers those of files."""
        if self.pixels is not None:
            return hashlib.sha256(self.pixels.tobytes()).hexdigest()
        if self.path not in known:
            try:
                known[self.path] = hashlib.sha256(self.path.read_bytes()).hexdigest()
            except OSError as error:  # said better where it is read
                known[self.path] = f"unreadable: {error.strerror}"
        return known[self.path] if self.box is None else f"{known[self.path]} {self.box}"


@dataclass(frozen=True)
class Dataset:
    """Which pictures there are, what is known about them, and which of them only validate.

    ``classes`` names what labels count: classes or labels sorted by name (by code point, so alike on
    every system), or the quantities of a regression in the order of the file. ``ignored`` counts what
    was passed over.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    split: Split
    ignored: int
    task: Task = "single"

    def describe(self) -> str:
        """One line for a log: what there is to learn, how many pictures of each part, what was ignored."""
        ignored = f" ({self.ignored} other files or folders ignored)" if self.ignored else ""
        count, plural = len(self.classes), "" if len(self.classes) == 1 else "s"
        what = {
            "single": f"{count} classes",
            "multi": f"{count} label{plural}, any number of which apply to a picture",
            "regression": f"{count} number{plural} ({', '.join(self.classes[:5])})",
        }[self.task]
        return f"{what}, {len(self.train)} training and {len(self.validation)} validation pictures{ignored}"


# ------------------------------------------------------------------------------------------ splitting


def check_validation(validation: float) -> None:
    """ConfigError unless ``validation`` is a fraction."""
    if not 0 < validation < 1:
        raise ConfigError(f"validation={validation} must be a fraction between 0 and 1, such as 0.25")


def hold_out_by_class(labels: Sequence[int], validation: float, seed: int) -> set[int]:
    """Places that validate: of each class of n, round(n · ``validation``), at least 1, at most n - 1."""
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    chosen: set[int] = set()
    for label, at in places.items():
        count = min(max(round(len(at) * validation), 1), len(at) - 1)
        chosen.update(at[i] for i in permutation(generator(seed, 0, label, SPLIT), len(at))[:count].tolist())
    return chosen


def hold_out_pictures(labels: Sequence[frozenset[int]], validation: float, seed: int) -> set[int]:
    """Places of pictures that validate where a picture has any number of labels.

    In random order, round(n · ``validation``) of those whose every label another picture trains.
    """
    left = Counter(label for some in labels for label in some)
    wanted = min(max(round(len(labels) * validation), 1), len(labels) - 1)
    chosen: set[int] = set()
    for place in permutation(generator(seed, 0, 0, SPLIT), len(labels)).tolist():
        if len(chosen) < wanted and all(left[label] > 1 for label in labels[place]):
            chosen.add(place)
            left.subtract(labels[place])
    return chosen


def divided(
    source: str | os.PathLike[str],
    samples: Sequence[Sample],
    parts: Sequence[str] | None,
    classes: tuple[str, ...],
    task: Task,
    validation: float,
    seed: int,
    ignored: int = 0,
) -> Dataset:
    """A data set of ``samples``, divided by ``parts`` (names of each one's part) or by the seed.

    The boxes of one picture stay together. Raises DataError where a part would be empty, a class has
    one picture to divide, or a class is validated and never trained.
    """
    if task == "single" and len(classes) < 2:
        raise DataError(f"{source}: only one class ({', '.join(classes)}); classification needs at least two")
    if len(samples) < 2:
        raise DataError(f"{source}: {len(samples)} pictures cannot both train and validate; add some")
    origin: Split
    if parts is not None:
        names, origin = _parts(source, parts), "file"
        train = [sample for sample, part in zip(samples, names, strict=True) if part == "train"]
        held = [sample for sample, part in zip(samples, names, strict=True) if part == "validation"]
        ignored += len(samples) - len(train) - len(held)
    else:
        chosen, origin = _by_seed(source, samples, classes, task, validation, seed), "seed"
        train = [sample for place, sample in enumerate(samples) if place not in chosen]
        held = [sample for place, sample in enumerate(samples) if place in chosen]
    trained, validated = _labels(train), _labels(held)
    if unknown := sorted(validated - trained):
        raise DataError(
            f"{source}: {classes[unknown[0]]!r} has validation pictures but no training ones; "
            "add some or remove them"
        )
    return Dataset(Path(source), classes, tuple(train), tuple(held), origin, ignored, task)


def _parts(source: str | os.PathLike[str], parts: Sequence[str]) -> list[str]:
    present = {part.lower() for part in parts}
    held = next((names for names in HELD_OUT if present & set(names)), ())
    meant = dict.fromkeys(TRAIN, "train") | dict.fromkeys(held, "validation")
    for name, remedy in (("train", "train"), ("validation", "val")):
        if name not in (meant[part] for part in present if part in meant):
            raise DataError(f"{source}: its parts are {', '.join(sorted(present))}; call one {remedy!r}")
    return [meant.get(part.lower(), "") for part in parts]


def _by_seed(
    source: str | os.PathLike[str],
    samples: Sequence[Sample],
    classes: tuple[str, ...],
    task: Task,
    validation: float,
    seed: int,
) -> set[int]:
    if task == "single" and all(sample.box is None for sample in samples):
        labels = [sample.label for sample in samples]
        for label, count in Counter(labels).items():
            if count < 2:
                raise DataError(
                    f"{source}: class {classes[label]!r} has a single picture, which cannot both train and "
                    "validate; add another or say what trains and what validates"
                )
        return hold_out_by_class(labels, validation, seed)
    places: dict[object, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault((sample.path, sample.row), []).append(place)
    groups = list(places.values())
    labels_of = [frozenset(_labels([samples[i] for i in group], task)) for group in groups]
    chosen = hold_out_pictures(labels_of, validation, seed)
    if not chosen:
        raise DataError(f"{source}: every picture has a label of its own, so none can validate; add some")
    return {place for group in chosen for place in groups[group]}


def _labels(samples: Sequence[Sample], task: Task = "single") -> set[int]:
    """Classes or labels that occur; none for numbers."""
    found = {sample.label for sample in samples if sample.label >= 0}
    if task == "multi":
        found |= {i for sample in samples for i, value in enumerate(sample.values) if value}
    return found


def encode(names: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """The distinct names, sorted, and their numbers."""
    classes = tuple(sorted(set(names)))
    return classes, {name: number for number, name in enumerate(classes)}
