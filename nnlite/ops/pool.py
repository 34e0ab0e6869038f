"""Pooling: maximum, average, adaptive average."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import Padding, Pair, Pool2dGeometry, pair, pool2d_geometry, remembered, resolve_pads
from nnlite.kernels import launch
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.ops.conv import window_attributes
from nnlite.ops.onnx_window import FLOATS, emit_pool
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


def _float_type(op: str, x: ArrayType) -> np.dtype[Any]:
    if x.dtype.kind != "f":
        raise DTypeError(f"{op}: x is {x.dtype} but must be floating-point; convert with astype")
    return x.dtype


@remembered
def pool2d_geometry_of(
    op: str,
    x_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
    count_include_pad: bool = True,
) -> Pool2dGeometry:
    kernel, stride = pair(op, "kernel_size", kernel_size, 1), pair(op, "stride", stride, 1)
    dilation = pair(op, "dilation", dilation, 1)
    size = (x_shape[2], x_shape[3]) if len(x_shape) == 4 else (1, 1)
    pads = resolve_pads(op, padding, size, kernel, stride, dilation)
    return pool2d_geometry(x_shape, kernel, stride, pads, dilation, ceil_mode, count_include_pad, op)


_PLAIN: dict[str, Any] = dict(
    kernel_size=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0), dilation=(1, 1), ceil_mode=False
)


def _samples(**extra: Any) -> Iterator[Sample]:
    yield Sample((2, 3, 6, 5), **_PLAIN, **extra)
    wide: dict[str, Any] = dict(kernel_size=(3, 3), padding=(1, 0, 1, 1))
    yield Sample((1, 2, 7, 8), **_PLAIN | wide | extra)
    yield Sample((1, 2, 7, 6), **_PLAIN | dict(kernel_size=(3, 2), ceil_mode=True) | extra)
    yield Sample((1, 2, 9, 8), **_PLAIN | dict(dilation=(2, 2), stride=(1, 2), padding=(1, 1, 1, 1)) | extra)
    yield Sample((1, 2, 5, 6), **_PLAIN | dict(kernel_size=(3, 3), padding="same_lower") | extra)


def _errors(**extra: Any) -> Iterator[ErrorSample]:
    x = (1, 2, 6, 6)
    yield ErrorSample(ShapeError, "must be.*N,C,H,W", (2, 6, 6), **_PLAIN, **extra)
    yield ErrorSample(DTypeError, "floating-point", np.ones((1, 1, 4, 4), np.int64), **_PLAIN, **extra)
    cases: list[tuple[dict[str, Any], str]] = [
        (dict(kernel_size=(9, 9)), "does not fit"),
        (dict(kernel_size=(0, 2)), "kernel_size.*at least 1"),
        (dict(stride=(0, 2)), "stride.*at least 1"),
        (dict(padding=(2, 2)), "nothing but padding"),
        (dict(dilation=(0, 1)), "dilation.*at least 1"),
    ]
    for params, match in cases:
        yield ErrorSample(ShapeError, match, x, **_PLAIN | params, **extra)
    # Two elements seven apart, padded by four on each side of a row of one: both lie outside.
    spread: dict[str, Any] = dict(dilation=(7, 7), padding=(4, 4, 4, 4), stride=(1, 1))
    yield ErrorSample(ShapeError, "nothing but padding", (1, 1, 1, 1), **_PLAIN | spread, **extra)


# ------------------------------------------------------------------------------------ max_pool2d


def max_pool2d_shape(x: ArrayType, **params: Any) -> ArrayType:
    dtype = _float_type("max_pool2d", x)
    return ArrayType(pool2d_geometry_of("max_pool2d", x.shape, **params).y_shape, dtype)


def max_pool2d_forward(ctx: Context, x: Array, **params: Any) -> Array:
    geometry = pool2d_geometry_of("max_pool2d", x.shape, **params)
    y = memory.empty(geometry.y_shape, x.dtype, like=x)
    indices = memory.empty(geometry.y_shape, np.int32, like=x) if ctx.recording else None
    launch("max_pool2d_forward", geometry, x, y, indices)
    ctx.save(indices)
    ctx.values["geometry"] = geometry
    return y


def max_pool2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    geometry: Pool2dGeometry = ctx.values["geometry"]
    gx = memory.empty(geometry.x_shape, gy.dtype, like=gy)
    launch("max_pool2d_backward", geometry, gy, ctx.saved[0], gx)
    return (gx,)


def onnx_window(n: OnnxNode) -> dict[str, Any]:
    """The window of an ONNX pooling node, as params."""
    kernel = n.attribute("kernel_shape") or ()
    if not kernel:
        raise n.refuse("malformed: kernel_shape is empty")
    axes = len(kernel)
    auto_pad = n.attribute("auto_pad", "NOTSET")
    explicit = auto_pad in ("NOTSET", "")
    return dict(
        kernel_size=tuple(kernel),
        stride=tuple(n.attribute("strides") or (1,) * axes),
        padding=tuple(n.attribute("pads") or (0,) * (2 * axes)) if explicit else auto_pad.lower(),
        dilation=tuple(n.attribute("dilations") or (1,) * axes),
        ceil_mode=bool(n.attribute("ceil_mode", 0)),
    )


def pool_attributes(op: str, params: Any) -> dict[str, Any]:
    """The window of a pooling as ONNX's attributes."""
    kernel = pair(op, "kernel_size", params["kernel_size"], 1)
    window = window_attributes(op, params, kernel)
    return dict(kernel_shape=kernel, ceil_mode=int(params["ceil_mode"]), **window)


def read_max_pool(n: OnnxNode) -> Any:
    window, by_columns = onnx_window(n), n.attribute("storage_order", 0)
    y = emit_pool(n, "max_pool2d", "max_pool_nd", window)
    if n.outputs < 2:
        return y
    if len(window["kernel_size"]) != 2 or n.kind(0) not in (None, *FLOATS):
        raise n.refuse("the Indices output is supported for floats along two axes only")
    places = n.emit("max_pool2d_indices", n.inputs[0], **window, whole=True)
    return y, _down_columns(n, places) if by_columns else places


def _down_columns(n: OnnxNode, places: Value) -> Any:
    """Places [N,C,P,Q] that count through pictures row by row, as ones that count down the columns."""
    shape = n.emit("shape_of", n.inputs[0])
    height, width = (
        n.emit("slice", shape, starts=(i,), ends=(i + 1,), axes=(0,), steps=(1,)) for i in (2, 3)
    )
    pixels = n.emit("mul", height, width)
    picture, pixel = n.emit("div", places, pixels), n.emit("remainder", places, pixels)
    row, column = n.emit("div", pixel, width), n.emit("remainder", pixel, width)
    within = n.emit("add", n.emit("mul", column, height), row)
    return n.emit("add", n.emit("mul", picture, pixels), within)


register(
    Op(
        name="max_pool2d",
        formula="y[n,c,p,q] = max_{r,s} x[n, c, p·stride + r·dilation - pad_top, "
        "q·stride + s·dilation - pad_left]; padding never wins, NaN does;  x [N,C,H,W], y [N,C,P,Q], "
        "P = ⌊(H + pads - dilation·(R-1) - 1) / stride⌋ + 1, or ⌈⌉ with ceil_mode, without windows "
        "that start in the end padding",
        gradient="gx[n,c,h,w] = Σ gy[n,c,p,q] over the windows whose (first) maximum is at h,w",
        source="ONNX MaxPool-22; torch.nn.functional.max_pool2d",
        shape=max_pool2d_shape,
        forward=max_pool2d_forward,
        backward=max_pool2d_backward,
        samples=_samples,
        errors=_errors,
        reads={"MaxPool": read_max_pool},
        writes=lambda w, node: w.add("MaxPool", node.inputs, **pool_attributes("max_pool2d", node.params)),
        layout="channels_last",
        kernels=("max_pool2d_forward", "max_pool2d_backward"),
    )
)

# ------------------------------------------------------------------------------------ avg_pool2d


def avg_pool2d_shape(x: ArrayType, **params: Any) -> ArrayType:
    dtype = _float_type("avg_pool2d", x)
    return ArrayType(pool2d_geometry_of("avg_pool2d", x.shape, **params).y_shape, dtype)


def avg_pool2d_forward(ctx: Context, x: Array, **params: Any) -> Array:
    geometry = pool2d_geometry_of("avg_pool2d", x.shape, **params)
    y = memory.empty(geometry.y_shape, x.dtype, like=x)
    launch("avg_pool2d_forward", geometry, x, y)
    ctx.values["geometry"] = geometry
    return y


def avg_pool2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    geometry: Pool2dGeometry = ctx.values["geometry"]
    gx = memory.empty(geometry.x_shape, gy.dtype, like=gy)
    launch("avg_pool2d_backward", geometry, gy, gx)
    return (gx,)


def avg_pool2d_samples() -> Iterator[Sample]:
    yield from _samples(count_include_pad=True)
    yield from _samples(count_include_pad=False)


def read_average_pool(n: OnnxNode) -> Any:
    include = bool(n.attribute("count_include_pad", 0))
    return emit_pool(n, "avg_pool2d", "avg_pool_nd", onnx_window(n), count_include_pad=include)


def write_average_pool(w: OnnxWriter, node: Node) -> str:
    attributes = pool_attributes("avg_pool2d", node.params)
    if w.version < 19:
        if tuple(attributes["dilations"]) != (1, 1):
            raise ShapeError("avg_pool2d: ONNX knows dilation from operator set 19 on; export with opset=19")
        del attributes["dilations"]
    return w.add(
        "AveragePool", node.inputs, count_include_pad=int(node.params["count_include_pad"]), **attributes
    )


register(
    Op(
        name="avg_pool2d",
        formula="y[n,c,p,q] = Σ_{r,s} x[n, c, p·stride + r·dilation - pad_top, …] / count; count is the "
        "number of window elements inside x, or with count_include_pad inside the padded x;  "
        "x [N,C,H,W], y [N,C,P,Q] as in max_pool2d",
        gradient="gx[n,c,h,w] = Σ gy[n,c,p,q] / count(p,q) over the windows that hold h,w",
        source="ONNX AveragePool-22; torch.nn.functional.avg_pool2d",
        shape=avg_pool2d_shape,
        forward=avg_pool2d_forward,
        backward=avg_pool2d_backward,
        samples=avg_pool2d_samples,
        errors=lambda: _errors(count_include_pad=True),
        reads={"AveragePool": read_average_pool},
        writes=write_average_pool,
        layout="channels_last",
        kernels=("avg_pool2d_forward", "avg_pool2d_backward"),
    )
)

# --------------------------------------------------------------------------- adaptive_avg_pool2d


def _adaptive_geometry(x_shape: tuple[int, ...], output_size: Pair) -> Pool2dGeometry | None:
    """The plain pooling that computes the same, where the windows are equal and disjoint."""
    height, width = x_shape[2:]
    if height % output_size[0] or width % output_size[1]:
        return None
    kernel = (height // output_size[0], width // output_size[1])
    return pool2d_geometry(x_shape, kernel, kernel, op="adaptive_avg_pool2d")


@lru_cache(maxsize=256)
def _averaging_matrix(size: int, out: int) -> Array:
    """[out, size]: row p averages x[⌊p·size/out⌋ : ⌈(p+1)·size/out⌉]."""
    matrix = np.zeros((out, size))
    for p in range(out):
        begin, end = p * size // out, -(-(p + 1) * size // out)
        matrix[p, begin:end] = 1 / (end - begin)
    return matrix


def adaptive_avg_pool2d_shape(x: ArrayType, output_size: Pair) -> ArrayType:
    if len(x.shape) != 4:
        raise ShapeError(f"adaptive_avg_pool2d: x has shape {list(x.shape)} but must be [N,C,H,W]")
    size = pair("adaptive_avg_pool2d", "output_size", output_size, 1)
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"adaptive_avg_pool2d: x {list(x.shape)} has no pixels to average")
    return ArrayType((*x.shape[:2], *size), _float_type("adaptive_avg_pool2d", x))


def adaptive_avg_pool2d_forward(ctx: Context, x: Array, output_size: Pair) -> Array:
    ctx.values["x_shape"] = x.shape
    y = memory.empty((*x.shape[:2], *output_size), x.dtype, like=x)
    if (geometry := _adaptive_geometry(x.shape, output_size)) is not None:
        launch("avg_pool2d_forward", geometry, x, y)
    else:
        rows_matrix = np.asarray(_averaging_matrix(x.shape[2], output_size[0]), x.dtype, like=x)
        columns_matrix = np.asarray(_averaging_matrix(x.shape[3], output_size[1]), x.dtype, like=x)
        y[...] = np.einsum("ph,nchw,qw->ncpq", rows_matrix, x, columns_matrix, optimize=True)
    return y


def adaptive_avg_pool2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    x_shape: tuple[int, ...] = ctx.values["x_shape"]
    gx = memory.empty(x_shape, gy.dtype, like=gy)
    if (geometry := _adaptive_geometry(x_shape, gy.shape[2:])) is not None:
        launch("avg_pool2d_backward", geometry, gy, gx)
    else:
        rows_matrix = np.asarray(_averaging_matrix(x_shape[2], gy.shape[2]), gy.dtype, like=gy)
        columns_matrix = np.asarray(_averaging_matrix(x_shape[3], gy.shape[3]), gy.dtype, like=gy)
        gx[...] = np.einsum("ph,ncpq,qw->nchw", rows_matrix, gy, columns_matrix, optimize=True)
    return (gx,)


def adaptive_avg_pool2d_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 5, 7), output_size=(1, 1))
    yield Sample((1, 2, 6, 8), output_size=(3, 2))
    yield Sample((1, 2, 7, 5), output_size=(3, 4))
    yield Sample((1, 2, 2, 3), output_size=(4, 3))


def adaptive_avg_pool2d_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "must be.*N,C,H,W", (2, 3, 4), output_size=(1, 1))
    yield ErrorSample(ShapeError, "output_size.*at least 1", (1, 2, 3, 4), output_size=(0, 1))
    yield ErrorSample(ShapeError, "no pixels", (1, 2, 0, 4), output_size=(1, 1))
    yield ErrorSample(DTypeError, "floating-point", np.ones((1, 1, 2, 2), np.int64), output_size=(1, 1))


def write_adaptive_avg_pool(w: OnnxWriter, node: Node) -> str:
    (x,), (p, q) = node.inputs, node.params["output_size"]
    if (p, q) == (1, 1):
        return w.add("GlobalAveragePool", node.inputs)
    if x is None or x.type is None:
        raise ShapeError(
            "adaptive_avg_pool2d: the shape of x must be known to write it; trace with an example"
        )
    if (geometry := _adaptive_geometry(x.type.shape, (p, q))) is not None:
        kernel = (geometry.R, geometry.S)
        return w.add("AveragePool", node.inputs, kernel_shape=kernel, strides=kernel)
    # Windows of several sizes: ONNX has no such pooling, but it has the matrices.
    rows = _averaging_matrix(x.type.shape[2], p).astype(x.type.dtype)
    columns = _averaging_matrix(x.type.shape[3], q).T.astype(x.type.dtype)
    return w.add("MatMul", [w.add("MatMul", [rows, x]), columns])


def _read_global(op: str) -> Callable[[OnnxNode], Any]:
    def read(n: OnnxNode) -> Any:
        rank = n.rank(0)
        if rank is None or rank == 4:
            return n.emit(op, n.inputs[0], output_size=(1, 1))
        reduction = "mean" if op == "adaptive_avg_pool2d" else "max"
        return n.emit(reduction, n.inputs[0], axes=tuple(range(2, rank)), keepdims=True)

    return read


register(
    Op(
        name="adaptive_avg_pool2d",
        formula="y[n,c,p,q] = mean of x[n, c, ⌊p·H/P⌋ : ⌈(p+1)·H/P⌉, ⌊q·W/Q⌋ : ⌈(q+1)·W/Q⌉];  "
        "x [N,C,H,W], y [N,C,P,Q] with (P, Q) = output_size; (1, 1) is global average pooling",
        gradient="gx[n,c,h,w] = Σ gy[n,c,p,q] / size of window (p,q) over the windows that hold h,w",
        source="torch.nn.functional.adaptive_avg_pool2d; ONNX GlobalAveragePool-22",
        shape=adaptive_avg_pool2d_shape,
        forward=adaptive_avg_pool2d_forward,
        backward=adaptive_avg_pool2d_backward,
        samples=adaptive_avg_pool2d_samples,
        errors=adaptive_avg_pool2d_errors,
        reads={"GlobalAveragePool": _read_global("adaptive_avg_pool2d")},
        writes=write_adaptive_avg_pool,
        layout="channels_last",
        kernels=("avg_pool2d_forward", "avg_pool2d_backward"),
    )
)
