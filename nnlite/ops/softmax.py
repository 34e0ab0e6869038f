"""Softmax and its logarithm along one axis, which the kernels see as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import NormGeometry
from nnlite.kernels import launch
from nnlite.layout import Array, channels_last, contiguous
from nnlite.ops.one_axis import OneAxis
from nnlite.ops.record import ArrayType, Context, ErrorSample, Needs, OnnxNode, Op, Reader, Sample, register
from nnlite.ops.reduce import normalise_axes


@lru_cache(maxsize=4096)
def lines(rows: int, elements: int, epsilon: float = 0.0) -> NormGeometry:
    """The geometry of rows that are seen one by one; made once, because hashing it costs microseconds."""
    return NormGeometry(rows, elements, epsilon)


def _softmax_rule(op: str) -> Callable[..., ArrayType]:
    def rule(x: ArrayType, axis: int) -> ArrayType:
        if x.dtype.kind != "f":
            raise DTypeError(f"{op}: x is {x.dtype} but must be floating-point; convert with astype")
        normalise_axes(op, (axis,), len(x.shape))
        if x.shape[axis] == 0:
            raise ShapeError(f"{op}: x {list(x.shape)} has no elements along axis {axis}")
        return x

    return rule


def _by_rows(kernel: str, axis: int, *arrays: Array) -> Array:
    """The kernel on the arrays' rows along ``axis``, which are made where it is not innermost in memory."""
    order = channels_last if OneAxis(arrays[0], axis % arrays[0].ndim).channels_last else contiguous
    seen = [OneAxis(order(array), axis % array.ndim) for array in arrays]
    outer, size, inner = seen[0].blocks.shape
    rows = [contiguous(one.blocks.transpose(0, 2, 1)).reshape(outer * inner, size) for one in seen]
    result = memory.empty(rows[0].shape, arrays[0].dtype, "C", arrays[0])
    launch(kernel, lines(outer * inner, size), *rows, result)
    return seen[0].picture(result.reshape(outer, inner, size).transpose(0, 2, 1))


def softmax_forward(ctx: Context, x: Array, axis: int) -> Array:
    y = _by_rows("softmax_forward", axis, x)
    ctx.save(y)
    return y


def softmax_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    return (_by_rows("softmax_backward", ctx.params["axis"], gy, ctx.saved[0]),)


def log_softmax_forward(ctx: Context, x: Array, axis: int) -> Array:
    y = _by_rows("log_softmax_forward", axis, x)
    ctx.save(y)
    return y


def log_softmax_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    return (_by_rows("log_softmax_backward", ctx.params["axis"], gy, ctx.saved[0]),)


def _read_softmax(op: str) -> Reader:
    def read(n: OnnxNode) -> Any:
        x = n.inputs[0]
        if n.version >= 13:
            return n.emit(op, x, axis=n.attribute("axis", -1))
        # Before operator set 13 all axes from ``axis`` on are normalised together.
        axis, known = n.attribute("axis", 1), n.known(x)
        if axis == -1 or (known is not None and axis % len(known.shape) == len(known.shape) - 1):
            return n.emit(op, x, axis=-1)
        flat = n.emit(op, n.emit("flatten", x, start=axis, end=-1), axis=-1)
        return n.emit("reshape", flat, shape=n.emit("shape_of", x))

    return read


def _softmax_samples() -> Iterator[Sample]:
    yield Sample((3, 5), axis=-1)
    yield Sample((2, 3, 4), axis=1)
    yield Sample((2, 3, 4, 5), axis=3)


def _softmax_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "out of range", (3, 5), axis=2)
    yield ErrorSample(ShapeError, "no elements along axis 1", (3, 0), axis=1)
    yield ErrorSample(DTypeError, "floating-point", np.ones((2, 2), np.int64), axis=1)


register(
    Op(
        name="softmax",
        formula="y = eˣ / Σ eˣ, the sum over one axis",
        gradient="gx = y · (gy - Σ gy · y)",
        source="ONNX Softmax-13; torch.softmax",
        shape=_softmax_rule("softmax"),
        forward=softmax_forward,
        backward=softmax_backward,
        samples=_softmax_samples,
        errors=_softmax_errors,
        kernels=("softmax_forward", "softmax_backward"),
        reads={"Softmax": _read_softmax("softmax")},
        writes=lambda w, node: w.add("Softmax", node.inputs, axis=node.params["axis"]),
    )
)
register(
    Op(
        name="log_softmax",
        formula="y = x - ln Σ eˣ, the sum over one axis",
        gradient="gx = gy - eʸ · Σ gy",
        source="ONNX LogSoftmax-13; torch.log_softmax",
        shape=_softmax_rule("log_softmax"),
        forward=log_softmax_forward,
        backward=log_softmax_backward,
        samples=_softmax_samples,
        errors=_softmax_errors,
        kernels=("log_softmax_forward", "log_softmax_backward"),
        reads={"LogSoftmax": _read_softmax("log_softmax")},
        writes=lambda w, node: w.add("LogSoftmax", node.inputs, axis=node.params["axis"]),
    )
)
