"""A folder of pictures, one sub-folder per class, as training and validation samples.

Two layouts are understood:

    root/<class>/*.jpg                    split here, per class and by a seed
    root/train/<class>/*.jpg  and         taken as they are; the second folder may be called
    root/val/<class>/*.jpg                val, valid, validation or test

Only names are read, never a picture's bytes: a damaged picture is found when it is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnlite.data.dataset import HELD_OUT, TRAIN, Dataset, Sample, Split, check_validation, hold_out_by_class
from nnlite.errors import DataError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_OTHERS = (".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
EXTENSIONS = frozenset((*_JPEG, *_OTHERS))

_JUNK = frozenset(("thumbs.db", "desktop.ini", "__macosx"))  # left behind by file managers and archives


@dataclass(frozen=True)
class ImageFolder(Dataset):
    """A :class:`~nnlite.data.Dataset` of a folder with one sub-folder per class.

    ``train`` and ``validation`` are sorted by class and file name. ``ignored`` counts hidden files, files
    that are not pictures, pictures or folders at the wrong depth, and links that lead out of the folder.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, validation: float = 0.25, seed: int = 0) -> ImageFolder:
        """Read the folder at ``path``.

        Without split folders each class of n pictures gives round(n · ``validation``) of them, at least
        1 and at most n - 1, to the validation part; which ones depends on ``seed`` alone.

        Raises ConfigError when ``validation`` is not between 0 and 1, and DataError naming the folder,
        the rule and the remedy: the path is missing or no folder, it holds no class folder, no picture
        or only one class, a class folder is empty, a class has a single picture to split, a class is
        validated but never trained, or two folders claim to be the same part.
        """
        check_validation(validation)
        root = Path(path)
        if not root.exists():
            raise DataError(f"{root}: no such folder; check the path")
        if not root.is_dir():
            raise DataError(f"{root}: is a file; give the folder that holds one folder per class")
        return _Reader(root).read(validation, seed)


_Classes = dict[str, list[Path]]


class _Reader:
    """Walks one root; counts what it passes over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real = os.path.normcase(os.path.realpath(root))
        self.ignored = 0

    def read(self, validation: float, seed: int) -> ImageFolder:
        top = self._folders(self.root)
        train = self._part(top, TRAIN)
        # A class may itself be called "train" (there are railways): a part holds folders, a class files.
        if train is None or not _has_folders(train):
            classes, held_out = self._classes(self.root, top), None
        else:
            test = next((part for names in HELD_OUT if (part := self._part(top, names))), None)
            self.ignored += len(top) - (1 if test is None else 2)
            classes = self._classes(train, self._folders(train))
            held_out = None if test is None else self._classes(test, self._folders(test))
        names = sorted(classes)
        if len(names) == 1:
            raise DataError(
                f"{self.root}: only one class ({names[0]!r}); classification needs at least two class folders"
            )
        if held_out is None:
            parts = _split(names, classes, validation, seed)
        else:
            parts = self._given(names, classes, held_out)
        origin: Split = "seed" if held_out is None else "folders"
        return ImageFolder(self.root, tuple(names), *parts, origin, self.ignored)

    def _given(self, names: list[str], train: _Classes, held_out: _Classes) -> _Parts:
        unknown = sorted(set(held_out) - set(train))
        if unknown:
            folder = held_out[unknown[0]][0].parent
            raise DataError(
                f"{folder}: class {unknown[0]!r} has validation pictures but no training folder; "
                "add one or remove this folder"
            )
        return _samples(names, train), _samples(names, held_out)

    # ------------------------------------------------------------------------------- directories

    def _entries(self, folder: Path) -> list[Path]:
        entries = _listing(folder)
        visible = [entry for entry in entries if not _is_junk(entry.name)]
        self.ignored += len(entries) - len(visible)
        return visible

    def _inside(self, entry: Path) -> bool:
        # realpath, not is_symlink: it sees through Windows' junctions too.
        real = os.path.normcase(os.path.realpath(entry))
        return real.startswith(self.real.rstrip(os.sep) + os.sep)

    def _folders(self, folder: Path) -> list[Path]:
        entries = self._entries(folder)
        folders = [entry for entry in entries if entry.is_dir() and self._inside(entry)]
        self.ignored += len(entries) - len(folders)
        return folders

    def _pictures(self, folder: Path) -> list[Path]:
        entries = self._entries(folder)
        pictures = [
            entry
            for entry in entries
            if entry.suffix.lower() in EXTENSIONS
            and entry.is_file()
            and (not entry.is_symlink() or self._inside(entry))
        ]
        self.ignored += len(entries) - len(pictures)
        return pictures

    def _part(self, folders: Sequence[Path], names: Iterable[str]) -> Path | None:
        found = [folder for folder in folders if folder.name.lower() in names]
        if len(found) > 1:
            both = " and ".join(folder.name for folder in found)
            raise DataError(f"{self.root}: {both} claim to be the same part; keep one of them")
        return found[0] if found else None

    def _classes(self, parent: Path, folders: Sequence[Path]) -> _Classes:
        if not folders:
            raise DataError(
                f"{parent}: no class folders; sort the pictures into one folder per class, "
                f"{parent.name}/<class>/*.jpg"
            )
        classes = {folder.name: self._pictures(folder) for folder in folders}
        if not any(classes.values()):
            raise DataError(
                f"{parent}: no pictures in its {len(classes)} class folders ({self.ignored} other files); "
                f"known extensions are {' '.join(sorted(EXTENSIONS))}"
            )
        for name, pictures in classes.items():
            if not pictures:
                raise DataError(f"{parent / name}: class folder without pictures; add some or remove it")
        return classes


_Parts = tuple[tuple[Sample, ...], tuple[Sample, ...]]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not _is_junk(entry.name) for entry in _listing(folder))


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _samples(names: list[str], classes: _Classes) -> tuple[Sample, ...]:
    return tuple(Sample(path, label) for label, name in enumerate(names) for path in classes.get(name, ()))


def _split(names: list[str], classes: _Classes, validation: float, seed: int) -> _Parts:
    for paths in classes.values():
        if len(paths) < 2:
            raise DataError(
                f"{paths[0].parent}: class with a single picture, which cannot both train and validate; "
                "add another or give train/ and val/ folders"
            )
    samples = _samples(names, classes)
    chosen = hold_out_by_class([sample.label for sample in samples], validation, seed)
    train = tuple(sample for place, sample in enumerate(samples) if place not in chosen)
    return train, tuple(samples[place] for place in sorted(chosen))
