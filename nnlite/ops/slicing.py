"""Joining and cutting along axes: concat and slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import ShapeError
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
from nnlite.ops.reduce import normalise_axes

END = np.iinfo(np.int64).max
"""An end beyond every axis, as ONNX's Slice writes "to the end"."""


# ---------------------------------------------------------------------------------------- concat


def concat_shape(*parts: ArrayType, axis: int) -> ArrayType:
    first = parts[0]
    (at,) = normalise_axes("concat", (axis,), len(first.shape))
    for part in parts:
        same = len(part.shape) == len(first.shape) and all(
            i == at or a == b for i, (a, b) in enumerate(zip(part.shape, first.shape, strict=True))
        )
        if not same or part.dtype != first.dtype:
            raise ShapeError(f"concat: {part} does not fit {first} along axis {axis}")
    total = sum(part.shape[at] for part in parts)
    return ArrayType((*first.shape[:at], total, *first.shape[at + 1 :]), first.dtype)


def concat_forward(ctx: Context, *parts: Array, axis: int) -> Array:
    ctx.values["sizes"] = [part.shape[axis] for part in parts]
    return np.concatenate(parts, axis)


def concat_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    cuts = list(accumulate(ctx.values["sizes"]))[:-1]
    pieces = np.split(gy, cuts, ctx.params["axis"])
    return [piece if need else None for piece, need in zip(pieces, needs, strict=True)]


def concat_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "does not fit", (2, 3), (3, 4), axis=1)
    yield ErrorSample(ShapeError, "does not fit", (2, 3), (2, 3, 1), axis=1)
    yield ErrorSample(ShapeError, "out of range", (2, 3), (2, 3), axis=2)


register(
    Op(
        name="concat",
        formula="the operands one after another along axis",
        gradient="gy cut into the operands' pieces",
        source="ONNX Concat-13; torch.cat",
        shape=concat_shape,
        forward=concat_forward,
        backward=concat_backward,
        samples=lambda: [Sample((2, 3, 2), (2, 1, 2), (2, 2, 2), axis=1), Sample((2, 3), (1, 3), axis=-2)],
        errors=concat_errors,
        reads={"Concat": lambda n: n.emit("concat", *n.inputs, axis=n.attribute("axis", 1))},
        writes=lambda w, node: w.add("Concat", node.inputs, axis=node.params["axis"]),
    )
)

# ----------------------------------------------------------------------------------------- slice


def _slices(
    shape: tuple[int, ...],
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> tuple[slice, ...]:
    listed = tuple(range(len(starts))) if axes is None else tuple(axes)
    strides = (1,) * len(starts) if steps is None else tuple(steps)
    if not len(starts) == len(ends) == len(listed) == len(strides):
        raise ShapeError("slice: starts, ends, axes and steps must be of one length")
    normalise_axes("slice", listed, len(shape))
    if 0 in strides:
        raise ShapeError("slice: a step of 0 leads nowhere")
    result = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, listed, strides, strict=True):
        # Counting backwards, an end before the first element means "through the first".
        stop = None if step < 0 and end < -shape[axis] else int(end)
        result[axis] = slice(int(start), stop, int(step))
    return tuple(result)


def slice_shape(
    x: ArrayType,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> ArrayType:
    cuts = _slices(x.shape, starts, ends, axes, steps)
    sizes = (len(range(*cut.indices(size))) for cut, size in zip(cuts, x.shape, strict=True))
    return ArrayType(tuple(sizes), x.dtype)


def slice_forward(ctx: Context, x: Array, **params: Any) -> Array:
    cuts = _slices(x.shape, **({"axes": None, "steps": None} | params))
    ctx.values["cuts"], ctx.values["x_shape"] = cuts, x.shape
    return x[cuts]


def slice_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    gx = memory.empty(ctx.values["x_shape"], gy.dtype, like=gy)
    gx[...] = 0
    gx[ctx.values["cuts"]] = gy
    return (gx,)


def slice_samples() -> Iterator[Sample]:
    yield Sample((4, 5, 6), starts=(1, 0), ends=(3, END), axes=(0, 2), steps=(1, 2))
    yield Sample((4, 5), starts=(-1,), ends=(-END,), axes=(1,), steps=(-2,))
    yield Sample((4, 5), starts=(1, -3), ends=(100, -1), axes=None, steps=None)


def slice_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "step of 0", (4, 5), starts=(0,), ends=(1,), axes=(0,), steps=(0,))
    yield ErrorSample(ShapeError, "one length", (4, 5), starts=(0,), ends=(1, 2), axes=(0,), steps=(1,))
    yield ErrorSample(ShapeError, "out of range", (4, 5), starts=(0,), ends=(1,), axes=(2,), steps=(1,))


def read_slice(n: OnnxNode) -> Any:
    if n.version < 10:
        window = [n.attribute(name) for name in ("starts", "ends", "axes")] + [None]
    else:
        window = [n.host(i) for i in (1, 2, 3, 4)]
    names = ("starts", "ends", "axes", "steps")
    return n.emit("slice", n.inputs[0], **dict(zip(names, window, strict=True)))


def write_slice(w: OnnxWriter, node: Node) -> str:
    params = [node.params.get(name) for name in ("starts", "ends", "axes", "steps")]
    return w.add("Slice", [node.inputs[0], *(None if p is None else w.host(p) for p in params)])


register(
    Op(
        name="slice",
        formula="x[starts:ends:steps] along the given axes; negative starts and ends count from the end",
        gradient="gx = 0 with gy in the window",
        source="ONNX Slice-13",
        shape=slice_shape,
        forward=slice_forward,
        backward=slice_backward,
        samples=slice_samples,
        errors=slice_errors,
        reads={"Slice": read_slice},
        writes=write_slice,
    )
)
