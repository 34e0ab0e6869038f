"""YOLO's layout: a YAML file that names classes and folders, and a text file of boxes for each picture.

    data.yaml             path: . / train: images/train / val: images/val / names: [cat, dog]
    images/train/a.jpg
    labels/train/a.txt    class x_centre y_centre width height       (fractions of the picture)

More than five numbers are the corners of an outline, x y each; their bounding box is taken.
Source: https://docs.ultralytics.com/datasets/detect/
"""

from __future__ import annotations

import math
from pathlib import Path

from nnlite.data.boxes import Annotated, LabelledBox, clipped
from nnlite.data.folder import EXTENSIONS
from nnlite.data.paths import Below
from nnlite.errors import DataError

FILES = ("data.yaml", "data.yml", "dataset.yaml")
LONGEST = 1 << 20
"""Bytes of a YAML file or of a picture's boxes beyond which it is none."""

Settings = dict[str, "str | list[str]"]


def read_yolo(path: Path, images: Path | None = None) -> tuple[list[Annotated], int]:
    """Pictures with their boxes, and how many boxes were passed over because nothing is in them.

    ``path`` is the YAML file. Raises DataError naming the file, line, rule and remedy.
    """
    settings = read_settings(path)
    names = settings.get("names")
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: has no names of classes; add a line such as names: [cat, dog]")
    below = Below(images or path.parent)
    base = str(settings.get("path") or "")
    parts = [part for part in ("train", "val", "test") if settings.get(part)]
    if "train" not in parts:
        raise DataError(f"{path}: does not say where the training pictures are; add train: images/train")
    pictures: list[Annotated] = []
    ignored = 0
    for part in parts:
        places = settings[part]
        for place in [places] if isinstance(places, str) else places:
            found, passed = _folder(path, _resolved(path, below, base, place), names, part)
            pictures += found
            ignored += passed
    if len(parts) == 1:
        pictures = [Annotated(one.path, one.boxes) for one in pictures]
    return pictures, ignored


def _resolved(path: Path, below: Below, base: str, place: str) -> Path:
    if not base and place.startswith("../"):  # Roboflow's files mean their own folder by it
        place = place.removeprefix("../")
    # An absolute base is the machine's where the file was written; here its folder counts.
    inside = base if base and not Path(base).is_absolute() else ""
    folder = below.resolve(str(Path(inside) / place), str(path))
    if not folder.is_dir():
        raise DataError(f"{path}: {place!r} is no folder of pictures in {below.folder}; --images names it")
    return folder


def _folder(path: Path, folder: Path, names: list[str], part: str) -> tuple[list[Annotated], int]:
    pieces = list(folder.parts)
    if "images" not in pieces:
        raise DataError(f"{path}: {folder} has no part 'images', beside which 'labels' would be")
    last = len(pieces) - 1 - pieces[::-1].index("images")
    labels = Path(*pieces[:last], "labels", *pieces[last + 1 :])
    pictures: list[Annotated] = []
    ignored = 0
    for picture in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if picture.suffix.lower() not in EXTENSIONS or picture.name.startswith(".") or picture.is_symlink():
            continue
        boxes, passed = _boxes(labels / f"{picture.stem}.txt", names)
        pictures.append(Annotated(picture, tuple(boxes), part))
        ignored += passed
    if not pictures:
        raise DataError(f"{folder}: no pictures; known extensions are {' '.join(sorted(EXTENSIONS))}")
    return pictures, ignored


def _boxes(path: Path, names: list[str]) -> tuple[list[LabelledBox], int]:
    """The boxes of one picture; none where it has no file."""
    if not path.is_file():
        return [], 0
    boxes: list[LabelledBox] = []
    ignored = 0
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            label, *numbers = [float(word) for word in line.split()]
        except ValueError:
            raise DataError(f"{where}: {line[:60]!r} must be numbers separated by blanks") from None
        if not label.is_integer() or not 0 <= label < len(names):
            raise DataError(
                f"{where}: class {label:g} must be one of 0 .. {len(names) - 1}, as names lists them"
            )
        if (
            len(numbers) < 4
            or (len(numbers) > 4 and len(numbers) % 2)
            or not all(map(math.isfinite, numbers))
        ):
            raise DataError(f"{where}: a class needs x_centre y_centre width height after it, or an outline")
        if len(numbers) == 4:
            x, y, w, h = numbers
            box = clipped(y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        else:
            box = clipped(min(numbers[1::2]), min(numbers[::2]), max(numbers[1::2]), max(numbers[::2]))
        if box is None:
            ignored += 1
        else:
            boxes.append(LabelledBox(names[int(label)], box))
    return boxes, ignored


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST:
            raise DataError(f"{path}: is longer than {LONGEST} bytes; this is no such file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


# ------------------------------------------------------------------------------------------ settings


def read_settings(path: Path) -> Settings:
    """The settings of a YAML file: texts, and lists of texts.

    Only what such files consist of is understood: ``key: text``, ``key: [a, b]``, and a key with
    indented ``- a`` or ``0: a`` lines below it. Anything else is a DataError that names the line; other
    nested settings are passed over.
    """
    settings: Settings = {}
    nested: dict[int, str] | None = None
    for number, raw in enumerate(_text(path).splitlines(), 1):
        line = raw.split(" #")[0].rstrip()
        if not line.strip() or line.lstrip().startswith("#") or line == "---":
            continue
        where = f"{path}:{number}"
        indented = line[0] in " \t" or line.startswith("- ")
        key, colon, text = line.strip().partition(":")
        if indented:
            if nested is None:
                raise DataError(f"{where}: {line.strip()!r} belongs to no setting")
            if line.strip().startswith("- "):
                nested[len(nested)] = _plain(line.strip()[2:])
            elif colon and _plain(key).isdecimal():
                nested[int(_plain(key))] = _plain(text)
            continue
        if not colon:
            raise DataError(f"{where}: {line!r} must be 'key: value'")
        if text.strip():
            settings[_plain(key)] = _value(where, text.strip())
            nested = None
        else:
            nested = {}
            settings[_plain(key)] = _Nested(nested)
    return {key: _listed(path, key, value) for key, value in settings.items()}


class _Nested(list[str]):
    """Holds entries by number until all are read."""

    def __init__(self, entries: dict[int, str]) -> None:
        super().__init__()
        self.entries = entries


def _listed(path: Path, key: str, value: str | list[str]) -> str | list[str]:
    if not isinstance(value, _Nested):
        return value
    if sorted(value.entries) != list(range(len(value.entries))):
        raise DataError(f"{path}: the entries of {key!r} must be numbered 0, 1, 2, ... without a gap")
    return [value.entries[i] for i in range(len(value.entries))]


def _value(where: str, text: str) -> str | list[str]:
    if text.startswith("["):
        if not text.endswith("]"):
            raise DataError(f"{where}: a list that begins with [ must end with ] in the same line")
        return [_plain(item) for item in text[1:-1].split(",") if item.strip()]
    return _plain(text)


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
