"""Padding: with a number, with the mirror image, the edge or the other end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import OperandError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
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

MODES = ("constant", "reflect", "edge", "wrap")
"""ONNX's names; PyTorch says replicate for edge and circular for wrap."""

Ends = list[tuple[int, int]]


def _ends(shape: tuple[int, ...], pads: Sequence[int], axes: Sequence[int] | None) -> Ends:
    """Elements before and after along every axis."""
    rank = len(shape)
    named = tuple(range(rank)) if axes is None else tuple(int(a) for a in axes)
    normalise_axes("pad", named, rank)
    if len(pads) != 2 * len(named):
        raise ShapeError(
            f"pad: {len(pads)} pads given but x {list(shape)} needs {2 * len(named)}, two for each axis"
        )
    result = [(0, 0)] * rank
    for axis, before, after in zip(named, pads[: len(named)], pads[len(named) :], strict=True):
        result[axis] = (int(before), int(after))
    return result


def pad_shape(
    x: ArrayType,
    pads: Sequence[int],
    value: float = 0.0,
    mode: str = "constant",
    axes: Sequence[int] | None = None,
) -> ArrayType:
    if mode not in MODES:
        raise OperandError(f"pad: mode={mode!r} must be one of {', '.join(MODES)}")
    ends = _ends(x.shape, pads, axes)
    sizes = tuple(size + before + after for size, (before, after) in zip(x.shape, ends, strict=True))
    if min(sizes, default=0) < 0:
        raise ShapeError(f"pad: negative pads {list(pads)} take more than {list(x.shape)} has")
    if mode == "constant":
        return ArrayType(sizes, x.dtype)
    for size, pair in zip(x.shape, ends, strict=True):
        most = {"reflect": size - 1, "edge": sum(pair) + 1 if size else 0, "wrap": size}[mode]
        if min(pair) < 0 or max(pair) > max(most, 0):
            raise ShapeError(
                f"pad: mode {mode!r} pads an axis of size {size} by 0 to {max(most, 0)}, not {pair}"
            )
    return ArrayType(sizes, x.dtype)


def _windows(shape: tuple[int, ...], ends: Ends) -> tuple[Any, Any]:
    """Where x lies in the result, and which part of x that is (all of it, unless a pad is negative)."""
    inside, part = [], []
    for size, (before, after) in zip(shape, ends, strict=True):
        inside.append(slice(max(before, 0), max(before, 0) + size + min(before, 0) + min(after, 0)))
        part.append(slice(max(-before, 0), size + min(after, 0)))
    return tuple(inside), tuple(part)


def _sources(size: int, before: int, after: int, mode: str, like: Array) -> Array:
    """For each place along a padded axis, the place in x that it repeats."""
    at = np.arange(-before, size + after, like=like)
    if mode == "edge":
        return np.clip(at, 0, size - 1)
    if mode == "wrap":
        return np.mod(at, size)
    period = max(2 * (size - 1), 1)
    return as_array(size - 1 - np.abs(size - 1 - np.mod(at, period)))


def pad_forward(
    ctx: Context,
    x: Array,
    pads: Sequence[int],
    value: float = 0.0,
    mode: str = "constant",
    axes: Sequence[int] | None = None,
) -> Array:
    ends = _ends(x.shape, pads, axes)
    y = memory.empty(pad_shape(ArrayType(x.shape, x.dtype), pads, value, mode, axes).shape, x.dtype, like=x)
    ctx.values.update(x_shape=x.shape, ends=ends)
    if mode == "constant":
        y[...] = value
        inside, part = _windows(x.shape, ends)
        y[inside] = x[part]
        return y
    for axis, (before, after) in enumerate(ends):
        if before or after:
            x = x.take(_sources(x.shape[axis], before, after, mode, x), axis)
    y[...] = x
    return y


def pad_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    ends: Ends = ctx.values["ends"]
    mode = ctx.params.get("mode", "constant")
    shape: tuple[int, ...] = ctx.values["x_shape"]
    if mode == "constant":
        gx = memory.empty(shape, gy.dtype, like=gy)
        gx[...] = 0
        inside, part = _windows(shape, ends)
        gx[part] = gy[inside]
        return (gx,)
    for axis, (before, after) in enumerate(ends):
        if before or after:
            total = np.zeros((*gy.shape[:axis], shape[axis], *gy.shape[axis + 1 :]), gy.dtype, like=gy)
            sources = _sources(shape[axis], before, after, mode, gy)
            add_at(np.moveaxis(total, axis, 0), sources, np.moveaxis(gy, axis, 0))
            gy = total
    return (gy,)


def pad_samples() -> Iterator[Sample]:
    yield Sample((1, 2, 3, 4), pads=(0, 0, 1, 2, 0, 0, 3, 0), value=0.0)
    yield Sample((2, 5), pads=(1, -1, 0, -2), value=1.5)
    for mode in ("reflect", "edge"):
        yield Sample((1, 2, 3, 4), pads=(0, 0, 2, 3, 0, 0, 1, 2), value=0.0, mode=mode)
    yield Sample((2, 5), pads=(0, 5, 0, 3), mode="wrap")
    yield Sample((2, 5, 3), pads=(2, 1), axes=(-2,))


def pad_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "needs 4", (2, 3), pads=(1, 1), value=0.0)
    yield ErrorSample(ShapeError, "take more than", (2, 3), pads=(0, -2, 0, -2), value=0.0)
    yield ErrorSample(ShapeError, "size 3 by 0 to 2", (2, 3), pads=(0, 3, 0, 0), mode="reflect")
    yield ErrorSample(ShapeError, "size 3 by 0 to 3", (2, 3), pads=(0, 4, 0, 0), mode="wrap")
    yield ErrorSample(ShapeError, "by 0 to", (2, 3), pads=(0, 1, 0, -1), mode="edge")
    yield ErrorSample(ShapeError, "out of range", (2, 3), pads=(0, 1), axes=(2,))
    yield ErrorSample(OperandError, "mode='mirror' must be one of", (2, 3), pads=(0, 1, 0, 1), mode="mirror")


def read_pad(n: OnnxNode) -> Any:
    mode = n.attribute("mode", "constant")
    if mode not in MODES:
        raise n.refuse(f"mode {mode!r} is not supported")
    if n.version < 11:
        pads = n.attribute("pads") or n.attribute("paddings")
        return n.emit("pad", n.inputs[0], pads=pads, value=n.attribute("value", 0.0), mode=mode)
    value = n.host(2)
    value = 0.0 if value is None or mode != "constant" else value
    return n.emit("pad", n.inputs[0], pads=n.host(1), value=value, mode=mode, axes=n.host(3))


def write_pad(w: OnnxWriter, node: Node) -> str:
    (x,), params = node.inputs, node.params
    mode, axes, pads = params.get("mode", "constant"), params.get("axes"), params["pads"]
    known = x.type if x is not None else None
    if mode == "wrap" and w.version < 19:
        raise OperandError("pad: ONNX has mode 'wrap' from operator set 19 on; export with opset=19")
    if axes is not None and w.version < 18:
        if known is None:
            raise ShapeError("pad: axes need operator set 18; export with opset=18")
        ends = _ends(known.shape, pads, axes)
        pads, axes = [before for before, _ in ends] + [after for _, after in ends], None
    value = None
    if mode == "constant":
        value = w.host(params.get("value", 0.0), np.float32 if known is None else known.dtype)
    return w.add("Pad", [x, w.host(pads), value, None if axes is None else w.host(axes)], mode=mode)


register(
    Op(
        name="pad",
        formula="x with pads[i] elements before and pads[k+i] after it along the i-th of k axes (all by "
        "default): value, the mirror image (reflect), the last element (edge) or the other end (wrap); "
        "negative pads cut off",
        gradient="gx = the part of gy where x lies, 0 where x was cut off; repeated elements add up",
        source="ONNX Pad-19; torch.nn.functional.pad",
        shape=pad_shape,
        forward=pad_forward,
        backward=pad_backward,
        samples=pad_samples,
        errors=pad_errors,
        reads={"Pad": read_pad},
        writes=write_pad,
    )
)
