"""Files written whole or not at all, and read with suspicion."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nnlite.errors import FileError, NnliteError

MOST_TEXT = 1 << 28
"""Bytes of a text that are read: none that nnlite writes is larger."""


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to under a temporary name beside ``path``, which gets its own when the block ends.

    Never half a file under the final name: when the block raises, what was there before stays. Raises
    FileError naming the path and the system's reason.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private; results are not
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all of it or nothing; FileError as of :func:`atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def read_text(path: Path, error: type[NnliteError]) -> str:
    """The UTF-8 text in a file that nnlite wrote, or says so; ``error`` where there is none or too much."""
    try:
        if path.stat().st_size > MOST_TEXT:
            raise error(f"{path}: is damaged: larger than any that nnlite writes")
        return path.read_text(encoding="utf-8")
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"{path}: is damaged: not text") from None


def parse_table(text: str, path: Path, error: type[NnliteError]) -> dict[str, Any]:
    """The JSON object that ``text`` of ``path`` is; ``error`` where it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise error(f"{path}: is damaged: {failure}") from None
    if not isinstance(content, dict):
        raise error(f"{path}: is damaged: not a table of names and values")
    return content
