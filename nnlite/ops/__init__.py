"""Op records by family. Importing this package fills the registry."""

from __future__ import annotations

from nnlite.ops import (
    activation,
    arithmetic,
    cast,
    conv,
    elementwise,
    indexing,
    instance_norm,
    linear,
    logic,
    loss,
    norm,
    padding,
    pixel,
    pool,
    reduce,
    reduce_more,
    resize,
    shape,
)
from nnlite.ops.record import OPS, READERS, ArrayType, Context, ErrorSample, Op, Sample, register

__all__ = [
    "OPS",
    "READERS",
    "ArrayType",
    "Context",
    "ErrorSample",
    "Op",
    "Sample",
    "activation",
    "arithmetic",
    "cast",
    "conv",
    "elementwise",
    "indexing",
    "instance_norm",
    "linear",
    "logic",
    "loss",
    "norm",
    "padding",
    "pixel",
    "pool",
    "reduce",
    "reduce_more",
    "register",
    "resize",
    "shape",
]
