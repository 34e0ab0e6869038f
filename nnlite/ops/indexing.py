"""Choosing, repeating and asking: gather, expand, identity, shape_of, full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.elementwise import broadcast_shape, unbroadcast
from nnlite.ops.one_axis import add_at
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
from nnlite.ops.reduce import normalise_axes

# ---------------------------------------------------------------------------------------- gather


def gather_shape(x: ArrayType, indices: ArrayType, axis: int) -> ArrayType:
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"gather: indices are {indices.dtype} but must be integers")
    (at,) = normalise_axes("gather", (axis,), len(x.shape))
    return ArrayType((*x.shape[:at], *indices.shape, *x.shape[at + 1 :]), x.dtype)


def gather_forward(ctx: Context, x: Array, indices: Array, axis: int) -> Array:
    size = x.shape[axis]
    if indices.size and (indices.min() < -size or indices.max() >= size):
        bad = int(indices.min()) if indices.min() < -size else int(indices.max())
        raise OperandError(f"gather: index {bad} is out of range for axis {axis} of size {size}")
    ctx.save(indices)
    ctx.values["x_shape"] = x.shape
    return np.take(x, indices, axis)


def gather_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    indices, x_shape = ctx.saved[0], ctx.values["x_shape"]
    axis = ctx.params["axis"] % len(x_shape)
    gx = np.zeros((x_shape[axis], *x_shape[:axis], *x_shape[axis + 1 :]), gy.dtype, like=gy)
    at = range(axis, axis + indices.ndim)
    add_at(gx, indices, np.moveaxis(gy, at, range(indices.ndim)))  # repeated indices add up
    return np.moveaxis(gx, 0, axis), None


def gather_samples() -> Iterator[Sample]:
    yield Sample((4, 3), np.array([0, 2, 2, -1]), axis=0)
    yield Sample((2, 3, 4), np.array([[1, 0], [3, 3]]), axis=-1)
    yield Sample((5,), np.array(2), axis=0)


def gather_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(OperandError, "index 4 is out of range", (4, 3), np.array([0, 4]), axis=0)
    yield ErrorSample(OperandError, "index -5 is out of range", (4, 3), np.array([0, -5]), axis=0)
    yield ErrorSample(DTypeError, "must be integers", (4, 3), (2,), axis=0)
    yield ErrorSample(ShapeError, "out of range", (4, 3), np.array([0]), axis=2)


register(
    Op(
        name="gather",
        formula="y = x[..., indices, ...] along axis; negative indices count from the end",
        gradient="gx[..., i, ...] = Σ gy over the places that chose i",
        source="ONNX Gather-13",
        shape=gather_shape,
        forward=gather_forward,
        backward=gather_backward,
        samples=gather_samples,
        errors=gather_errors,
        reads={"Gather": lambda n: n.emit("gather", *n.inputs, axis=n.attribute("axis", 0))},
        writes=lambda w, node: w.add("Gather", node.inputs, axis=node.params["axis"]),
    )
)

# ---------------------------------------------------------------------------------------- expand


def expand_shape(x: ArrayType, shape: Sequence[int]) -> ArrayType:
    return ArrayType(broadcast_shape("expand", x.shape, tuple(int(n) for n in shape)), x.dtype)


def expand_forward(ctx: Context, x: Array, shape: Sequence[int]) -> Array:
    ctx.values["x_shape"] = x.shape
    target = expand_shape(ArrayType(x.shape, x.dtype), shape).shape
    y: Array = np.broadcast_to(x, target).copy("K")
    return y


def expand_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (unbroadcast(gy, ctx.values["x_shape"]),)


register(
    Op(
        name="expand",
        formula="x repeated along axes of size 1 (and new leading axes) until it has the given shape",
        gradient="gx = gy summed over the repeated axes",
        source="ONNX Expand-13; torch.Tensor.expand",
        shape=expand_shape,
        forward=expand_forward,
        backward=expand_backward,
        samples=lambda: [Sample((3, 1), shape=(2, 3, 4)), Sample((2, 3), shape=(1, 3))],
        errors=lambda: [ErrorSample(ShapeError, "do not broadcast", (3, 2), shape=(3, 4))],
        reads={"Expand": lambda n: n.emit("expand", n.inputs[0], shape=n.host(1))},
        writes=lambda w, node: w.add("Expand", [node.inputs[0], w.host(node.params["shape"])]),
    )
)

# -------------------------------------------------------------------------------------- identity


def _identity_rule(x: ArrayType) -> ArrayType:
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"identity: x is {x.dtype}, not a number type")
    return x


register(
    Op(
        name="identity",
        formula="y = x",
        gradient="gx = gy",
        source="ONNX Identity-16",
        shape=_identity_rule,
        forward=lambda ctx, x: x,
        backward=lambda ctx, gy, needs: (gy,),
        samples=lambda: [Sample((2, 3))],
        errors=lambda: [ErrorSample(DTypeError, "not a number", np.array(["a"]))],
        reads={"Identity": lambda n: n.emit("identity", n.inputs[0])},
        writes=lambda w, node: w.add("Identity", node.inputs),
    )
)

# ------------------------------------------------------------------------------- shape_of, full


def _bounds(start: int, end: int | None, rank: int) -> tuple[int, int]:
    first, last, _ = slice(start, end).indices(rank)
    return first, max(first, last)


def shape_of_shape(x: ArrayType, start: int = 0, end: int | None = None) -> ArrayType:
    if not isinstance(start, int):
        raise OperandError(f"shape_of: start={start!r} must be an integer")
    first, last = _bounds(start, end, len(x.shape))
    return ArrayType((last - first,), np.dtype(np.int64))


def shape_of_forward(ctx: Context, x: Array, start: int = 0, end: int | None = None) -> Array:
    return np.asarray(x.shape[slice(*_bounds(start, end, x.ndim))], np.int64)


def write_shape_of(w: OnnxWriter, node: Node) -> str:
    if w.version < 15:
        if node.params.get("start", 0) or node.params.get("end") is not None:
            raise ShapeError("shape_of: start and end need operator set 15; export with opset=15")
        return w.add("Shape", node.inputs)
    end = {} if node.params.get("end") is None else {"end": node.params["end"]}
    return w.add("Shape", node.inputs, start=node.params.get("start", 0), **end)


def read_shape_of(n: OnnxNode) -> Any:
    return n.emit("shape_of", n.inputs[0], start=n.attribute("start", 0), end=n.attribute("end"))


register(
    Op(
        name="shape_of",
        formula="the sizes of x's axes start..end as integers [rank]",
        gradient="none: integers carry no gradient",
        source="ONNX Shape-15",
        shape=shape_of_shape,
        forward=shape_of_forward,
        backward=None,
        samples=lambda: [Sample((2, 3, 4)), Sample((2, 3, 4), start=1, end=-1)],
        errors=lambda: [ErrorSample(OperandError, "must be an integer", (2, 3), start=0.5)],
        reads={"Shape": read_shape_of},
        writes=write_shape_of,
    )
)


def full_shape(shape: Sequence[int], value: float, dtype: str) -> ArrayType:
    if min(shape, default=0) < 0:
        raise ShapeError(f"full: sizes {list(shape)} must not be negative")
    return ArrayType(tuple(int(n) for n in shape), np.dtype(dtype))


def full_forward(ctx: Context, shape: Sequence[int], value: float, dtype: str) -> Array:
    y = memory.empty(tuple(int(n) for n in shape), dtype)
    y[...] = value
    return y


def read_constant_of_shape(n: OnnxNode) -> Any:
    value = n.attribute("value")
    value = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return n.emit("full", shape=n.host(0), value=value.item(), dtype=value.dtype.name)


def write_full(w: OnnxWriter, node: Node) -> str:
    value = np.asarray([node.params["value"]], node.params["dtype"])
    return w.add("ConstantOfShape", [w.host(node.params["shape"])], value=value)


register(
    Op(
        name="full",
        formula="an array of the given shape whose elements are all value",
        gradient="none: there is no operand",
        source="ONNX ConstantOfShape-9",
        shape=full_shape,
        forward=full_forward,
        backward=None,
        samples=lambda: [Sample(shape=(2, 3), value=1.5, dtype="float32")],
        errors=lambda: [
            ErrorSample(ShapeError, "must not be negative", shape=(2, -1), value=0.0, dtype="int64")
        ],
        reads={"ConstantOfShape": read_constant_of_shape},
        writes=write_full,
    )
)
