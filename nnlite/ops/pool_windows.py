"""More pooling: places of maxima and back, Lp norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.geometry import Pair, Pool2dGeometry, pair
from nnlite.kernels import launch
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.one_axis import places_along
from nnlite.ops.onnx_window import emit_pool
from nnlite.ops.pool import onnx_window, pool2d_geometry_of, pool_attributes
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

INT64 = np.dtype(np.int64)
WINDOW: dict[str, Any] = dict(
    kernel_size=(3, 2), stride=(2, 2), padding=(1, 0, 1, 1), dilation=(1, 1), ceil_mode=False
)


def four_axes(op: str, x: ArrayType) -> None:
    """Raise unless x is a floating-point [N,C,H,W]."""
    if len(x.shape) != 4:
        raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,H,W]")
    if x.dtype.kind != "f":
        raise DTypeError(f"{op}: x is {x.dtype} but must be floating-point; convert with astype")


def _window_errors(**extra: Any) -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "must be .N,C,H,W", (2, 6, 6), **WINDOW, **extra)
    yield ErrorSample(ShapeError, "does not fit", (1, 1, 2, 2), **WINDOW | dict(kernel_size=(9, 9)), **extra)
    yield ErrorSample(DTypeError, "floating-point", np.ones((1, 1, 4, 4), int), **WINDOW, **extra)


def window_attributes(params: Any) -> dict[str, Any]:
    """ONNX's attributes of a pooling with integer padding."""
    return dict(
        kernel_shape=tuple(params["kernel_size"]), strides=tuple(params["stride"]),
        pads=tuple(params["padding"]), dilations=tuple(params["dilation"]),
        ceil_mode=int(params["ceil_mode"]),
    )  # fmt: skip


# ---------------------------------------------------------------------------- max_pool2d_indices


def max_pool2d_indices_shape(x: ArrayType, whole: bool, **params: Any) -> ArrayType:
    four_axes("max_pool2d_indices", x)
    return ArrayType(pool2d_geometry_of("max_pool2d_indices", x.shape, **params).y_shape, INT64)


def max_pool2d_indices_forward(ctx: Context, x: Array, whole: bool, **params: Any) -> Array:
    geometry = pool2d_geometry_of("max_pool2d_indices", x.shape, **params)
    y, indices = (memory.empty(geometry.y_shape, kind, like=x) for kind in (x.dtype, np.int32))
    launch("max_pool2d_forward", geometry, x, y, indices)
    places = indices.astype(INT64)
    if whole:
        n, c, height, width = x.shape
        places += np.arange(n * c, like=places).reshape(n, c, 1, 1) * (height * width)
    return places


def write_max_pool2d_indices(w: OnnxWriter, node: Node) -> str:
    (x,) = node.inputs
    known = x.type if x is not None else None
    if node.params["whole"]:
        return w.add_many("MaxPool", [x], 2, **window_attributes(node.params))[1]
    if known is None:
        raise ShapeError("max_pool2d_indices: the shape of x must be known to write it")
    whole = w.add_many("MaxPool", [x], 2, **window_attributes(node.params))[1]
    # ONNX counts through the whole tensor, PyTorch through each picture.
    return w.add("Mod", [whole, w.host(known.shape[2] * known.shape[3])])


register(
    Op(
        name="max_pool2d_indices",
        formula="h · W + w of the (first) maximum of each window of max_pool2d, or, if whole, its place in "
        "all of x;  x [N,C,H,W], y [N,C,P,Q] integers",
        gradient="none: places carry no gradient; the maxima are max_pool2d's",
        source="torch.nn.functional.max_pool2d (return_indices)",
        shape=max_pool2d_indices_shape,
        forward=max_pool2d_indices_forward,
        backward=None,
        samples=lambda: [
            Sample((2, 3, 7, 6), **WINDOW, whole=False),
            Sample((2, 2, 5, 5), **WINDOW | dict(ceil_mode=True), whole=True),
        ],
        errors=lambda: _window_errors(whole=False),
        writes=write_max_pool2d_indices,
        layout="channels_last",
        kernels=("max_pool2d_forward",),
    )
)

# ---------------------------------------------------------------------------------- max_unpool2d


def max_unpool2d_shape(x: ArrayType, indices: ArrayType, output_size: Pair, whole: bool) -> ArrayType:
    four_axes("max_unpool2d", x)
    if indices.shape != x.shape or indices.dtype.kind not in "iu":
        raise ShapeError(f"max_unpool2d: indices {indices} must be integers of x's shape {list(x.shape)}")
    size = tuple(output_size)[-2:]
    return ArrayType((*x.shape[:2], *pair("max_unpool2d", "output_size", size, 1)), x.dtype)


def max_unpool2d_forward(
    ctx: Context, x: Array, indices: Array, output_size: Sequence[int], whole: bool
) -> Array:
    height, width = (int(n) for n in tuple(output_size)[-2:])
    flat = indices.reshape(*x.shape[:2], -1)
    if whole:  # indices count through all pictures and channels
        elements = x.shape[0] * x.shape[1] * height * width
        if flat.size and not 0 <= flat.min() <= flat.max() < elements:
            raise OperandError(f"max_unpool2d: index {int(flat.max())} lies outside {elements} elements")
        flat = flat % (height * width)
    if flat.size and not 0 <= flat.min() <= flat.max() < height * width:
        raise OperandError(f"max_unpool2d: index {int(flat.max())} lies outside {height} x {width} pixels")
    y = np.zeros((*x.shape[:2], height * width), x.dtype, like=x)
    y[places_along(flat, 2)] = x.reshape(flat.shape)
    ctx.save(flat)
    ctx.values["x_shape"] = x.shape
    return y.reshape(*x.shape[:2], height, width)


def max_unpool2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    flat = gy.reshape(*gy.shape[:2], -1)
    return np.take_along_axis(flat, ctx.saved[0], 2).reshape(ctx.values["x_shape"]), None


def read_max_unpool(n: OnnxNode) -> Any:
    kernel = n.attribute("kernel_shape")
    if len(kernel) != 2:
        raise n.refuse("only windows along two axes are supported")
    pads, strides = n.attribute("pads") or (0, 0, 0, 0), n.attribute("strides") or (1, 1)
    size = n.host(2)
    if size is None:
        pixels = n.emit("shape_of", n.inputs[0], start=2)
        # (pixels - 1) · stride - pads + kernel
        offset = [k - s - a - b for k, s, a, b in zip(kernel, strides, pads[:2], pads[2:], strict=True)]
        size = n.emit("mul", pixels, n.leaf(np.asarray(strides, INT64)))
        size = n.emit("add", size, n.leaf(np.asarray(offset, INT64)))
    return n.emit("max_unpool2d", *n.inputs[:2], output_size=size, whole=True)


def write_max_unpool(w: OnnxWriter, node: Node) -> str:
    x, indices = node.inputs
    if x is None or x.type is None:
        raise ShapeError("max_unpool2d: the shape of x must be known to write it")
    (n, c), (height, width) = x.type.shape[:2], tuple(node.params["output_size"])[-2:]
    places: Any = indices
    if not node.params["whole"]:
        first = np.arange(n * c, dtype=np.int64).reshape(n, c, 1, 1) * (height * width)
        places = w.add("Add", [indices, first])
    shape = w.host((n, c, height, width))
    return w.add("MaxUnpool", [x, places, shape], kernel_shape=(1, 1), strides=(1, 1))


_PLACES = np.array([[[[0, 7], [9, 14]], [[5, 2], [12, 11]]]])
register(
    Op(
        name="max_unpool2d",
        formula="y = 0 but y[n,c,h,w] = x[n,c,p,q] where indices[n,c,p,q] = h · W + w (or, if whole, counts "
        "through all of y);  x [N,C,P,Q], y [N,C,H,W] with (H, W) = output_size",
        gradient="gx = gy at the indices",
        source="Zeiler and Fergus 2014, arXiv:1311.2901; ONNX MaxUnpool-22; torch.nn.functional.max_unpool2d",
        shape=max_unpool2d_shape,
        forward=max_unpool2d_forward,
        backward=max_unpool2d_backward,
        samples=lambda: [Sample((1, 2, 2, 2), _PLACES, output_size=(4, 4), whole=False)],
        errors=lambda: [
            ErrorSample(error, match, shape, _PLACES, output_size=(3, 3), whole=False)
            for error, match, shape in [
                (ShapeError, "of x's shape", (1, 1, 2, 2)),
                (OperandError, "outside 3 x 3", (1, 2, 2, 2)),
                (ShapeError, "must be .N,C,H,W", (2, 2)),
            ]
        ],
        reads={"MaxUnpool": read_max_unpool},
        writes=write_max_unpool,
        layout="C",
    )
)

# ------------------------------------------------------------------------------------- lp_pool2d


def lp_pool2d_shape(x: ArrayType, p: float, **params: Any) -> ArrayType:
    four_axes("lp_pool2d", x)
    if not p > 0:
        raise OperandError(f"lp_pool2d: p={p} must be above 0")
    return ArrayType(pool2d_geometry_of("lp_pool2d", x.shape, **params).y_shape, x.dtype)


def _counts(g: Pool2dGeometry) -> Array:
    """[P,Q]: how many elements of x lie in each window."""

    def along(size: int, out: int, kernel: int, stride: int, before: int, dilation: int) -> Array:
        start = np.arange(out) * stride - before
        first = np.maximum(-(start // dilation), 0)  # the first element of the window that lies in x
        last = np.minimum((size - 1 - start) // dilation, kernel - 1)
        return as_array(np.maximum(last - first + 1, 0))

    rows = along(g.H, g.P, g.R, g.stride_h, g.pad_top, g.dilation_h)
    return np.outer(rows, along(g.W, g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w))


def lp_pool2d_forward(ctx: Context, x: Array, p: float, **params: Any) -> Array:
    geometry = pool2d_geometry_of("lp_pool2d", x.shape, **params, count_include_pad=False)
    powers, y = memory.empty(x.shape, x.dtype, like=x), memory.empty(geometry.y_shape, x.dtype, like=x)
    np.power(np.abs(x), p, out=powers)
    launch("avg_pool2d_forward", geometry, powers, y)
    counts = np.asarray(_counts(geometry), x.dtype, like=x)
    y *= counts
    np.power(y, 1 / p, out=y)
    ctx.save(x, y)
    ctx.values.update(geometry=geometry, counts=counts)
    return y


def lp_pool2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, y = ctx.saved
    assert x is not None and y is not None
    p = ctx.params["p"]
    spread, gx = memory.empty(y.shape, y.dtype, like=y), memory.empty(x.shape, x.dtype, like=x)
    # A window of nothing but zeros has no gradient; PyTorch gives NaN there.
    spread[...] = gy * ctx.values["counts"] * np.where(y > 0, np.where(y > 0, y, 1) ** (1 - p), 0)
    launch("avg_pool2d_backward", ctx.values["geometry"], spread, gx)
    size = np.abs(x)
    gx *= np.sign(x) * np.where(size > 0, np.where(size > 0, size, 1) ** (p - 1), 0)
    return (gx,)


def read_lp_pool(n: OnnxNode) -> Any:
    p, window = n.attribute("p", 2), onnx_window(n)
    if len(window["kernel_size"]) <= 2:
        return emit_pool(n, "lp_pool2d", "", window, p=float(p))
    if window["ceil_mode"]:
        raise n.refuse("ceil_mode is supported for one and two axes")
    exponent = n.leaf(np.asarray(p, np.float32))
    powers = n.emit("pow", n.emit("abs", n.inputs[0]), exponent)
    mean = n.emit("avg_pool_nd", powers, **window, count_include_pad=True)
    count = np.prod(window["kernel_size"], dtype=np.float32)
    return n.emit(
        "pow", n.emit("mul", mean, n.leaf(np.asarray(count))), n.leaf(np.asarray(1 / p, np.float32))
    )


def write_lp_pool(w: OnnxWriter, node: Node) -> str:
    p, attributes = node.params["p"], pool_attributes("lp_pool2d", node.params)
    if p != int(p):
        raise OperandError(f"lp_pool2d: ONNX wants a whole p, not {p}")
    if w.version < 18:
        if attributes["ceil_mode"] or attributes["dilations"] != (1, 1):
            raise OperandError("lp_pool2d: ONNX has ceil_mode and dilation from operator set 18 on")
        del attributes["ceil_mode"], attributes["dilations"]
    return w.add("LpPool", node.inputs, p=int(p), **attributes)


def read_global_lp_pool(n: OnnxNode) -> Any:
    p = np.asarray(n.attribute("p", 2), np.float32)
    powers = n.emit("pow", n.emit("abs", n.inputs[0]), n.leaf(p))
    return n.emit("pow", n.emit("sum", powers, axes=(2, 3), keepdims=True), n.leaf(1 / p))


register(
    Op(
        name="lp_pool2d",
        formula="y[n,c,p,q] = (Σ |x|^p)^(1/p) over the elements of x in the window, as in max_pool2d",
        gradient="gx = sign x · |x|^(p-1) · Σ gy · y^(1-p) over the windows that hold the element",
        source="ONNX LpPool-22; torch.nn.functional.lp_pool2d",
        shape=lp_pool2d_shape,
        forward=lp_pool2d_forward,
        backward=lp_pool2d_backward,
        samples=lambda: [
            Sample((2, 3, 7, 6), p=2.0, **WINDOW),
            Sample((1, 2, 6, 5), p=3.0, **WINDOW | dict(padding=(0, 0, 0, 0))),
        ],
        errors=lambda: [
            *_window_errors(p=2.0),
            ErrorSample(OperandError, "p=0", (1, 1, 4, 4), p=0.0, **WINDOW),
        ],
        reads={"LpPool": read_lp_pool, "GlobalLpPool": read_global_lp_pool},
        writes=write_lp_pool,
        layout="channels_last",
        kernels=("avg_pool2d_forward", "avg_pool2d_backward"),
    )
)
