"""The folder of one run: metrics, configuration, history, model; every file written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnlite.errors import ConfigError, FileError
from nnlite.files import atomic_file, parse_table, read_text, write_atomically
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.config_file import to_toml
from nnlite.transfer.memory_plan import MemoryPlan
from nnlite.transfer.provenance import Provenance
from nnlite.transfer.recipes import Recipe


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

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of a run that was begun; ConfigError where there is none, or it is finished."""
        folder = Path(path)
        if not (folder / "config.json").is_file():
            what = "holds no run (no config.json)" if folder.is_dir() else "no such folder"
            raise ConfigError(f"run folder {folder}: {what}; give the folder that the run named")
        if (folder / "metrics.json").exists():
            raise ConfigError(f"run folder {folder}: this run is finished; its result is in metrics.json")
        for left in folder.glob(".*.*"):  # half-written by a run that was killed
            left.unlink(missing_ok=True)
        return cls(folder)

    def read_json(self, name: str) -> dict[str, Any]:
        """What :meth:`write_json` wrote; ConfigError when it is damaged."""
        path = self.path / name
        return parse_table(read_text(path, ConfigError), path, ConfigError)

    def config(self) -> FinetuneConfig:
        """The options of the run, with its paths as they were meant where it was started."""
        stored = self.read_json("config.json")
        known = {field.name for field in fields(FinetuneConfig)}
        options = {name: value for name, value in stored.items() if name in known}
        started = stored.get("working_directory")
        if isinstance(started, str) and started != os.getcwd():
            for name in ("model", "data", "images", "out", "cache_dir"):
                if isinstance(options.get(name), str):
                    options[name] = str(Path(started) / options[name])
        try:
            return FinetuneConfig(**options)
        except TypeError as error:
            raise ConfigError(f"{self.path / 'config.json'}: is damaged: {error}") from None

    def recipe(self) -> Recipe | None:
        """What was decided when the run began; ConfigError when it is damaged."""
        stored = self.read_json("config.json").get("resolved_recipe")
        try:
            return None if stored is None else Recipe.from_dict(stored)
        except (TypeError, LookupError) as error:
            raise ConfigError(f"{self.path / 'config.json'}: is damaged: resolved_recipe: {error}") from None

    def memory_plan(self) -> MemoryPlan | None:
        """What was decided for a budget of memory when the run began; ConfigError when it is damaged."""
        stored = self.read_json("config.json").get("resolved_memory")
        try:
            return None if stored is None else MemoryPlan.from_dict(stored)
        except (TypeError, LookupError) as error:
            raise ConfigError(f"{self.path / 'config.json'}: is damaged: resolved_memory: {error}") from None

    def provenance(self) -> Provenance:
        """Hashes of what the run began with."""
        stored = self.read_json("inputs.json")
        if not isinstance(stored.get("model"), str) or not isinstance(stored.get("pictures"), dict):
            raise ConfigError(f"{self.path / 'inputs.json'}: is damaged: no hashes of model and pictures")
        return Provenance(stored["model"], stored["pictures"])

    def write_history(self, records: Iterable[dict[str, Any]]) -> None:
        """Begin history.jsonl with these lines, whatever stood there."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.path / "history.jsonl", text.encode())

    def write_config(self, options: Mapping[str, Any]) -> None:
        """The options as they were resolved, as a file that ``--config`` takes."""
        write_atomically(self.path / "run.toml", to_toml(options).encode())

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
            with source.open("rb") as file, atomic_file(self.path / name) as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
