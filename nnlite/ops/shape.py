"""The same elements in another shape: reshape, flatten, transpose, squeeze, unsqueeze."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import ShapeError
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
from nnlite.ops.reduce import normalise_axes


def _restore_shape(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (gy.reshape(ctx.values["x_shape"]),)


# --------------------------------------------------------------------------------------- reshape


def reshape_shape(x: ArrayType, shape: Sequence[int], allowzero: bool = False) -> ArrayType:
    target = [int(size) for size in shape]
    if not allowzero:
        for i, size in enumerate(target):
            if size == 0:
                if i >= len(x.shape):
                    raise ShapeError(
                        f"reshape: size 0 at axis {i} copies an axis that x {list(x.shape)} lacks"
                    )
                target[i] = x.shape[i]
    if target.count(-1) > 1 or min(target, default=0) < -1:
        raise ShapeError(f"reshape: {list(shape)} must hold at most one -1 and nothing below it")
    total, known = int(np.prod(x.shape)), int(np.prod([s for s in target if s != -1]))
    if -1 in target:
        if known == 0 or total % known:
            raise ShapeError(
                f"reshape: {list(x.shape)} has {total} elements, which {list(shape)} cannot hold"
            )
        target[target.index(-1)] = total // known
    elif known != total:
        raise ShapeError(f"reshape: {list(x.shape)} has {total} elements but {list(shape)} holds {known}")
    return ArrayType(tuple(target), x.dtype)


def reshape_forward(ctx: Context, x: Array, shape: Sequence[int], allowzero: bool = False) -> Array:
    ctx.values["x_shape"] = x.shape
    return x.reshape(reshape_shape(ArrayType(x.shape, x.dtype), shape, allowzero).shape)


def reshape_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 4), shape=(6, 4))
    yield Sample((2, 3, 4), shape=(-1, 2))
    yield Sample((2, 3, 4), shape=(0, -1))
    yield Sample((1,), shape=())


def reshape_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "24 elements but .* holds 25", (2, 3, 4), shape=(5, 5))
    yield ErrorSample(ShapeError, "cannot hold", (2, 3, 4), shape=(-1, 5))
    yield ErrorSample(ShapeError, "at most one -1", (2, 3, 4), shape=(-1, -1))
    yield ErrorSample(ShapeError, "copies an axis", (2, 3), shape=(6, 1, 0))


def read_reshape(n: OnnxNode) -> Any:
    shape = n.attribute("shape") if n.version < 5 else n.host(1)
    return n.emit("reshape", n.inputs[0], shape=shape, allowzero=bool(n.attribute("allowzero", 0)))


def write_reshape(w: OnnxWriter, node: Node) -> str:
    zero = {"allowzero": 1} if node.params.get("allowzero") and w.version >= 14 else {}
    shape, x = node.params["shape"], node.inputs[0]
    known = None if x is None else x.type
    if not zero and known is not None and known.shape and not isinstance(shape, Value):
        # The batch that the model was traced with is copied from the input: any other will do too.
        shape = tuple(shape)
        if len(shape) > 1 and shape[0] == known.shape[0] and 0 not in shape:
            shape = (0, *shape[1:])
    return w.add("Reshape", [x, w.host(shape)], **zero)


register(
    Op(
        name="reshape",
        formula="the elements of x in row-major order of the logical axes, with another shape; "
        "-1 is what remains, 0 copies x's size (unless allowzero)",
        gradient="gx = gy with x's shape",
        source="ONNX Reshape-14; torch.reshape",
        shape=reshape_shape,
        forward=reshape_forward,
        backward=_restore_shape,
        samples=reshape_samples,
        errors=reshape_errors,
        reads={"Reshape": read_reshape},
        writes=write_reshape,
    )
)

# --------------------------------------------------------------------------------------- flatten


def flatten_shape(x: ArrayType, start: int, end: int) -> ArrayType:
    rank = len(x.shape)
    if rank == 0:
        return ArrayType((1,), x.dtype)
    # ONNX's Flatten may put its cut behind the last axis: start == rank merges nothing.
    if start == rank and end == -1:
        return ArrayType((*x.shape, 1), x.dtype)
    first, last = (normalise_axes("flatten", (axis,), rank)[0] for axis in (start, end))
    if first > last:
        raise ShapeError(f"flatten: start_dim {start} lies behind end_dim {end}")
    merged = int(np.prod(x.shape[first : last + 1]))
    return ArrayType((*x.shape[:first], merged, *x.shape[last + 1 :]), x.dtype)


def flatten_forward(ctx: Context, x: Array, start: int, end: int) -> Array:
    ctx.values["x_shape"] = x.shape
    return x.reshape(flatten_shape(ArrayType(x.shape, x.dtype), start, end).shape)


def flatten_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 4, 5), start=1, end=-1)
    yield Sample((2, 3, 4, 5), start=1, end=2, onnx=False)
    yield Sample((2, 3, 4), start=0, end=-1, onnx=False)


def flatten_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "behind", (2, 3, 4), start=2, end=1)
    yield ErrorSample(ShapeError, "out of range", (2, 3, 4), start=1, end=3)


def read_flatten(n: OnnxNode) -> Any:
    axis, rank = n.attribute("axis", 1), n.rank(0)
    if rank is not None and -rank <= axis < 0:
        axis += rank
    if axis < 0:  # the sizes before the axis multiplied, and what remains
        lead = n.emit("prod", n.emit("shape_of", n.inputs[0], start=0, end=axis), axes=None, keepdims=True)
        shape = n.emit("concat", lead, n.leaf(np.asarray([-1])), axis=0)
        return n.emit("reshape", n.inputs[0], shape=shape)
    if axis == 0:
        return n.emit("reshape", n.inputs[0], shape=(1, -1))
    tail = n.emit("flatten", n.inputs[0], start=axis, end=-1)
    return tail if axis == 1 else n.emit("flatten", tail, start=0, end=-2)


def write_flatten(w: OnnxWriter, node: Node) -> str:
    start, end = node.params["start"], node.params["end"]
    if (start, end) == (1, -1):
        return w.add("Flatten", node.inputs, axis=1)
    known = node.inputs[0].type if node.inputs[0] is not None else None
    if known is None:
        raise ShapeError("flatten: only start_dim=1, end_dim=-1 can be written to ONNX for an unknown shape")
    shape = flatten_shape(known, start, end).shape
    if 0 not in shape:
        # Sizes before the merged axes are copied and the merged one is what remains: any batch will do.
        first = start % len(known.shape)
        shape = (*[0] * first, -1, *shape[first + 1 :])
    return w.add("Reshape", [node.inputs[0], w.host(shape)])


register(
    Op(
        name="flatten",
        formula="axes start..end of x merged into one, in row-major order",
        gradient="gx = gy with x's shape",
        source="torch.flatten; ONNX Flatten-13",
        shape=flatten_shape,
        forward=flatten_forward,
        backward=_restore_shape,
        samples=flatten_samples,
        errors=flatten_errors,
        reads={"Flatten": read_flatten},
        writes=write_flatten,
    )
)

# ------------------------------------------------------------------------------------- transpose


def transpose_shape(x: ArrayType, axes: Sequence[int] | None) -> ArrayType:
    order = tuple(range(len(x.shape)))[::-1] if axes is None else tuple(axes)
    if normalise_axes("transpose", order, len(x.shape)) != tuple(range(len(x.shape))):
        raise ShapeError(f"transpose: axes {list(order)} must name each of the {len(x.shape)} axes once")
    return ArrayType(tuple(x.shape[axis] for axis in order), x.dtype)


def transpose_forward(ctx: Context, x: Array, axes: Sequence[int] | None) -> Array:
    return np.transpose(x, axes)


def transpose_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    axes = ctx.params["axes"]
    return (gy.transpose() if axes is None else gy.transpose(np.argsort([a % gy.ndim for a in axes])),)


register(
    Op(
        name="transpose",
        formula="y[i_axes[0], i_axes[1], …] = x[i_0, i_1, …]; axes None reverses them",
        gradient="gx = gy transposed back",
        source="ONNX Transpose-13; torch.permute",
        shape=transpose_shape,
        forward=transpose_forward,
        backward=transpose_backward,
        samples=lambda: [Sample((2, 3, 4), axes=(2, 0, 1)), Sample((2, 3), axes=None)],
        errors=lambda: [
            ErrorSample(ShapeError, "each of the 2 axes once", (2, 3), axes=(0,)),
            ErrorSample(ShapeError, "one axis twice", (2, 3), axes=(0, -2)),
            ErrorSample(ShapeError, "axis 5 is out of range for 2 axes", (2, 3), axes=(0, 5)),
        ],
        reads={"Transpose": lambda n: n.emit("transpose", n.inputs[0], axes=n.attribute("perm"))},
        writes=lambda w, node: w.add("Transpose", node.inputs, perm=node.params["axes"]),
    )
)

# ---------------------------------------------------------------------------- squeeze, unsqueeze


def squeeze_shape(x: ArrayType, axes: Sequence[int] | None) -> ArrayType:
    if axes is None:
        return ArrayType(tuple(n for n in x.shape if n != 1), x.dtype)
    gone = normalise_axes("squeeze", tuple(axes), len(x.shape))
    if any(x.shape[axis] != 1 for axis in gone):
        raise ShapeError(f"squeeze: axes {list(axes)} of {list(x.shape)} are not all of size 1")
    return ArrayType(tuple(n for i, n in enumerate(x.shape) if i not in gone), x.dtype)


def squeeze_forward(ctx: Context, x: Array, axes: Sequence[int] | None) -> Array:
    ctx.values["x_shape"] = x.shape
    return x.reshape(squeeze_shape(ArrayType(x.shape, x.dtype), axes).shape)


def unsqueeze_shape(x: ArrayType, axes: Sequence[int]) -> ArrayType:
    new = normalise_axes("unsqueeze", tuple(axes), len(x.shape) + len(axes))
    sizes = iter(x.shape)
    return ArrayType(tuple(1 if i in new else next(sizes) for i in range(len(x.shape) + len(axes))), x.dtype)


def unsqueeze_forward(ctx: Context, x: Array, axes: Sequence[int]) -> Array:
    ctx.values["x_shape"] = x.shape
    return x.reshape(unsqueeze_shape(ArrayType(x.shape, x.dtype), axes).shape)


def _read_axes(op: str) -> Any:
    def read(n: OnnxNode) -> Any:
        return n.emit(op, n.inputs[0], axes=n.attribute("axes") if n.version < 13 else n.host(1))

    return read


def _write_axes(op_type: str) -> Any:
    def write(w: OnnxWriter, node: Node) -> str:
        axes = node.params["axes"]
        if axes is None:
            return w.add(op_type, node.inputs)
        if w.version < 13:
            return w.add(op_type, node.inputs, axes=axes)
        return w.add(op_type, [node.inputs[0], w.host(axes)])

    return write


register(
    Op(
        name="squeeze",
        formula="x without the given axes of size 1 (all such axes when None)",
        gradient="gx = gy with x's shape",
        source="ONNX Squeeze-13",
        shape=squeeze_shape,
        forward=squeeze_forward,
        backward=_restore_shape,
        samples=lambda: [Sample((2, 1, 3, 1), axes=(1, -1)), Sample((2, 1, 3), axes=None)],
        errors=lambda: [ErrorSample(ShapeError, "not all of size 1", (2, 3), axes=(1,))],
        reads={"Squeeze": _read_axes("squeeze")},
        writes=_write_axes("Squeeze"),
    )
)
register(
    Op(
        name="unsqueeze",
        formula="x with new axes of size 1 at the given positions of the result",
        gradient="gx = gy with x's shape",
        source="ONNX Unsqueeze-13",
        shape=unsqueeze_shape,
        forward=unsqueeze_forward,
        backward=_restore_shape,
        samples=lambda: [Sample((2, 3), axes=(0,)), Sample((2, 3), axes=(3, 1))],
        errors=lambda: [ErrorSample(ShapeError, "out of range", (2, 3), axes=(4,))],
        reads={"Unsqueeze": _read_axes("unsqueeze")},
        writes=_write_axes("Unsqueeze"),
    )
)
