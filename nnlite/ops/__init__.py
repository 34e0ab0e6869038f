"""Op records by family. Importing this package fills the registry."""

from __future__ import annotations

from nnlite.ops import cast, conv, elementwise, indexing, linear, loss, norm, pool, reduce, shape
from nnlite.ops.record import OPS, READERS, ArrayType, Context, ErrorSample, Op, Sample, register

__all__ = [
    "OPS",
    "READERS",
    "ArrayType",
    "Context",
    "ErrorSample",
    "Op",
    "Sample",
    "cast",
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "loss",
    "norm",
    "pool",
    "reduce",
    "register",
    "shape",
]
