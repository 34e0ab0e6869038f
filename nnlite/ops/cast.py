"""Conversion between element types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError
from nnlite.layout import Array, contiguous
from nnlite.node import Node, Value
from nnlite.ops.element_types import code_named, code_of, dtype_named, dtype_of, name_of
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
from nnlite.ops.storage import is_storage, stored

ROUND_MODES = ("up", "down", "nearest")


def cast_shape(x: ArrayType, dtype: str, saturate: bool = True, round_mode: str = "up") -> ArrayType:
    kind = dtype_named(dtype)
    if kind.kind not in "fiub" and kind.name != "bfloat16" and not is_storage(kind):
        raise DTypeError(f"cast: {dtype} is not a number type")
    if round_mode not in ROUND_MODES:
        raise OperandError(f"cast: round_mode={round_mode!r} must be one of {', '.join(ROUND_MODES)}")
    return ArrayType(x.shape, kind)


def cast_forward(ctx: Context, x: Array, dtype: str, saturate: bool = True, round_mode: str = "up") -> Array:
    ctx.values["dtype"], kind = x.dtype, dtype_named(dtype)
    with np.errstate(all="ignore"):  # what becomes of an infinity or a NaN as an integer is not defined
        return stored(x, kind, saturate, round_mode) if is_storage(kind) else x.astype(kind)


def cast_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (gy.astype(ctx.values["dtype"]),)


def cast_samples() -> Iterator[Sample]:
    yield Sample((2, 3), dtype="float64")
    yield Sample(np.array([1, 0, 3]), dtype="float32", gradcheck=False)
    yield Sample(np.array([1.7, -1.7]), dtype="int64", gradcheck=False)


def emit_cast(n: OnnxNode, x: Value | None, kind: Any) -> Any:
    """x as ONNX's element type ``kind``; half precision is rounded so, but computed in float32."""
    name, dtype = name_of(kind), None
    if name not in (None, "STRING", "COMPLEX64", "COMPLEX128"):
        dtype = dtype_of(kind)
    if dtype is None or not (dtype.kind in "fiub" or dtype.name == "bfloat16" or is_storage(dtype)):
        raise n.refuse(f"the element type {name or kind} is not supported")
    saturate, round_mode = bool(n.attribute("saturate", 1)), n.attribute("round_mode", "up")
    options = dict(saturate=saturate, round_mode=round_mode) if is_storage(dtype) else {}
    y = n.emit("cast", x, dtype=dtype.name, **options)
    return n.emit("cast", y, dtype="float32") if name in ("FLOAT16", "BFLOAT16") else y


def read_cast(n: OnnxNode) -> Any:
    to = n.attribute("to")
    if isinstance(to, str):  # until operator set 5 in words
        to = code_named(to.upper()) or to
    return emit_cast(n, n.inputs[0], to)


def read_cast_like(n: OnnxNode) -> Any:
    if n.kind(1) is None:
        raise n.refuse("the element type of its second input is not known")
    return emit_cast(n, n.inputs[0], n.kind(1))


def write_cast(w: OnnxWriter, node: Node) -> str:
    attributes = {"to": code_of(node.params["dtype"])}
    if not node.params.get("saturate", True):
        attributes["saturate"] = 0
    return w.add("Cast", node.inputs, **attributes)


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
        errors=lambda: [
            ErrorSample(DTypeError, "not a number type", (2, 3), dtype="str"),
            ErrorSample(OperandError, "must be one of up", (2, 3), dtype="float32", round_mode="away"),
        ],
        reads={"Cast": read_cast, "CastLike": read_cast_like},
        writes=write_cast,
    )
)

# -------------------------------------------------------------------------------------- bit_cast


def bit_cast_shape(x: ArrayType, dtype: str) -> ArrayType:
    kind = np.dtype(dtype)
    if kind.kind not in "fiub" or kind.itemsize != x.dtype.itemsize:
        raise DTypeError(f"bit_cast: {x.dtype} and {dtype} are not numbers of as many bits")
    return ArrayType(x.shape, kind)


def bit_cast_forward(ctx: Context, x: Array, dtype: str) -> Array:
    y: Array = contiguous(x).view(dtype).reshape(x.shape)
    return y


def read_bit_cast(n: OnnxNode) -> Any:
    kinds = n.kind(0), n.attribute("to")
    for kind in kinds:
        if kind is None or dtype_of(kind).name in ("float16", "bfloat16"):
            raise n.refuse("the bits of half precision, or of an unknown type, are not at hand")
    return n.emit("bit_cast", n.inputs[0], dtype=dtype_of(kinds[1]).name)


def write_bit_cast(w: OnnxWriter, node: Node) -> str:
    to = code_of(node.params["dtype"])
    return w.add("BitCast", node.inputs, to=to)


register(
    Op(
        name="bit_cast",
        formula="the bits of x read as elements of type dtype, which has as many",
        gradient="none: bits carry no gradient",
        source="ONNX BitCast-26; torch.Tensor.view(dtype)",
        shape=bit_cast_shape,
        forward=bit_cast_forward,
        backward=None,
        samples=lambda: [Sample(np.array([[1, -2], [3, 4]], np.int32), dtype="uint32")],
        errors=lambda: [ErrorSample(DTypeError, "as many bits", np.array([1, 2]), dtype="int32")],
        reads={"BitCast": read_bit_cast},
        writes=write_bit_cast,
    )
)
