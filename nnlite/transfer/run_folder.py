"""The folder of one run: metrics, configuration, history, model; every file written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from nnlite.errors import ConfigError, FileError
from nnlite.files import write_atomically


def check_writable(path: Path) -> None:
    """ConfigError unless a file can be written at ``path``; leaves nothing behind."""
    if path.is_dir():
        raise ConfigError(
            f"--out {path}: is a folder; give the name of a file, such as {path / 'tuned.onnx'}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"--out {path}: the file is there and cannot be overwritten; choose another name")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error.strerror}") from None
    os.close(handle)
    Path(name).unlink()


class RunFolder:
    """Writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | None, out: Path) -> RunFolder:
        """A new folder at ``path``, or runs/<name of out>-<time> beside ``out``.

        Raises ConfigError when it cannot be made or holds a run already: nothing is overwritten.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = Path(path) if path else out.parent / "runs" / f"{out.stem}-{stamp}"
        number = 1
        while path is None and folder.exists():  # two runs within one second
            number += 1
            folder = out.parent / "runs" / f"{out.stem}-{stamp}-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run folder {folder}: cannot be made: {error.strerror}") from None
        if (folder / "config.json").exists():
            raise ConfigError(f"run folder {folder}: holds a run already; choose another --run-dir")
        return cls(folder)

    def write_json(self, name: str, content: Any) -> None:
        """Write ``content`` as indented JSON."""
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def append_history(self, record: dict[str, Any]) -> None:
        """Add one line to history.jsonl, flushed at once: a run that dies keeps what it measured."""
        path = self.path / "history.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror}") from None

    def copy(self, source: Path, name: str) -> None:
        """Copy a result into the folder."""
        if source.resolve() != (self.path / name).resolve():
            write_atomically(self.path / name, source.read_bytes())
