"""Annotations in COCO's JSON: images, categories, and boxes [x, y, width, height] in pixels.

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnlite import memory
from nnlite.data.boxes import Annotated, LabelledBox, clipped
from nnlite.data.dataset import HELD_OUT, TRAIN
from nnlite.data.paths import Below
from nnlite.errors import DataError

GROWTH = 10
"""Python's objects take about so many times the bytes of the text."""


def files_in(folder: Path) -> list[Path]:
    """The annotation files of a COCO folder: ``annotations/*.json`` or ``<part>/_annotations.coco.json``."""
    found = sorted((folder / "annotations").glob("*.json")) + sorted(folder.glob("*/_annotations.coco.json"))
    return [path for path in found if _part(path) or len(found) == 1]


def _part(path: Path) -> str:
    """The part that a file's name, or its folder's, tells."""
    for text in (path.stem.lower(), path.parent.name.lower()):
        for names in ((TRAIN[0],), *HELD_OUT):
            if any(name in text for name in names):
                return names[0]
    return ""


def read_coco(files: Sequence[Path], images: Path | None = None) -> tuple[list[Annotated], int]:
    """Pictures with their boxes, and how many annotations were passed over: crowds and empty boxes.

    Pictures lie in ``images`` or where COCO's usual layouts have them. Raises DataError naming the
    file, the entry, the rule and the remedy.
    """
    pictures: list[Annotated] = []
    ignored = 0
    for path in files:
        found, passed = _read(path, images, _part(path) if len(files) > 1 else "")
        pictures += found
        ignored += passed
    return pictures, ignored


def _read(path: Path, images: Path | None, part: str) -> tuple[list[Annotated], int]:
    content = _load(path)
    labels = {}
    for where, entry in _entries(path, content, "categories"):
        labels[_field(where, entry, "id", int)] = _field(where, entry, "name", str)
    known: dict[int, tuple[str, int, int]] = {}
    for where, entry in _entries(path, content, "images"):
        h, w = _field(where, entry, "height", int), _field(where, entry, "width", int)
        if h < 1 or w < 1:
            raise DataError(f"{where}: height {h} and width {w} must be positive")
        known[_field(where, entry, "id", int)] = (_field(where, entry, "file_name", str), h, w)
    boxes: dict[int, list[LabelledBox]] = {number: [] for number in known}
    ignored = 0
    for where, entry in _entries(path, content, "annotations"):
        image, label = _field(where, entry, "image_id", int), _field(where, entry, "category_id", int)
        if image not in known:
            raise DataError(f"{where}: image_id {image} is not among the images")
        if label not in labels:
            raise DataError(f"{where}: category_id {label} is not among the categories")
        _, h, w = known[image]
        left, top, width, height = _box(where, entry)
        box = clipped(top / h, left / w, (top + height) / h, (left + width) / w)
        if box is None or entry.get("iscrowd"):
            ignored += 1
        else:
            boxes[image].append(LabelledBox(labels[label], box))
    if not known:
        raise DataError(f"{path}: lists no images")
    below = _folder(path, [name for name, _, _ in known.values()], images)
    return [
        Annotated(below.resolve(name, f"{path}: image {number}"), tuple(boxes[number]), part)
        for number, (name, _, _) in known.items()
    ], ignored


def _load(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size * GROWTH > memory.available() // 2:
            raise DataError(f"{path}: {size >> 20} MB of JSON are more than memory allows; divide the file")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no COCO annotations (an object with images, annotations, categories)")
    return content


def _entries(path: Path, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: COCO annotations have a list {key!r}, which is missing here")
    for number, entry in enumerate(entries):
        where = f"{path}: {key}[{number}]"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: must be an object")
        yield where, entry


def _field(where: str, entry: dict[str, Any], name: str, kind: type) -> Any:
    value = entry.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        word = {int: "an integer", str: "a text"}[kind]
        raise DataError(f"{where}: {name} must be {word}, not {str(value)[:40]}")
    return value


def _box(where: str, entry: dict[str, Any]) -> list[float]:
    box = entry.get("bbox")
    numbers = box if isinstance(box, list) else []
    if len(numbers) != 4 or not all(
        isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < 1e9 for n in numbers
    ):
        raise DataError(f"{where}: bbox must be four numbers [x, y, width, height], not {str(box)[:60]}")
    return numbers


def _folder(path: Path, names: Sequence[str], images: Path | None) -> Below:
    """The folder in which the first of ``names`` is."""
    if images is not None:
        return Below(images)
    here, part = path.parent, path.stem.removeprefix("instances_")
    tried = [here, here / "images", here.parent / part, here.parent / "images" / part]
    tried += [here.parent / "images", here.parent]
    for folder in tried:
        if folder.is_dir() and any((folder / name).is_file() for name in names[:100] if "\0" not in name):
            return Below(folder)
    raise DataError(
        f"{path}: its pictures, such as {names[0]!r}, were not found beside it; --images names their folder"
    )
