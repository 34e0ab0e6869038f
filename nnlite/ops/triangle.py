"""Matrices by their diagonals: the triangle above or below one (trilu), and ones along one (eye)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.element_types import code_of, dtype_of
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Sample,
    register,
)


def _part(x: Array, k: int, upper: bool) -> Array:
    # NumPy takes only so large a k; beyond the corners nothing changes.
    k = max(min(int(k), x.shape[-1]), -x.shape[-2])
    return as_array(np.triu(x, k) if upper else np.tril(x, k))


def trilu_shape(x: ArrayType, k: int, upper: bool) -> ArrayType:
    if len(x.shape) < 2:
        raise ShapeError(f"trilu: x has shape {list(x.shape)} but must be [...,rows,columns]")
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"trilu: x is {x.dtype}, not a number type")
    return x


def trilu_forward(ctx: Context, x: Array, k: int, upper: bool) -> Array:
    return _part(x, k, upper)


def trilu_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (_part(gy, ctx.params["k"], ctx.params["upper"]),)


def read_trilu(n: OnnxNode) -> Any:
    return n.emit("trilu", n.inputs[0], k=n.scalar(1, 0), upper=bool(n.attribute("upper", 1)))


def write_trilu(w: OnnxWriter, node: Node) -> str:
    return w.add("Trilu", [node.inputs[0], w.host(node.params["k"])], upper=int(node.params["upper"]))


register(
    Op(
        name="trilu",
        formula="y[…,i,j] = x[…,i,j] where j - i ≥ k (upper) or j - i ≤ k (lower), else 0",
        gradient="gx = the same part of gy",
        source="ONNX Trilu-14; torch.triu, torch.tril",
        shape=trilu_shape,
        forward=trilu_forward,
        backward=trilu_backward,
        samples=lambda: [
            Sample((3, 4), k=0, upper=True),
            Sample((2, 4, 3), k=-1, upper=False),
            Sample((3, 3), k=9, upper=True),
            Sample(np.ones((3, 3), bool), k=1, upper=False, gradcheck=False),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "rows,columns", (3,), k=0, upper=True),
            ErrorSample(DTypeError, "not a number type", np.array([["a"]]), k=0, upper=True),
        ],
        reads={"Trilu": read_trilu},
        writes=write_trilu,
    )
)

# ------------------------------------------------------------------------------------------- eye


def eye_shape(shape: Sequence[int], k: int, dtype: str) -> ArrayType:
    if len(shape) != 2:
        raise ShapeError(f"eye: shape {list(shape)} must be (rows, columns)")
    return ArrayType((int(shape[0]), int(shape[1])), np.dtype(dtype))


def eye_forward(ctx: Context, shape: Sequence[int], k: int, dtype: str) -> Array:
    rows, columns = shape
    return np.eye(rows, columns, max(min(int(k), columns), -rows), dtype)


def read_eye(n: OnnxNode) -> Any:
    kind = n.attribute("dtype", n.kind(0))
    if kind is None:
        raise n.refuse("the element type of its input is not known")
    name = dtype_of(kind).name
    dtype = "float32" if name in ("float16", "bfloat16") else name
    return n.emit("eye", shape=n.emit("shape_of", n.inputs[0]), k=n.attribute("k", 0), dtype=dtype)


def write_eye(w: OnnxWriter, node: Node) -> str:
    kind = code_of(node.params["dtype"])
    of = w.add("ConstantOfShape", [w.host(node.params["shape"])])
    return w.add("EyeLike", [of], k=node.params["k"], dtype=int(kind))


register(
    Op(
        name="eye",
        formula="y[i,j] = 1 where j - i = k, else 0;  y [rows,columns]",
        gradient="none: there is no operand",
        source="ONNX EyeLike-22; torch.eye",
        shape=eye_shape,
        forward=eye_forward,
        backward=None,
        samples=lambda: [
            Sample(shape=(3, 4), k=1, dtype="float32"),
            Sample(shape=(3, 2), k=-1, dtype="int64"),
        ],
        errors=lambda: [ErrorSample(ShapeError, "rows, columns", shape=(3,), k=0, dtype="float32")],
        reads={"EyeLike": read_eye},
        writes=write_eye,
    )
)
