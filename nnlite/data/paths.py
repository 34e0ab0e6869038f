"""Where a file that lists pictures may point to.

Such a file may come from a stranger, and pictures end up in reports and sheets: a name in it reaches
only what lies below the file's own folder, or below the folder that the user names (``images``).
"""

from __future__ import annotations

import os
from pathlib import Path

from nnlite.errors import DataError


class Below:
    """Resolves names against ``folder`` and refuses those that lead out of it, by ``..`` or by a link."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of pictures; --images names it")
        self.folder = folder
        self._real = os.path.join(os.path.realpath(folder), "")

    def resolve(self, name: str, where: str) -> Path:
        """The path that ``name`` means; ``where`` begins the message of the DataError that it may not."""
        if not name or "\0" in name:
            raise DataError(f"{where}: no name of a picture")
        path = self.folder / name  # an absolute name stands for itself
        if not os.path.join(os.path.realpath(path), "").startswith(self._real):
            raise DataError(
                f"{where}: {name!r} leads out of {self.folder}; "
                "name the folder that holds all pictures with --images"
            )
        return path
