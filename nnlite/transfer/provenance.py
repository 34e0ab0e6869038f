"""What a run began with: hashes of the model and of every picture, so that a change is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnlite.errors import DataError, ModelError

UNREADABLE = "unreadable"


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


class Provenance:
    """Hashes of a model file and of pictures, as they were when the run began."""

    def __init__(self, model: str, pictures: Mapping[str, str]) -> None:
        self.model = model
        self.pictures = dict(pictures)
        self._seen: dict[str, tuple[int, int]] = {}
        """Size and time of change at which a picture was last known to be the same."""

    @classmethod
    def note(cls, model: Path, pictures: Iterable[Path]) -> Provenance:
        """Read everything once. A picture that cannot be read is left to who decodes it."""
        noted = cls(digest(model), {})
        for path in pictures:
            name = os.path.abspath(path)  # a run may be gone on with from another folder
            if name not in noted.pictures:
                noted.pictures[name] = noted._looked_at(Path(name))
        return noted

    @property
    def data(self) -> str:
        """One hash of all pictures, of their names within the data, and of nothing about this machine."""
        root = os.path.commonpath(list(self.pictures)) if self.pictures else ""
        named = sorted((Path(name).relative_to(root).as_posix(), own) for name, own in self.pictures.items())
        lines = "".join(f"{own}  {name}\n" for name, own in named)
        return hashlib.sha256(lines.encode()).hexdigest()

    def check(self) -> None:
        """DataError where a picture is no longer what it was; its content is read where its time changed."""
        for name, known in self.pictures.items():
            try:
                unchanged = _stamp(name) == self._seen.get(name)
            except OSError:
                unchanged = False
            if not unchanged and self._looked_at(path := Path(name)) != known:
                what = "has changed" if path.exists() else "is no longer there"
                raise DataError(f"{path}: the file {what} since the run began; put back the one that was")

    def check_model(self, path: Path) -> None:
        """ModelError when the model file is another than the run began with."""
        if digest(path) != self.model:
            raise ModelError(f"{path}: is not the file that the run began with; put back the one that was")

    def _looked_at(self, path: Path) -> str:
        try:
            self._seen[str(path)] = _stamp(path)
            return digest(path)
        except OSError:
            self._seen.pop(str(path), None)
            return UNREADABLE

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"model": self.model, "data": self.data, "pictures": self.pictures}


def _stamp(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
