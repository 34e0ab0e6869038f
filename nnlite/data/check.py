"""Looking at a folder of pictures before anything is trained on it.

    every picture ─▶ decoded once (threads) ─▶ facts ─▶ findings: errors, which spoil a result, and warnings

Exact duplicates have the same bytes. Near duplicates look alike: their 256-bit difference hashes (Krawetz
2013: is a pixel brighter than its left neighbour, on 16 rows of 17 grey pixels) differ in few bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnlite.data.dataset import Dataset, Sample
from nnlite.data.decode import Header, header
from nnlite.errors import DataError
from nnlite.layout import Array

TINY = 32
"""Pixels: pictures with a shorter side hold little to learn from."""

FEW = 10
"""Training pictures of a class below which hardly anything is learned."""

IMBALANCE = 10
"""Times that the largest class may be larger than the smallest."""

NEAR = 8
"""Bits of 256 in which near duplicates may differ."""

Part = Literal["train", "validation"]


@dataclass(frozen=True)
class Finding:
    """Something about the data that its owner should know."""

    level: Literal["error", "warning"]
    kind: str
    text: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Facts:
    sample: Sample
    part: Part
    error: str | None = None
    digest: str = ""
    format: str = ""
    mode: str = ""
    turned: bool = False
    size: tuple[int, int] = (0, 0)
    hash: bytes = b""


def difference_hash(picture: Array) -> bytes:
    """256 bits of how brightness changes from left to right, for uint8 [H,W,3]; empty for a flat picture."""
    from PIL import Image

    grey = Image.fromarray(picture).convert("L").resize((17, 16), Image.Resampling.BOX)
    values = np.asarray(grey, np.int16)
    if values.max() - values.min() < 16:
        return b""
    # A step of one grey level is noise on a flat ground, not a feature.
    return np.packbits(values[:, 1:] > values[:, :-1] + 1).tobytes()


def _look(sample: Sample, part: Part) -> _Facts:
    try:
        picture = sample.read()
        digest = sample.digest({})
        known = header(sample.path) if sample.pixels is None else _array_header(sample.pixels)
    except OSError as error:
        return _Facts(sample, part, error=error.strerror or str(error))
    except DataError as error:
        return _Facts(sample, part, error=str(error).removeprefix(f"{sample.path}: "))
    size = (picture.shape[0], picture.shape[1])
    turned = known.orientation != 1
    return _Facts(
        sample, part, None, digest, known.format, known.mode, turned, size, difference_hash(picture)
    )


def _array_header(pixels: Array) -> Header:
    return Header("array", f"{1 if pixels.ndim == 2 else pixels.shape[2]} x {pixels.dtype}", 1)


def check_data(
    folder: Dataset,
    *,
    workers: int = 2,
    progress: Callable[[Iterable[Any], str, int], Iterable[Any]] = lambda items, what, count: items,
) -> dict[str, Any]:
    """What is in ``folder`` and what is wrong with it, as plain JSON types.

    ``errors`` and ``warnings`` list findings with their kind, a sentence and the files. Every picture is
    read once; none that cannot be read stops the others.
    """
    samples: list[tuple[Sample, Part]] = [(sample, "train") for sample in folder.train]
    samples += [(sample, "validation") for sample in folder.validation]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        looked = pool.map(lambda pair: _look(*pair), samples)
        facts = list(progress(looked, "check", len(samples)))
    whole = [one for one in facts if one.error is None]
    findings = [*_each(facts), *_duplicates(whole, folder), *_near(whole, folder), *_classes(folder)]
    return {
        "folder": str(folder.root),
        "split": folder.split,
        "task": folder.task,
        "ignored": folder.ignored,
        "classes": [] if folder.task == "regression" else _per_class(folder),
        "numbers": _numbers(folder) if folder.task == "regression" else [],
        "pictures": len(samples),
        "sizes": _sizes(whole),
        "formats": dict(Counter(one.format for one in whole).most_common()),
        "modes": dict(Counter(one.mode for one in whole).most_common()),
        "turned": sum(one.turned for one in whole),
        "errors": [asdict(one) for one in findings if one.level == "error"],
        "warnings": [asdict(one) for one in findings if one.level == "warning"],
    }


def _counts(folder: Dataset, part: Part) -> list[int]:
    """How many pictures of a part have each class or label."""
    samples = folder.train if part == "train" else folder.validation
    if folder.task == "multi":
        return [int(sum(column)) for column in zip(*(sample.values for sample in samples), strict=True)]
    counts = Counter(sample.label for sample in samples)
    return [counts[label] for label in range(len(folder.classes))]


def _per_class(folder: Dataset) -> list[dict[str, Any]]:
    counts = _counts(folder, "train"), _counts(folder, "validation")
    return [
        {"name": name, "train": train, "validation": validation}
        for name, train, validation in zip(folder.classes, *counts, strict=True)
    ]


def _numbers(folder: Dataset) -> list[dict[str, Any]]:
    """Range, mean and deviation of the training pictures' numbers."""
    values = np.array([sample.values for sample in folder.train])
    return [
        {
            "name": name, "least": float(column.min()), "most": float(column.max()),
            "mean": float(column.mean()), "deviation": float(column.std()),
        }
        for name, column in zip(folder.classes, values.T, strict=True)
    ]  # fmt: skip


def _sizes(facts: Sequence[_Facts]) -> dict[str, list[int]]:
    if not facts:
        return {}
    heights, widths = zip(*(one.size for one in facts), strict=True)
    return {
        name: [int(measure(heights)), int(measure(widths))]
        for name, measure in (("least", min), ("median", np.median), ("most", max))
    }


# ---------------------------------------------------------------------------------------- findings

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",),
    "WEBP": (".webp",), "BMP": (".bmp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}  # fmt: skip


def _each(facts: Iterable[_Facts]) -> Iterator[Finding]:
    seen: set[Path] = set()  # a file of many boxes is misnamed or unreadable once
    for one in facts:
        path, again = str(one.sample.path), one.sample.path in seen
        seen.add(one.sample.path)
        if one.error is not None:
            if not again:
                yield Finding("error", "unreadable", f"{path}: {one.error}", (path,))
            continue
        if one.format == "array":
            continue
        if one.sample.path.suffix.lower() not in EXTENSIONS.get(one.format, ()) and not again:
            text = f"{path}: is a {one.format} picture by its content; rename it"
            yield Finding("warning", "extension", text, (path,))
        if min(one.size) < TINY:
            text = f"{one.sample.name}: has only {one.size[0]} x {one.size[1]} pixels"
            yield Finding("warning", "tiny", text, (path,))


def _said(pictures: Sequence[_Facts], folder: Dataset, alike: str) -> Finding:
    """What it means that pictures are the same (or nearly): by where they stand."""
    paths = tuple(str(one.sample.path) for one in pictures)
    names = ", ".join(one.sample.name for one in pictures)
    classes = sorted({_told(one.sample, folder) for one in pictures})
    level: Literal["error", "warning"] = "error" if alike == "the same" else "warning"
    prefix = "" if alike == "the same" else "near_"
    if len(classes) > 1:
        text = f"{names}: {alike} picture in the classes {', '.join(classes)}; it cannot be both"
        return Finding(level, f"{prefix}conflict", text, paths)
    if len({one.part for one in pictures}) > 1:
        text = f"{names}: {alike} picture is trained on and validates; the result will look better than it is"
        return Finding(level, f"{prefix}leakage", text, paths)
    return Finding("warning", f"{prefix}duplicate", f"{names}: {alike} picture more than once", paths)


def _told(sample: Sample, folder: Dataset) -> str:
    """What is said of a picture."""
    if folder.task == "single":
        return folder.classes[sample.label]
    if folder.task == "regression":
        return " ".join(f"{value:g}" for value in sample.values)
    return "+".join(n for n, v in zip(folder.classes, sample.values, strict=True) if v) or "none"


def _duplicates(facts: Iterable[_Facts], folder: Dataset) -> Iterator[Finding]:
    groups: dict[str, list[_Facts]] = {}
    for one in facts:
        groups.setdefault(one.digest, []).append(one)
    for group in groups.values():
        if len(group) > 1:
            yield _said(group, folder, "the same")


def _near(facts: Sequence[_Facts], folder: Dataset) -> Iterator[Finding]:
    hashed = [one for one in facts if one.hash]
    bits = np.unpackbits(
        np.frombuffer(b"".join(one.hash for one in hashed), np.uint8).reshape(-1, 32), axis=1
    )
    signs = bits.astype(np.float32) * 2 - 1  # equal bits add one to a product, different ones take one
    for begin in range(0, len(hashed), 1024):
        differing = (256 - signs[begin : begin + 1024] @ signs.T) / 2
        for row, column in np.argwhere(differing <= NEAR):
            first, second = begin + int(row), int(column)
            if first < second and hashed[first].digest != hashed[second].digest:
                yield _said([hashed[first], hashed[second]], folder, "nearly the same")


def _classes(folder: Dataset) -> Iterator[Finding]:
    if folder.task == "regression":
        for entry in _numbers(folder):
            if entry["least"] == entry["most"]:
                text = f"{entry['name']!r} is {entry['least']:g} for every training picture: nothing to learn"
                yield Finding("warning", "constant", text)
        return
    counts, held_out = _counts(folder, "train"), _counts(folder, "validation")
    for label, name in enumerate(folder.classes):
        if counts[label] < FEW:
            yield Finding("warning", "few", f"class {name!r} has {counts[label]} training pictures; add some")
        if not held_out[label]:
            text = f"class {name!r} has no validation picture: nothing will be known about it"
            yield Finding("warning", "not_validated", text)
    largest, smallest = int(np.argmax(counts)), int(np.argmin(counts))
    if counts[largest] > IMBALANCE * counts[smallest] and folder.task == "single":
        yield Finding(
            "warning", "imbalance",
            f"class {folder.classes[largest]!r} has {counts[largest]} training pictures, "
            f"{folder.classes[smallest]!r} {counts[smallest]}: accuracy alone will not tell how well it does",
        )  # fmt: skip
