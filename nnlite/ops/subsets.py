"""Elements chosen by what they hold: compress, unique, hardmax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.one_axis import places_along
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

INT64 = np.dtype(np.int64)

# -------------------------------------------------------------------------------------- compress


def compress_shape(x: ArrayType, condition: ArrayType, axis: int | None) -> ArrayType:
    if len(condition.shape) != 1 or condition.dtype.kind != "b":
        raise DTypeError(f"compress: the condition is {condition} but must be a list of truth values")
    if axis is None:
        return ArrayType((-1,), x.dtype)
    (at,) = normalise_axes("compress", (axis,), len(x.shape))
    return ArrayType((*x.shape[:at], -1, *x.shape[at + 1 :]), x.dtype)


def compress_forward(ctx: Context, x: Array, condition: Array, axis: int | None) -> Array:
    size = x.size if axis is None else x.shape[axis]
    (places,) = np.nonzero(condition)
    if places.size and int(places[-1]) >= size:
        raise ShapeError(f"compress: the condition holds at place {int(places[-1])} of {size}")
    ctx.save(places)
    ctx.values["x_shape"] = x.shape
    return x.reshape(-1)[places] if axis is None else x.take(places, axis)


def compress_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    axis, gx = ctx.params["axis"], np.zeros(ctx.values["x_shape"], gy.dtype, like=gy)
    if axis is None:
        gx.reshape(-1)[ctx.saved[0]] = gy
    else:
        np.moveaxis(gx, axis, 0)[ctx.saved[0]] = np.moveaxis(gy, axis, 0)
    return gx, None


def compress_errors() -> Iterator[ErrorSample]:
    yes = np.array([True, False])
    yield ErrorSample(DTypeError, "list of truth values", (2, 3), np.array([1, 0]), axis=0)
    yield ErrorSample(DTypeError, "list of truth values", (2, 3), yes[None], axis=0)
    yield ErrorSample(ShapeError, "out of range", (2, 3), yes, axis=2)
    yield ErrorSample(ShapeError, "holds at place 2 of 2", (2, 3), np.array([True, False, True]), axis=0)


register(
    Op(
        name="compress",
        formula="the slices of x along axis (its elements, for axis None) at the places where condition "
        "holds; a condition that is shorter than the axis does not hold for the rest",
        gradient="gx = gy at those places, 0 elsewhere",
        source="ONNX Compress-11; numpy.compress",
        shape=compress_shape,
        forward=compress_forward,
        backward=compress_backward,
        samples=lambda: [
            Sample((3, 4), np.array([True, False, True]), axis=0),
            Sample((2, 3, 2), np.array([False, True]), axis=-2),
            Sample((2, 3), np.array([True, False, True, True]), axis=None),
        ],
        errors=compress_errors,
        reads={"Compress": lambda n: n.emit("compress", *n.inputs, axis=n.attribute("axis"))},
        writes=lambda w, node: w.add("Compress", node.inputs, axis=node.params["axis"]),
    )
)

# ---------------------------------------------------------------------------------------- unique


def unique_places_shape(x: ArrayType, axis: int | None, ordered: bool) -> tuple[ArrayType, ...]:
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"unique_places: x is {x.dtype} but must hold numbers")
    size = int(np.prod(x.shape))
    if axis is not None:
        (at,) = normalise_axes("unique_places", (axis,), len(x.shape))
        size = x.shape[at]
    return ArrayType((-1,), INT64), ArrayType((size,), INT64), ArrayType((-1,), INT64)


def unique_places_forward(ctx: Context, x: Array, axis: int | None, ordered: bool) -> tuple[Array, ...]:
    if axis is not None and x.size == 0:
        raise ShapeError(f"unique_places: x {list(x.shape)} has no elements to compare")
    _, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not ordered:  # in the order of their first places
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order), like=order)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return tuple(a.astype(np.int64, copy=False) for a in (first, inverse, counts))


def read_unique(n: OnnxNode) -> Any:
    x, axis = n.inputs[0], n.attribute("axis")
    params = dict(axis=axis, ordered=bool(n.attribute("sorted", 1)))
    places, inverse, counts = n.emit("unique_places", x, outputs=3, **params)
    if axis is None:
        x, axis = n.emit("reshape", x, shape=(-1,)), 0
    return n.emit("gather", x, places, axis=axis), places, inverse, counts


def write_unique(w: OnnxWriter, node: Node) -> list[str]:
    axis, ordered = node.params["axis"], int(node.params["ordered"])
    return w.add_many("Unique", node.inputs, 4, axis=axis, sorted=ordered)[1:]


_TWICE = np.array([[3.0, 1, 1], [1, 2, 2], [3, 1, 1], [1, 0, 0]])
register(
    Op(
        name="unique_places",
        formula="where each different element of x (or slice along axis) first stands, sorted by what it "
        "holds or, unordered, by place; for every element the number of the one it equals; "
        "how often each occurs",
        gradient="none: places carry no gradient; the elements are gather of them",
        source="ONNX Unique-11 (all but the first output); torch.unique, numpy.unique",
        shape=unique_places_shape,
        forward=unique_places_forward,
        backward=None,
        samples=lambda: [
            Sample(_TWICE, axis=None, ordered=True),
            Sample(_TWICE, axis=0, ordered=True),
            Sample(_TWICE, axis=-1, ordered=False),
            Sample(np.array([2, 1, 1, 3, 4, 3]), axis=None, ordered=False),
        ],
        errors=lambda: [
            ErrorSample(DTypeError, "must hold numbers", np.array(["a"]), axis=None, ordered=True),
            ErrorSample(ShapeError, "out of range", (2, 3), axis=2, ordered=True),
            ErrorSample(ShapeError, "no elements", (0, 3), axis=1, ordered=True),
        ],
        reads={"Unique": read_unique},
        writes=write_unique,
    )
)

# --------------------------------------------------------------------------------------- hardmax


def hardmax_shape(x: ArrayType, axis: int) -> ArrayType:
    if x.dtype.kind != "f":
        raise DTypeError(f"hardmax: x is {x.dtype} but must be floating-point; convert with astype")
    (at,) = normalise_axes("hardmax", (axis,), len(x.shape))
    if x.shape[at] == 0:
        raise ShapeError(f"hardmax: x {list(x.shape)} has no elements along axis {axis}")
    return x


def hardmax_forward(ctx: Context, x: Array, axis: int) -> Array:
    y = np.zeros_like(x)
    y[places_along(np.expand_dims(x.argmax(axis), axis), axis)] = 1
    return y


def read_hardmax(n: OnnxNode) -> Any:
    x = n.inputs[0]
    if n.version >= 13:
        return n.emit("hardmax", x, axis=n.attribute("axis", -1))
    # Before operator set 13 there is one maximum for all axes from ``axis`` on.
    flat = n.emit("hardmax", n.emit("flatten", x, start=n.attribute("axis", 1), end=-1), axis=-1)
    return n.emit("reshape", flat, shape=n.emit("shape_of", x))


register(
    Op(
        name="hardmax",
        formula="1 at the (first) maximum along axis, 0 elsewhere",
        gradient="none: constant wherever it is smooth",
        source="ONNX Hardmax-13",
        shape=hardmax_shape,
        forward=hardmax_forward,
        backward=None,
        samples=lambda: [
            Sample((3, 4), axis=-1),
            Sample((2, 3, 4), axis=1),
            Sample(np.array([[1.0, 3, 3]]), axis=1),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "out of range", (3, 4), axis=2),
            ErrorSample(ShapeError, "no elements", (3, 0), axis=1),
            ErrorSample(DTypeError, "floating-point", np.ones((2, 2), int), axis=1),
        ],
        reads={"Hardmax": read_hardmax},
        writes=lambda w, node: w.add("Hardmax", node.inputs, axis=node.params["axis"]),
    )
)
