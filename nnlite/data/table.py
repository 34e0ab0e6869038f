"""Pictures listed in a CSV file, with what is known about each.

    path,label             one class: any text
    path,labels            several labels, separated by ;  (none is allowed)
    path,dog,cat,...       several labels, 0 or 1 for each
    path,age,weight,...    numbers to be predicted

and, with any of them, a column ``split`` of train, val or test. Paths are relative to the CSV's folder.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nnlite.data.dataset import Dataset, Sample, Task, divided, encode
from nnlite.data.paths import Below
from nnlite.errors import DataError

PATHS = ("path", "file", "filename", "file_name", "image", "picture")
LABELS = ("label", "labels", "class", "classes")
SPLIT = "split"
SEPARATOR = ";"


class _Row(NamedTuple):
    line: int
    path: Path
    cells: list[str]
    """Of the columns that say what is known."""
    part: str


def read_table(
    path: Path, *, validation: float, seed: int, task: Task | None = None, images: Path | None = None
) -> Dataset:
    """The data set that a CSV (or tab-separated ``.tsv``) file lists.

    ``task`` None is told by the file: one column of labels is single, or multi when it is called
    ``labels`` or holds a ``;``; columns of nothing but 0 and 1 are multi; numbers are a regression.
    Raises DataError naming the file, line, rule and remedy.
    """
    columns, rows, has_parts = _read(path, Below(images or path.parent))
    if not any(row.path.is_file() for row in rows):
        raise DataError(
            f"{path}:{rows[0].line}: none of the pictures is there, such as {rows[0].path}; "
            "--images names the folder that they are in"
        )
    found = task or _task(columns, rows)
    if found == "single":
        classes, samples = _single(path, columns, rows)
    elif found == "multi":
        classes, samples = _multi(path, columns, rows)
    else:
        classes, samples = tuple(columns), _numbers(path, columns, rows)
    parts = [row.part for row in rows] if has_parts else None
    return divided(path, samples, parts, classes, found, validation, seed)


def _read(path: Path, below: Below) -> tuple[list[str], list[_Row], bool]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            try:
                return _rows(path, reader, below)
            except csv.Error as error:
                raise DataError(f"{path}:{reader.line_num}: {error}; mend the line") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def _rows(path: Path, reader: csv._reader, below: Below) -> tuple[list[str], list[_Row], bool]:  # type: ignore[name-defined,unused-ignore]
    header = [name.strip() for name in next(reader, [])]
    lower = [name.lower() for name in header]
    named = [i for i, name in enumerate(lower) if name in PATHS]
    if len(named) != 1:
        found = ", ".join(header) or "nothing"
        raise DataError(
            f"{path}:1: the first line names the columns, one of them {' or '.join(PATHS[:3])}; "
            f"it has {found}"
        )
    if len(set(lower)) < len(lower) or "" in lower:
        raise DataError(f"{path}:1: every column needs a name of its own; there are {', '.join(header)}")
    split = lower.index(SPLIT) if SPLIT in lower else None
    targets = [i for i in range(len(header)) if i not in (named[0], split)]
    if not targets:
        raise DataError(f"{path}:1: no column says what the pictures show; add one called 'label'")
    rows: list[_Row] = []
    seen: dict[Path, int] = {}
    for cells in reader:
        line = reader.line_num
        if not cells:
            continue
        if len(cells) != len(header):
            raise DataError(f"{path}:{line}: has {len(cells)} cells but there are {len(header)} columns")
        picture = below.resolve(cells[named[0]].strip(), f"{path}:{line}")
        if (first := seen.setdefault(picture, line)) != line:
            raise DataError(
                f"{path}:{line}: {picture.name} stands in line {first} already; "
                f"keep one line (several labels are separated by {SEPARATOR})"
            )
        part = "" if split is None else cells[split].strip()
        if split is not None and not part:
            raise DataError(f"{path}:{line}: the split is empty; say train, val or test")
        rows.append(_Row(line, picture, [cells[i].strip() for i in targets], part))
    if not rows:
        raise DataError(f"{path}: lists no pictures")
    return [header[i] for i in targets], rows, split is not None


def _task(columns: Sequence[str], rows: Sequence[_Row]) -> Task:
    if len(columns) == 1 and columns[0].lower() in LABELS:
        several = columns[0].lower() == "labels" or any(SEPARATOR in row.cells[0] for row in rows)
        return "multi" if several else "single"
    if len(columns) > 1 and all(cell in ("0", "1") for row in rows for cell in row.cells):
        return "multi"
    return "regression"


def _single(path: Path, columns: Sequence[str], rows: Sequence[_Row]) -> tuple[tuple[str, ...], list[Sample]]:
    if len(columns) != 1:
        raise DataError(f"{path}:1: one class per picture needs one column, not {', '.join(columns)}")
    for row in rows:
        if not row.cells[0]:
            raise DataError(f"{path}:{row.line}: no label; give one or remove the line")
    classes, number = encode([row.cells[0] for row in rows])
    return classes, [Sample(row.path, number[row.cells[0]]) for row in rows]


def _multi(path: Path, columns: Sequence[str], rows: Sequence[_Row]) -> tuple[tuple[str, ...], list[Sample]]:
    if len(columns) == 1:
        sets = [{name.strip() for name in row.cells[0].split(SEPARATOR)} - {""} for row in rows]
    else:
        for row in rows:
            for name, cell in zip(columns, row.cells, strict=True):
                if cell not in ("0", "1"):
                    raise DataError(f"{path}:{row.line}: {name}={cell!r} must be 0 or 1")
        sets = [{n for n, cell in zip(columns, row.cells, strict=True) if cell == "1"} for row in rows]
    classes, _ = encode(list(columns) if len(columns) > 1 else [name for names in sets for name in names])
    if not classes:
        raise DataError(f"{path}: no picture has any label")
    return classes, [
        Sample(row.path, values=tuple(float(name in names) for name in classes))
        for row, names in zip(rows, sets, strict=True)
    ]


def _numbers(path: Path, columns: Sequence[str], rows: Sequence[_Row]) -> list[Sample]:
    def number(row: _Row, name: str, cell: str) -> float:
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not abs(value) < 1e30:  # float32, squared in the loss
            raise DataError(
                f"{path}:{row.line}: {name}={cell!r} must be a number; "
                "a column of classes is called 'label', other columns are removed"
            )
        return value

    return [
        Sample(row.path, values=tuple(number(row, n, c) for n, c in zip(columns, row.cells, strict=True)))
        for row in rows
    ]
