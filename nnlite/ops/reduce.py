"""Reductions over axes: sum, mean, max."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node, Value
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Reader,
    Sample,
    Writer,
    register,
)

Axes = tuple[int, ...] | None


def normalise_axes(op: str, axes: Axes, ndim: int) -> tuple[int, ...]:
    """``axes`` as sorted non-negative integers; None means all. ShapeError names a bad one."""
    if axes is None:
        return tuple(range(ndim))
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ShapeError(f"{op}: axis {axis} is out of range for {ndim} axes")
    result = tuple(sorted(axis % ndim for axis in axes))
    if len(set(result)) != len(result):
        raise ShapeError(f"{op}: axes {axes} name one axis twice")
    return result


UNDEFINED_WITHOUT_ELEMENTS = ("mean",)


def extreme(dtype: np.dtype[Any], lowest: bool) -> Any:
    """The lowest or the highest number of a type: what the maximum or the minimum of nothing is."""
    if dtype.kind == "f":
        return -np.inf if lowest else np.inf
    if dtype.kind == "b":
        return not lowest
    return np.iinfo(dtype).min if lowest else np.iinfo(dtype).max


def outermost(x: Array, axes: tuple[int, ...], initial: Any, function: Any) -> Array:
    """np.max or np.min of x over axes that stay, of size 1; ``initial`` where there is nothing."""
    if x.size:
        return as_array(function(x, axes, keepdims=True))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return np.full_like(x, initial, x.dtype, "C", shape=shape)


def _meant(axes: Axes, empty_is_all: bool) -> Axes:
    """Axes that a model file computes may turn out to be none, which means all of them."""
    return None if empty_is_all and axes is not None and not len(axes) else axes


def _shape_rule(op: str, numbers: str) -> Callable[..., ArrayType]:
    def rule(x: ArrayType, axes: Axes, keepdims: bool, empty_is_all: bool = False) -> ArrayType:
        axes = _meant(axes, empty_is_all)
        if x.dtype.kind not in numbers:
            raise DTypeError(f"{op}: x is {x.dtype}, which is not taken; convert with astype")
        reduced = normalise_axes(op, axes, len(x.shape))
        if op in UNDEFINED_WITHOUT_ELEMENTS and any(x.shape[axis] == 0 for axis in reduced):
            raise ShapeError(f"{op}: x {list(x.shape)} has no elements along the reduced axes")
        if keepdims:
            return ArrayType(tuple(1 if i in reduced else n for i, n in enumerate(x.shape)), x.dtype)
        return ArrayType(tuple(n for i, n in enumerate(x.shape) if i not in reduced), x.dtype)

    return rule


def spread(ctx: Context, gy: Array) -> Array:
    """gy with the reduced axes back as axes of size 1."""
    return np.expand_dims(gy, ctx.values["axes"]) if not ctx.params["keepdims"] else gy


def remember_axes(ctx: Context, op: str, x: Array, axes: Axes) -> tuple[int, ...]:
    reduced = normalise_axes(op, axes, x.ndim)
    ctx.values["axes"], ctx.values["x_shape"] = reduced, x.shape
    return reduced


def _broadcast(gy: Array, ctx: Context) -> Array:
    return np.broadcast_to(spread(ctx, gy), ctx.values["x_shape"])


def sum_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    reduced = remember_axes(ctx, "sum", x, axes)
    return as_array(x.sum(reduced, keepdims=keepdims, dtype=x.dtype))


def sum_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (_broadcast(gy, ctx).copy(),)


def mean_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    reduced = remember_axes(ctx, "mean", x, axes)
    return as_array(x.mean(reduced, keepdims=keepdims))


def mean_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    shape = ctx.values["x_shape"]
    count = int(np.prod([shape[axis] for axis in ctx.values["axes"]], dtype=np.int64))
    return (_broadcast(gy / count, ctx).astype(gy.dtype),)


def max_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    reduced = remember_axes(ctx, "max", x, axes)
    largest = outermost(x, reduced, extreme(x.dtype, lowest=True), np.max)
    if ctx.recording:
        hits = x == largest
        ctx.save(hits / hits.sum(reduced, keepdims=True))
    return as_array(largest if keepdims else np.squeeze(largest, reduced))


def max_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    return ((spread(ctx, gy) * ctx.saved[0]).astype(gy.dtype),)


def _samples() -> Iterator[Sample]:
    for axes in [None, (1,), (2, 3), (-1, 0)]:
        for keepdims in (False, True):
            yield Sample((2, 3, 4, 5), axes=axes, keepdims=keepdims)


def extreme_samples() -> Iterator[Sample]:
    yield from _samples()
    yield Sample((2, 0, 3), axes=(1,), keepdims=True, gradcheck=False)


def _errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "out of range", (2, 3), axes=(2,), keepdims=False)
    yield ErrorSample(ShapeError, "twice", (2, 3), axes=(1, -1), keepdims=False)
    yield ErrorSample(DTypeError, "not taken", np.array(["a"]), axes=None, keepdims=False)


def read_reduce(
    op: str,
    axes_input_since: int,
    before: Callable[[OnnxNode], Value] | None = None,
    after: str | None = None,
) -> Reader:
    """Reader of a reduction, of what ``before`` emits instead of the input, with the op ``after`` behind."""

    def read(n: OnnxNode) -> Any:
        axes = n.host(1) if n.version >= axes_input_since else n.attribute("axes")
        noop, keepdims = n.attribute("noop_with_empty_axes", 0), bool(n.attribute("keepdims", 1))
        x = n.inputs[0] if before is None else before(n)
        if isinstance(axes, Value):
            y = n.emit(op, x, axes=axes, keepdims=keepdims, empty_is_all=not noop)
        else:
            without: Any = () if noop else None
            y = n.emit(op, x, axes=axes or without, keepdims=keepdims)
        return y if after is None else n.emit(after, y)

    return read


def write_reduce(op_type: str, axes_input_since: int) -> Writer:
    def write(w: OnnxWriter, node: Node) -> str:
        axes, keepdims = node.params["axes"], int(node.params["keepdims"])
        if axes is None:
            return w.add(op_type, node.inputs, keepdims=keepdims)
        if w.version < axes_input_since:
            return w.add(op_type, node.inputs, keepdims=keepdims, axes=axes)
        return w.add(op_type, [node.inputs[0], w.host(axes)], keepdims=keepdims)

    return write


def register_reduction(
    name: str,
    symbol: str,
    gradient: str,
    numbers: str,
    forward: Callable[..., Array],
    backward: Callable[..., Sequence[Array | None]],
    onnx: str,
    axes_input_since: int,
    source: str = "",
    reads: Mapping[str, Reader] | None = None,
    samples: Callable[[], Iterator[Sample]] = _samples,
) -> None:
    """The record of a reduction with the params axes and keepdims."""

    def run(ctx: Context, x: Array, axes: Axes, keepdims: bool, empty_is_all: bool = False) -> Array:
        return forward(ctx, x, _meant(axes, empty_is_all), keepdims)

    register(
        Op(
            name=name,
            formula=f"y = {symbol} of x over the given axes (all when None); keepdims keeps them as size 1",
            gradient=gradient,
            source=source or f"ONNX {onnx}-{axes_input_since}; torch.{name}",
            shape=_shape_rule(name, numbers),
            forward=run,
            backward=backward,
            samples=samples,
            errors=_errors,
            reads={onnx: read_reduce(name, axes_input_since)} | dict(reads or {}),
            writes=write_reduce(onnx, axes_input_since),
        )
    )


register_reduction(
    "sum", "Σ", "gx = gy, repeated along the reduced axes", "fiu", sum_forward, sum_backward, "ReduceSum", 13,
    reads={
        "ReduceL1": read_reduce("sum", 18, before=lambda n: n.emit("abs", n.inputs[0])),
        "ReduceSumSquare": read_reduce("sum", 18, before=lambda n: n.emit("mul", n.inputs[0], n.inputs[0])),
        "ReduceLogSum": read_reduce("sum", 18, after="log"),
    },
)  # fmt: skip
register_reduction(
    "mean", "mean", "gx = gy / count, repeated along the reduced axes", "f",
    mean_forward, mean_backward, "ReduceMean", 18,
)  # fmt: skip
register_reduction(
    "max", "maximum (of no elements: the lowest number)",
    "gx = gy at the maximum, shared equally among ties", "fiub", max_forward, max_backward,
    "ReduceMax", 18, samples=extreme_samples, source="ONNX ReduceMax-20; torch.amax",
)  # fmt: skip
