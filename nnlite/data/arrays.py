"""Pictures in a NumPy ``.npz`` file.

    x, y                                     divided by the seed
    x_train, y_train, x_test, y_test         or x_val, y_val
    train_images, train_labels, val_images, val_labels

Pictures are uint8 or uint16, [N,H,W] or [N,H,W,C]. Labels are integers [N] or [N,1] (classes), [N,K] of
0 and 1 (several labels), or floats [N] or [N,K] (numbers). ``classes``, where there, are the names.
"""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnlite import memory
from nnlite.data.dataset import Dataset, Sample, Task, divided
from nnlite.errors import DataError
from nnlite.layout import Array

LAYOUTS = (
    ("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"), ("x{}", "y{}"), ("X_{}", "y_{}")
)  # fmt: skip
PARTS = (("train", ("train",)), ("validation", ("val", "valid", "validation", "test")))
WHOLE = (("x", "y"), ("X", "y"), ("images", "labels"))
SHARE = 2
"""Arrays may take this part of the machine's memory."""


def read_arrays(path: Path, *, validation: float, seed: int, task: Task | None = None) -> Dataset:
    """The data set in an ``.npz`` file, in memory as a whole.

    Nothing in the file is executed (no pickles), and every size is checked against the file before
    memory is asked for. Raises DataError naming the file, the array, the rule and the remedy.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(_Members(path, archive), validation, seed, task)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: is no whole .npz file ({error}); save it again with np.savez") from None


class _Members:
    """The arrays of an archive, read only after what they say of themselves was checked."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.names = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        self.room = memory.available() // SHARE

    def read(self, name: str) -> Array:
        info, what = self.names[name], f"{self.path}: array {name!r}"
        with self.archive.open(info) as file:
            shape, fortran, dtype = _header(what, file)  # type: ignore[arg-type]
            size = dtype.itemsize * prod(shape)
            if size > info.file_size:
                raise DataError(f"{what} claims {size} bytes but has {info.file_size}; save it again")
            self.room -= size
            if self.room < 0:
                raise DataError(
                    f"{what} would take {size >> 20} MB, more than 1/{SHARE} of the memory with the others; "
                    "save pictures as files instead"
                )
            data = file.read(size)
        if len(data) < size:
            raise DataError(f"{what} ends early; save it again")
        array = np.frombuffer(data, dtype)
        return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)


def _header(what: str, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = read[version](file)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError) as error:
        raise DataError(f"{what} has no header of a NumPy array ({error}); save it again") from None
    if dtype.kind not in "biufU":
        raise DataError(f"{what} is {dtype}; only numbers are read, and texts as names of classes")
    if any(side < 0 for side in shape):
        raise DataError(f"{what} has shape {list(shape)}")
    return shape, fortran, dtype


def _read(members: _Members, validation: float, seed: int, task: Task | None) -> Dataset:
    path, pairs = members.path, _pairs(members)
    parts: list[str] = []
    pictures: list[Array] = []
    targets: list[Array] = []
    for part, x_name, y_name in pairs:
        x, y = members.read(x_name), members.read(y_name)
        _check_pictures(f"{path}: array {x_name!r}", x)
        if len(x) != len(y) or y.ndim not in (1, 2):
            raise DataError(
                f"{path}: {y_name} {list(y.shape)} must have a row for each picture of "
                f"{x_name} {list(x.shape)}"
            )
        if y.dtype.kind not in "biuf":
            raise DataError(f"{path}: {y_name} is {y.dtype} but must be numbers")
        pictures.append(x)
        targets.append(y[:, np.newaxis] if y.ndim == 1 else y)
        parts += [part] * len(x)
    if len({(y.shape[1], y.dtype.kind) for y in targets}) > 1:
        raise DataError(f"{path}: the labels of its parts have different shapes or types")
    known = np.concatenate(targets)
    found = task or _task(known)
    names = _names(members, known, found)
    if found == "single":
        labels = [dict(label=int(label)) for label in known[:, 0]]
    else:
        labels = [dict(values=tuple(map(float, row))) for row in known]  # type: ignore[dict-item]
    rows = [(row, one) for x in pictures for row, one in enumerate(x)]
    samples = [
        Sample(path, row=row, pixels=one, **known)  # type: ignore[arg-type]
        for (row, one), known in zip(rows, labels, strict=True)
    ]
    given = parts if len(pairs) > 1 else None
    return divided(path, samples, given, names, found, validation, seed)


def _pairs(members: _Members) -> list[tuple[str, str, str]]:
    for x, y in LAYOUTS:
        found = [
            (part, x.format(name), y.format(name))
            for part, names in PARTS
            for name in names
            if x.format(name) in members.names and y.format(name) in members.names
        ]
        if found and found[0][0] == "train":
            return found[:2]  # a test part validates only where nothing better exists
    for x, y in WHOLE:
        if x in members.names and y in members.names:
            return [("train", x, y)]
    raise DataError(
        f"{members.path}: holds {', '.join(sorted(members.names)) or 'no arrays'}; call the pictures x and "
        "the labels y, or x_train, y_train, x_val and y_val"
    )


def _check_pictures(what: str, x: Array) -> None:
    if x.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{what} is {x.dtype}; save pixels 0 .. 255 as uint8 (or 0 .. 65535 as uint16)")
    if x.ndim not in (3, 4) or x.size == 0 or (x.ndim == 4 and x.shape[3] not in (1, 2, 3, 4)):
        remedy = "; move the channels last" if x.ndim == 4 and x.shape[1] in (1, 2, 3, 4) else ""
        raise DataError(f"{what} has shape {list(x.shape)} but must be [N,H,W] or [N,H,W,C]{remedy}")


def _task(known: Array) -> Task:
    if known.dtype.kind == "f":
        return "regression"
    return "single" if known.shape[1] == 1 else "multi"


def _names(members: _Members, known: Array, task: Task) -> tuple[str, ...]:
    """Names of classes, labels or numbers; ``known`` is checked to be what the task needs."""
    path = members.path
    names = tuple(map(str, members.read("classes"))) if "classes" in members.names else ()
    if task == "single":
        if known.shape[1] != 1 or known.dtype.kind == "f" or known.min() < 0 or known.max() > 99_999:
            raise DataError(f"{path}: one class per picture needs integers [N] from 0, not {known.dtype}")
        count = int(known.max()) + 1
    else:
        count = known.shape[1]
        if task == "multi" and not np.isin(known, (0, 1)).all():
            raise DataError(f"{path}: several labels per picture need 0 or 1 for each, integers [N,K]")
        if task == "regression" and not (np.abs(known) < 1e30).all():
            raise DataError(f"{path}: a label is not a finite number")
    if not names:
        letters = "value" if task == "regression" else "label"
        return tuple(str(i) if task == "single" else f"{letters} {i}" for i in range(count))
    if len(names) < count or (task != "single" and len(names) != count) or len(set(names)) < len(names):
        raise DataError(f"{path}: classes has {len(names)} names but the labels need {count}, all different")
    return names
