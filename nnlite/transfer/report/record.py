"""What a run folder says, read with suspicion: it may come from somebody else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlite.errors import DataError
from nnlite.files import parse_table, read_text


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
        lines = folder / "history.jsonl"
        history = [
            line for line in read_text(lines, DataError).splitlines() if line.strip()
        ] if lines.exists() else []  # fmt: skip
        return cls(
            folder,
            _table(folder / "metrics.json"),
            _table(folder / "config.json"),
            [parse_table(line, lines, DataError) for line in history],
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


def _table(path: Path, optional: bool = False) -> dict[str, Any]:
    return {} if optional and not path.exists() else parse_table(read_text(path, DataError), path, DataError)
