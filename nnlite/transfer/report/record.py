"""What a run folder says, read with suspicion: it may come from somebody else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlite.errors import DataError

MOST_BYTES = 1 << 28
"""A larger file is no run's."""


@dataclass(frozen=True)
class RunRecord:
    """The files of a run as Python values; ``environment`` and ``inputs`` are empty where not written."""

    path: Path
    metrics: dict[str, Any]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    environment: dict[str, Any]
    inputs: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """Read a run folder; DataError naming the file that is missing or damaged."""
        folder = Path(path)
        if not (folder / "metrics.json").is_file():
            raise DataError(
                f"{folder}: no metrics.json; give the folder of a finished run, such as runs/NAME-TIME"
            )
        history = [
            line for line in _text(folder / "history.jsonl").splitlines() if line.strip()
        ] if (folder / "history.jsonl").exists() else []  # fmt: skip
        return cls(
            folder,
            _table(folder / "metrics.json"),
            _table(folder / "config.json"),
            [_parsed(line, folder / "history.jsonl") for line in history],
            _table(folder / "environment.json", optional=True),
            _table(folder / "inputs.json", optional=True),
        )

    @property
    def task(self) -> str:
        """single, multi or regression."""
        return str(self.metrics.get("task", "single"))

    @property
    def kind(self) -> str:
        """What the network tells apart, and the key of its figures."""
        return {"multi": "labels", "regression": "numbers"}.get(self.task, "classes")

    @property
    def names(self) -> list[str]:
        """Of classes, labels or numbers."""
        return [str(entry["name"]) for entry in self.metrics[self.kind]]

    @property
    def model(self) -> Path:
        """The tuned model within the folder."""
        return self.path / "tuned.onnx"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: larger than any run writes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is damaged: not text") from None


def _table(path: Path, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    return _parsed(_text(path), path)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: is damaged: not a table of names and values")
    return content
