"""Pictures with labelled boxes: what readers of detection formats give, and crops made of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnlite.data.dataset import Box, Dataset, Sample, divided, encode
from nnlite.errors import DataError


@dataclass(frozen=True)
class LabelledBox:
    """A part of a picture and what it shows."""

    label: str
    box: Box


@dataclass(frozen=True)
class Annotated:
    """A picture and everything that is marked in it; ``part`` is train, val, test or empty."""

    path: Path
    boxes: tuple[LabelledBox, ...]
    part: str = ""


def clipped(top: float, left: float, bottom: float, right: float) -> Box | None:
    """The part of a box (fractions) that lies within the picture; None where nothing of it does."""
    top, left, bottom, right = max(top, 0.0), max(left, 0.0), min(bottom, 1.0), min(right, 1.0)
    return (top, left, bottom, right) if bottom > top and right > left else None


def crops(
    source: str | os.PathLike[str],
    pictures: Sequence[Annotated],
    *,
    validation: float,
    seed: int,
    ignored: int = 0,
) -> Dataset:
    """Every box a picture of its own, to be classified; those of one picture stay in one part."""
    names = [box.label for picture in pictures for box in picture.boxes]
    if not names:
        raise DataError(f"{source}: none of its {len(pictures)} pictures has a box to cut out")
    classes, number = encode(names)
    samples = [Sample(one.path, number[b.label], box=b.box) for one in pictures for b in one.boxes]
    parts = [one.part for one in pictures for _ in one.boxes]
    return divided(
        source, samples, parts if any(parts) else None, classes, "single", validation, seed, ignored
    )
