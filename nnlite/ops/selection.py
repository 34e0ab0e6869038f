"""Choosing elements by their place: gather_elements, top k, argmax, one-hot, split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.one_axis import add_at, places_along
from nnlite.ops.onnx_window import FLOATS
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


def _check_indices(op: str, x: ArrayType, indices: ArrayType, axis: int) -> int:
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"{op}: indices are {indices.dtype} but must be integers")
    (at,) = normalise_axes(op, (axis,), len(x.shape))
    fits = len(indices.shape) == len(x.shape) and all(
        i == at or few <= many for i, (few, many) in enumerate(zip(indices.shape, x.shape, strict=True))
    )
    if not fits:
        raise ShapeError(
            f"{op}: indices {list(indices.shape)} must have x's axes {list(x.shape)} and be no larger, "
            f"but for axis {axis}"
        )
    return at


def _check_range(op: str, indices: Array, size: int) -> None:
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        bad = int(indices.min()) if indices.min() < -size else int(indices.max())
        raise OperandError(f"{op}: index {bad} is out of range for an axis of size {size}")


# ------------------------------------------------------------------------------- gather_elements


def gather_elements_shape(x: ArrayType, indices: ArrayType, axis: int) -> ArrayType:
    _check_indices("gather_elements", x, indices, axis)
    return ArrayType(indices.shape, x.dtype)


def gather_elements_forward(ctx: Context, x: Array, indices: Array, axis: int) -> Array:
    _check_range("gather_elements", indices, x.shape[axis])
    ctx.save(indices)
    ctx.values["x_shape"] = x.shape
    return as_array(x[places_along(indices, axis)])


def gather_elements_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    gx = np.zeros(ctx.values["x_shape"], gy.dtype, like=gy)
    add_at(gx, places_along(ctx.saved[0], ctx.params["axis"]), gy)
    return gx, None


_CHOICE = np.array([[0, 2, 1], [1, 1, -1]])


def gather_elements_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(DTypeError, "must be integers", (2, 3), (2, 3), axis=1)
    yield ErrorSample(ShapeError, "no larger", (1, 3), _CHOICE, axis=1)
    yield ErrorSample(ShapeError, "must have x's axes", (3,), _CHOICE, axis=0)
    yield ErrorSample(ShapeError, "out of range", (2, 3), _CHOICE, axis=2)
    yield ErrorSample(OperandError, "index 2 is out of range", (2, 2), _CHOICE, axis=1)


register(
    Op(
        name="gather_elements",
        formula="y[i, j, …] = x[indices[i, j, …], j, …] for axis 0, likewise for the others; y has the "
        "shape of indices; negative indices count from the end",
        gradient="gx[place] = Σ gy over the elements that were taken from there",
        source="ONNX GatherElements-13; torch.gather",
        shape=gather_elements_shape,
        forward=gather_elements_forward,
        backward=gather_elements_backward,
        samples=lambda: [Sample((2, 3), _CHOICE, axis=1), Sample((4, 3, 2), _CHOICE[:, :, None], axis=0)],
        errors=gather_elements_errors,
        reads={"GatherElements": lambda n: n.emit("gather_elements", *n.inputs, axis=n.attribute("axis", 0))},
        writes=lambda w, node: w.add("GatherElements", node.inputs, axis=node.params["axis"]),
    )
)

# -------------------------------------------------------------------------- topk_indices, argmax


def _count(k: Any) -> int:
    """ONNX holds k in a list of one."""
    return int(k[0]) if isinstance(k, Sequence) else int(k)


def topk_indices_shape(x: ArrayType, k: Any, axis: int, largest: bool) -> ArrayType:
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"topk_indices: x is {x.dtype} but must hold numbers")
    (at,) = normalise_axes("topk_indices", (axis,), len(x.shape))
    if not 0 <= _count(k) <= x.shape[at]:
        raise ShapeError(f"topk_indices: k={_count(k)} must be 0 to {x.shape[at]}, the size of axis {axis}")
    return ArrayType((*x.shape[:at], _count(k), *x.shape[at + 1 :]), INT64)


def topk_indices_forward(ctx: Context, x: Array, k: Any, axis: int, largest: bool) -> Array:
    if largest:  # the reverse of a stable ascending order of the reversed: ties keep their order
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    first = (*[slice(None)] * (axis % x.ndim), slice(_count(k)))
    return as_array(order[first], INT64)


def read_topk(n: OnnxNode) -> Any:
    k = n.attribute("k") if n.version < 10 else n.host(1)
    axis, largest = n.attribute("axis", -1), bool(n.attribute("largest", 1))
    n.attribute("sorted")  # when 0, any order will do
    indices = n.emit("topk_indices", n.inputs[0], k=k, axis=axis, largest=largest)
    return n.emit("gather_elements", n.inputs[0], indices, axis=axis), indices


def write_topk(w: OnnxWriter, node: Node) -> str:
    (x,), params = node.inputs, node.params
    k = w.host((params["k"],) if isinstance(params["k"], int) else params["k"])
    return w.add_many("TopK", [x, k], 2, axis=params["axis"], largest=int(params["largest"]))[1]


register(
    Op(
        name="topk_indices",
        formula="the places of the k largest (or smallest) elements along axis, in order; ties by place",
        gradient="none: places carry no gradient; the elements are gather_elements of them",
        source="ONNX TopK-11 (second output); torch.topk, torch.sort",
        shape=topk_indices_shape,
        forward=topk_indices_forward,
        backward=None,
        samples=lambda: [
            Sample((3, 5), k=2, axis=-1, largest=True),
            Sample((4, 3, 2), k=4, axis=0, largest=False),
            Sample(np.array([1.0, 3, 3, 2]), k=3, axis=0, largest=True),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "k=6 must be 0 to 5", (3, 5), k=6, axis=1, largest=True),
            ErrorSample(ShapeError, "out of range", (3, 5), k=1, axis=2, largest=True),
            ErrorSample(DTypeError, "must hold numbers", np.array(["a"]), k=1, axis=0, largest=True),
        ],
        reads={"TopK": read_topk},
        writes=write_topk,
    )
)


def _argument(name: str, onnx: str, function: Any) -> None:
    def shape(x: ArrayType, axis: int, keepdims: bool, last: bool = False) -> ArrayType:
        (at,) = normalise_axes(name, (axis,), len(x.shape))
        if x.dtype.kind not in "fiu":
            raise DTypeError(f"{name}: x is {x.dtype} but must hold numbers")
        if x.shape[at] == 0:
            raise ShapeError(f"{name}: x {list(x.shape)} has no elements along axis {axis}")
        return ArrayType((*x.shape[:at], *((1,) if keepdims else ()), *x.shape[at + 1 :]), INT64)

    def forward(ctx: Context, x: Array, axis: int, keepdims: bool, last: bool = False) -> Array:
        if last:
            return as_array(x.shape[axis] - 1 - function(np.flip(x, axis), axis, keepdims=keepdims), INT64)
        return as_array(function(x, axis, keepdims=keepdims), INT64)

    def read(n: OnnxNode) -> Any:
        params = {"axis": n.attribute("axis", 0), "keepdims": bool(n.attribute("keepdims", 1))}
        return n.emit(name, n.inputs[0], **params, last=bool(n.attribute("select_last_index", 0)))

    def write(w: OnnxWriter, node: Node) -> str:
        last = int(node.params.get("last", False))
        attributes = {"axis": node.params["axis"], "keepdims": int(node.params["keepdims"])}
        return w.add(onnx, node.inputs, **attributes, select_last_index=last)

    ties = np.array([[1.0, 3, 3], [2, 0, 2]])
    register(
        Op(
            name=name,
            formula=f"the place of the {name[3:]}imum along axis, the first (or last) of several",
            gradient="none: places carry no gradient",
            source=f"ONNX {onnx}-13; torch.{name}",
            shape=shape,
            forward=forward,
            backward=None,
            samples=lambda: [
                Sample((3, 4), axis=-1, keepdims=False),
                Sample(ties, axis=1, keepdims=True, last=True),
                Sample(ties, axis=0, keepdims=True),
            ],
            errors=lambda: [
                ErrorSample(ShapeError, "out of range", (2, 3), axis=2, keepdims=False),
                ErrorSample(ShapeError, "no elements", (2, 0), axis=1, keepdims=False),
                ErrorSample(DTypeError, "must hold numbers", np.array(["a"]), axis=0, keepdims=False),
            ],
            reads={onnx: read},
            writes=write,
        )
    )


_argument("argmax", "ArgMax", np.argmax)
_argument("argmin", "ArgMin", np.argmin)

# --------------------------------------------------------------------------------------- one_hot


def one_hot_shape(indices: ArrayType, depth: int, axis: int, on: float, off: float, dtype: str) -> ArrayType:
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"one_hot: indices are {indices.dtype} but must be integers")
    if depth < 1:
        raise ShapeError(f"one_hot: depth={depth} must be at least 1")
    (at,) = normalise_axes("one_hot", (axis,), len(indices.shape) + 1)
    return ArrayType((*indices.shape[:at], int(depth), *indices.shape[at:]), np.dtype(dtype))


def one_hot_forward(
    ctx: Context, indices: Array, depth: int, axis: int, on: float, off: float, dtype: str
) -> Array:
    wrapped = np.where(indices < 0, indices + int(depth), indices)
    hot = np.expand_dims(wrapped, -1) == np.arange(int(depth), like=indices)
    return as_array(np.moveaxis(np.where(hot, on, off), -1, axis), dtype)


def read_one_hot(n: OnnxNode) -> Any:
    values, depth, indices = n.constant(2), n.scalar(1), n.inputs[0]
    if n.kind(0) in FLOATS:
        indices = n.emit("cast", indices, dtype="int64")
    if values is None:
        hot = n.emit("one_hot", indices, depth=depth, axis=n.attribute("axis", -1), on=1, off=0, dtype="bool")
        off_value, on_value = (n.emit("gather", n.inputs[2], n.leaf(np.asarray(i)), axis=0) for i in (0, 1))
        return n.emit("where", hot, on_value, off_value)
    off, on = values.tolist()
    return n.emit(
        "one_hot", indices, depth=depth, axis=n.attribute("axis", -1), on=on, off=off,
        dtype=values.dtype.name,
    )  # fmt: skip


def write_one_hot(w: OnnxWriter, node: Node) -> str:
    params = node.params
    values = np.asarray([params["off"], params["on"]], params["dtype"])
    return w.add("OneHot", [node.inputs[0], w.host(params["depth"]), values], axis=params["axis"])


_HOT = dict[str, Any](on=1.0, off=0.0, dtype="float32")
register(
    Op(
        name="one_hot",
        formula="y[…, k] = on where the index is k, else off; the new axis of size depth stands at axis; "
        "negative indices count from the end, others out of range are off everywhere",
        gradient="none: indices carry no gradient",
        source="ONNX OneHot-11; torch.nn.functional.one_hot",
        shape=one_hot_shape,
        forward=one_hot_forward,
        backward=None,
        samples=lambda: [
            Sample(np.array([0, 2, -1]), depth=4, axis=-1, **_HOT),
            Sample(np.array([[0, 2], [1, 1]]), depth=3, axis=1, **_HOT | dict(on=0.9, off=0.1)),
        ],
        errors=lambda: [
            ErrorSample(DTypeError, "must be integers", (3,), depth=4, axis=-1, **_HOT),
            ErrorSample(ShapeError, "depth=0", np.array([0]), depth=0, axis=-1, **_HOT),
            ErrorSample(ShapeError, "out of range", np.array([0]), depth=2, axis=2, **_HOT),
        ],
        reads={"OneHot": read_one_hot},
        writes=write_one_hot,
    )
)
