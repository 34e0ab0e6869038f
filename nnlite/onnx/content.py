"""A file's bytes: read, or mapped, so that weights which nobody looks at take no memory."""

from __future__ import annotations

import mmap
from pathlib import Path

Content = bytes | mmap.mmap
"""What a model is parsed from; slices of both are bytes."""

LEAST = 1 << 20
"""Files of fewer bytes are read."""


def content(path: Path) -> Content:
    """The bytes of ``path``. Raises OSError.

    A mapped file must not shrink while it is looked at. Files that are replaced, as careful writers do,
    stay as they were.
    """
    with path.open("rb") as file:
        if path.stat().st_size < LEAST:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def forget(data: Content | None) -> None:
    """Give back the memory of a mapped file; what is looked at again comes from the file again."""
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)
