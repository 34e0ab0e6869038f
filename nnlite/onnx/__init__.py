"""ONNX files in and out."""

from __future__ import annotations

from nnlite.onnx.reader import Origin, Problem, declared_sizes, load, read
from nnlite.onnx.writer import save, to_model

__all__ = ["Origin", "Problem", "declared_sizes", "load", "read", "save", "to_model"]
