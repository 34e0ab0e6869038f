"""Conversion between element types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError
from nnlite.layout import Array
from nnlite.node import Node
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


def cast_shape(x: ArrayType, dtype: str) -> ArrayType:
    if np.dtype(dtype).kind not in "fiub":
        raise DTypeError(f"cast: {dtype} is not a number type")
    return ArrayType(x.shape, np.dtype(dtype))


def cast_forward(ctx: Context, x: Array, dtype: str) -> Array:
    ctx.values["dtype"] = x.dtype
    return x.astype(dtype)


def cast_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (gy.astype(ctx.values["dtype"]),)


def cast_samples() -> Iterator[Sample]:
    yield Sample((2, 3), dtype="float64")
    yield Sample(np.array([1, 0, 3]), dtype="float32", gradcheck=False)
    yield Sample(np.array([1.7, -1.7]), dtype="int64", gradcheck=False)


def read_cast(n: OnnxNode) -> Any:
    from onnx import helper

    n.attribute("saturate")  # both matter to 8-bit floats only, which are not supported
    n.attribute("round_mode")
    try:
        name = np.dtype(helper.tensor_dtype_to_np_dtype(n.attribute("to"))).name
    except (KeyError, ValueError, TypeError):
        raise n.refuse(f"the element type {n.attribute('to')} is not known") from None
    # Half precision is computed in float32.
    return n.emit("cast", n.inputs[0], dtype="float32" if name in ("float16", "bfloat16") else name)


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
        reads={"Cast": read_cast},
        writes=write_cast,
    )
)
