"""Numbers from shapes and places: arange, and where an array is not zero."""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.element_types import dtype_of
from nnlite.ops.record import ArrayType, Context, ErrorSample, OnnxNode, OnnxWriter, Op, Sample, register

# ---------------------------------------------------------------------------------------- arange


def arange_shape(start: float, limit: float, step: float, dtype: str) -> ArrayType:
    if step == 0:
        raise OperandError("arange: a step of 0 leads nowhere")
    if not all(map(isfinite, (start, limit, step))):
        raise OperandError(f"arange: start {start}, limit {limit} and step {step} must be finite")
    whole = all(isinstance(number, int) for number in (start, limit, step))
    # Whole numbers are counted exactly, however large.
    count = -((start - limit) // step) if whole else ceil((limit - start) / step)
    return ArrayType((max(int(count), 0),), np.dtype(dtype))


def arange_forward(ctx: Context, start: float, limit: float, step: float, dtype: str) -> Array:
    (count,) = arange_shape(start, limit, step, dtype).shape
    kind = np.dtype(dtype)
    places = np.arange(count).astype(kind)
    return as_array(places * kind.type(step) + kind.type(start))


def read_range(n: OnnxNode) -> Any:
    kind = n.kind(0)
    if kind is None:
        raise n.refuse("the element type of its inputs is not known")
    n.attribute("stash_type")  # in which type half precision is computed: in float32
    name = dtype_of(kind).name
    dtype = "float32" if name in ("float16", "bfloat16") else name
    start, limit, step = (n.scalar(i) for i in range(3))
    return n.emit("arange", start=start, limit=limit, step=step, dtype=dtype)


def write_arange(w: OnnxWriter, node: Node) -> str:
    dtype = np.dtype(node.params["dtype"])
    return w.add("Range", [w.host(node.params[name], dtype) for name in ("start", "limit", "step")])


register(
    Op(
        name="arange",
        formula="y[i] = start + i · step for i = 0 … ⌈(limit - start) / step⌉ - 1",
        gradient="none: there is no operand",
        source="ONNX Range-11; torch.arange",
        shape=arange_shape,
        forward=arange_forward,
        backward=None,
        samples=lambda: [
            Sample(start=3, limit=10, step=3, dtype="int64"),
            Sample(start=10, limit=4, step=-2, dtype="int64"),
            Sample(start=1.0, limit=2.05, step=0.25, dtype="float32"),
            Sample(start=1, limit=1, step=1, dtype="int32"),
        ],
        errors=lambda: [
            ErrorSample(OperandError, "leads nowhere", start=0, limit=1, step=0, dtype="int64"),
            ErrorSample(
                OperandError, "must be finite", start=0.0, limit=float("inf"), step=1.0, dtype="float32"
            ),
        ],
        reads={"Range": read_range},
        writes=write_arange,
    )
)

# --------------------------------------------------------------------------------------- nonzero


def nonzero_shape(x: ArrayType) -> ArrayType:
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"nonzero: x is {x.dtype}, not a number type")
    return ArrayType((len(x.shape), -1), np.dtype(np.int64))


def nonzero_forward(ctx: Context, x: Array) -> Array:
    if x.ndim == 0:
        return np.zeros((0, int(x != 0)), np.int64)
    return np.stack(np.nonzero(x)).astype(np.int64, copy=False)


register(
    Op(
        name="nonzero",
        formula="y [rank, count]: column by column the indices of the elements of x that are not 0, "
        "in row-major order",
        gradient="none: integers carry no gradient",
        source="ONNX NonZero-13; torch.nonzero (transposed)",
        shape=nonzero_shape,
        forward=nonzero_forward,
        backward=None,
        samples=lambda: [Sample(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]])), Sample(np.zeros((2, 3)))],
        errors=lambda: [ErrorSample(DTypeError, "not a number type", np.array(["a"]))],
        reads={"NonZero": lambda n: n.emit("nonzero", *n.inputs)},
        writes=lambda w, node: w.add("NonZero", node.inputs),
    )
)
