"""ONNX files in and out. What writes is imported when something is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnlite.onnx.reader import Origin, Problem, declared_sizes, load, read

if TYPE_CHECKING:
    from nnlite.onnx.writer import save, to_model

__all__ = ["Origin", "Problem", "declared_sizes", "load", "read", "save", "to_model"]


def __getattr__(name: str) -> Any:
    if name not in ("save", "to_model"):
        raise AttributeError(f"module 'nnlite.onnx' has no attribute {name!r}")
    from nnlite.onnx import writer

    return getattr(writer, name)
