"""Conversion between element types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError
from nnlite.layout import Array
from nnlite.node import Node, Value
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

NAMES = (
    "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE", "UINT32",
    "UINT64", "BFLOAT16",
)  # fmt: skip
"""ONNX's element types that can be computed with."""


def cast_shape(x: ArrayType, dtype: str) -> ArrayType:
    if np.dtype(dtype).kind not in "fiub" and dtype != "bfloat16":
        raise DTypeError(f"cast: {dtype} is not a number type")
    return ArrayType(x.shape, np.dtype(dtype))


def cast_forward(ctx: Context, x: Array, dtype: str) -> Array:
    ctx.values["dtype"] = x.dtype
    with np.errstate(all="ignore"):  # what becomes of an infinity or a NaN as an integer is not defined
        return x.astype(dtype)


def cast_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (gy.astype(ctx.values["dtype"]),)


def cast_samples() -> Iterator[Sample]:
    yield Sample((2, 3), dtype="float64")
    yield Sample(np.array([1, 0, 3]), dtype="float32", gradcheck=False)
    yield Sample(np.array([1.7, -1.7]), dtype="int64", gradcheck=False)


def emit_cast(n: OnnxNode, x: Value | None, kind: Any) -> Any:
    """x as ONNX's element type ``kind``; half precision is rounded so, but computed in float32."""
    from onnx import TensorProto, helper

    name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else None
    if name not in NAMES:
        raise n.refuse(f"the element type {name or kind} is not supported")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    y = n.emit("cast", x, dtype=dtype.name)
    return n.emit("cast", y, dtype="float32") if name in ("FLOAT16", "BFLOAT16") else y


def read_cast(n: OnnxNode) -> Any:
    n.attribute("saturate")  # both matter to 8-bit floats only, which are not supported
    n.attribute("round_mode")
    to = n.attribute("to")
    if isinstance(to, str):  # until operator set 5 in words
        from onnx import TensorProto

        to = dict(TensorProto.DataType.items()).get(to.upper(), to)
    return emit_cast(n, n.inputs[0], to)


def read_cast_like(n: OnnxNode) -> Any:
    n.attribute("saturate")
    n.attribute("round_mode")
    if n.kind(1) is None:
        raise n.refuse("the element type of its second input is not known")
    return emit_cast(n, n.inputs[0], n.kind(1))


def write_cast(w: OnnxWriter, node: Node) -> str:
    from onnx import helper

    return w.add("Cast", node.inputs, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(node.params["dtype"]))))


register(
    Op(
        name="cast",
        formula="y = x with elements of type dtype; floats become integers by truncation",
        gradient="gy converted back to x's type",
        source="ONNX Cast-13",
        shape=cast_shape,
        forward=cast_forward,
        backward=cast_backward,
        samples=cast_samples,
        errors=lambda: [ErrorSample(DTypeError, "not a number type", (2, 3), dtype="str")],
        reads={"Cast": read_cast, "CastLike": read_cast_like},
        writes=write_cast,
    )
)
