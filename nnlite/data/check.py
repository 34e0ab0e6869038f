"""Looking at a folder of pictures before anything is trained on it.

    every picture ─▶ decoded once (threads) ─▶ facts ─▶ findings: errors, which spoil a result, and warnings

Exact duplicates have the same bytes. Near duplicates look alike: their 256-bit difference hashes (Krawetz
2013: is a pixel brighter than its left neighbour, on 16 rows of 17 grey pixels) differ in few bits.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from nnlite.data.decode import decode, header
from nnlite.data.folder import ImageFolder, Sample
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
        data = sample.path.read_bytes()
        known = header(sample.path)
        picture = decode(sample.path)
    except OSError as error:
        return _Facts(sample, part, error=error.strerror or str(error))
    except DataError as error:
        return _Facts(sample, part, error=str(error).removeprefix(f"{sample.path}: "))
    digest, turned = hashlib.sha256(data).hexdigest(), known.orientation != 1
    size = (picture.shape[0], picture.shape[1])
    return _Facts(
        sample, part, None, digest, known.format, known.mode, turned, size, difference_hash(picture)
    )


def check_data(
    folder: ImageFolder,
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
        "ignored": folder.ignored,
        "classes": [
            {
                "name": name,
                "train": sum(sample.label == label for sample in folder.train),
                "validation": sum(sample.label == label for sample in folder.validation),
            }
            for label, name in enumerate(folder.classes)
        ],
        "pictures": len(samples),
        "sizes": _sizes(whole),
        "formats": dict(Counter(one.format for one in whole).most_common()),
        "modes": dict(Counter(one.mode for one in whole).most_common()),
        "turned": sum(one.turned for one in whole),
        "errors": [asdict(one) for one in findings if one.level == "error"],
        "warnings": [asdict(one) for one in findings if one.level == "warning"],
    }


def _sizes(facts: Sequence[_Facts]) -> dict[str, list[int]]:
    if not facts:
        return {}
    heights, widths = zip(*(one.size for one in facts), strict=True)
    return {
        name: [int(measure(heights)), int(measure(widths))]
        for name, measure in (("least", min), ("median", statistics.median), ("most", max))
    }


# ---------------------------------------------------------------------------------------- findings

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",),
    "WEBP": (".webp",), "BMP": (".bmp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}  # fmt: skip


def _each(facts: Iterable[_Facts]) -> Iterator[Finding]:
    for one in facts:
        path = str(one.sample.path)
        if one.error is not None:
            yield Finding("error", "unreadable", f"{path}: {one.error}", (path,))
            continue
        if one.sample.path.suffix.lower() not in EXTENSIONS.get(one.format, ()):
            text = f"{path}: is a {one.format} picture by its content; rename it"
            yield Finding("warning", "extension", text, (path,))
        if min(one.size) < TINY:
            text = f"{path}: has only {one.size[0]} x {one.size[1]} pixels"
            yield Finding("warning", "tiny", text, (path,))


def _said(pictures: Sequence[_Facts], folder: ImageFolder, alike: str) -> Finding:
    """What it means that pictures are the same (or nearly): by where they stand."""
    paths = tuple(str(one.sample.path) for one in pictures)
    names = ", ".join(paths)
    classes = sorted({folder.classes[one.sample.label] for one in pictures})
    level: Literal["error", "warning"] = "error" if alike == "the same" else "warning"
    prefix = "" if alike == "the same" else "near_"
    if len(classes) > 1:
        text = f"{names}: {alike} picture in the classes {', '.join(classes)}; it cannot be both"
        return Finding(level, f"{prefix}conflict", text, paths)
    if len({one.part for one in pictures}) > 1:
        text = f"{names}: {alike} picture is trained on and validates; the result will look better than it is"
        return Finding(level, f"{prefix}leakage", text, paths)
    return Finding("warning", f"{prefix}duplicate", f"{names}: {alike} picture more than once", paths)


def _duplicates(facts: Iterable[_Facts], folder: ImageFolder) -> Iterator[Finding]:
    groups: dict[str, list[_Facts]] = {}
    for one in facts:
        groups.setdefault(one.digest, []).append(one)
    for group in groups.values():
        if len(group) > 1:
            yield _said(group, folder, "the same")


def _near(facts: Sequence[_Facts], folder: ImageFolder) -> Iterator[Finding]:
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


def _classes(folder: ImageFolder) -> Iterator[Finding]:
    counts = Counter(sample.label for sample in folder.train)
    held_out = {sample.label for sample in folder.validation}
    for label, name in enumerate(folder.classes):
        if counts[label] < FEW:
            yield Finding("warning", "few", f"class {name!r} has {counts[label]} training pictures; add some")
        if label not in held_out:
            text = f"class {name!r} has no validation picture: nothing will be known about it"
            yield Finding("warning", "not_validated", text)
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] > IMBALANCE * counts[smallest]:
        yield Finding(
            "warning", "imbalance",
            f"class {folder.classes[largest]!r} has {counts[largest]} training pictures, "
            f"{folder.classes[smallest]!r} {counts[smallest]}: accuracy alone will not tell how well it does",
        )  # fmt: skip
