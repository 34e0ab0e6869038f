"""One way into every format of labelled pictures."""

from __future__ import annotations

import os
from pathlib import Path

from nnlite.data import coco, yolo
from nnlite.data.boxes import crops
from nnlite.data.dataset import Dataset, Task, check_validation
from nnlite.data.folder import ImageFolder
from nnlite.data.table import read_table
from nnlite.errors import ConfigError, DataError

TASKS = ("auto", "single", "multi", "regression")


def open_dataset(
    path: str | os.PathLike[str],
    *,
    validation: float = 0.25,
    seed: int = 0,
    task: str = "auto",
    images: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The labelled pictures at ``path``, which is one of

    - a folder with one folder of pictures per class, or with train and val folders of such folders;
    - a ``.csv`` or ``.tsv`` file (:mod:`nnlite.data.table`);
    - COCO's JSON, or a folder with ``annotations/*.json``: every box is cut out as a picture;
    - YOLO's ``data.yaml``, or a folder that holds it: likewise;
    - an ``.npz`` file of arrays (:mod:`nnlite.data.arrays`).

    ``validation`` is the part that ``seed`` holds out where the data do not say. ``task`` says what
    labels mean where a table or arrays could mean several things. ``images`` is the folder that names
    of pictures in a file are relative to; none of them may lead out of it.

    Raises ConfigError for an option out of range, DataError naming what is wrong with the data.
    """
    check_validation(validation)
    if task not in TASKS:
        raise ConfigError(f"task={task!r} must be one of {', '.join(TASKS)}")
    wanted: Task | None = None if task == "auto" else task  # type: ignore[assignment]
    root, below = Path(path), None if images is None else Path(images)
    if not root.exists():
        raise DataError(f"{root}: no such folder or file; check the path")
    dataset = _open(root, validation, seed, wanted, below)
    if wanted not in (None, dataset.task):
        raise DataError(f"{root}: has one class per picture, which is no {wanted} task; list them in a CSV")
    return dataset


def _open(root: Path, validation: float, seed: int, task: Task | None, images: Path | None) -> Dataset:
    kind = root.suffix.lower()
    if root.is_dir():
        settings = [root / name for name in yolo.FILES if (root / name).is_file()]
        annotations = coco.files_in(root)
        if not settings and not annotations:
            return ImageFolder.open(root, validation=validation, seed=seed)
    else:
        settings = [root] if kind in (".yaml", ".yml") else []
        annotations = [root] if kind == ".json" else []
    if settings:
        pictures, ignored = yolo.read_yolo(settings[0], images)
        return crops(settings[0], pictures, validation=validation, seed=seed, ignored=ignored)
    if annotations:
        pictures, ignored = coco.read_coco(annotations, images)
        return crops(root, pictures, validation=validation, seed=seed, ignored=ignored)
    if kind in (".csv", ".tsv"):
        return read_table(root, validation=validation, seed=seed, task=task, images=images)
    if kind == ".npz":
        from nnlite.data.arrays import read_arrays  # zip archives are few, and the module is not small

        return read_arrays(root, validation=validation, seed=seed, task=task)
    raise DataError(
        f"{root}: is none of the formats that are understood: a folder with one folder per class, .csv or "
        ".tsv, COCO's .json, YOLO's .yaml, .npz"
    )
