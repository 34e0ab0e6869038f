"""Maximum over as many windows as the output asks for, and the places of the maxima."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import Pair, pair
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.one_axis import add_at
from nnlite.ops.pool_windows import INT64, four_axes
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxWriter,
    Op,
    Sample,
    register,
)

# --------------------------------------------------------------------------- adaptive_max_pool2d


def _output_shape(op: str, x: ArrayType, output_size: Pair) -> tuple[int, ...]:
    four_axes(op, x)
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"{op}: x {list(x.shape)} has no pixels")
    return (*x.shape[:2], *pair(op, "output_size", output_size, 1))


def adaptive_max_pool2d_shape(x: ArrayType, output_size: Pair) -> ArrayType:
    return ArrayType(_output_shape("adaptive_max_pool2d", x, output_size), x.dtype)


def _spans(size: int, out: int) -> list[slice]:
    return [slice(p * size // out, -(-(p + 1) * size // out)) for p in range(out)]


def _places(x: Array, output_size: Pair) -> Array:
    """[N,C,P,Q]: h · W + w of the first maximum of each window."""
    places = np.empty((*x.shape[:2], *output_size), INT64, like=x)
    width = x.shape[3]
    for p, rows in enumerate(_spans(x.shape[2], output_size[0])):
        for q, columns in enumerate(_spans(width, output_size[1])):
            window = x[:, :, rows, columns]
            at = window.reshape(*x.shape[:2], -1).argmax(2)
            r, s = np.divmod(at, window.shape[3])
            places[:, :, p, q] = (rows.start + r) * width + columns.start + s
    return places


def adaptive_max_pool2d_forward(ctx: Context, x: Array, output_size: Pair) -> Array:
    places = _places(x, output_size)
    y = memory.empty(places.shape, x.dtype, like=x)
    flat, chosen = (a.reshape(*x.shape[:2], -1) for a in (x, places))
    y[...] = np.take_along_axis(flat, chosen, 2).reshape(y.shape)
    ctx.save(places)
    ctx.values["x_shape"] = x.shape
    return y


def adaptive_max_pool2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    n, c, height, width = ctx.values["x_shape"]
    gx = np.zeros((n, c, height * width), gy.dtype, like=gy)
    flat = ctx.saved[0].reshape(n, c, -1)
    picture, channel = np.arange(n, like=gy)[:, None, None], np.arange(c, like=gy)[:, None]
    add_at(gx, (picture, channel, flat), gy.reshape(flat.shape))  # windows may overlap
    return (gx.reshape(n, c, height, width),)


def _window(op: str, node: Node) -> dict[str, Any]:
    """The attributes of the MaxPool that does the same."""
    (x,), (p, q) = node.inputs, node.params["output_size"]
    known = x.type if x is not None else None
    if known is None or known.shape[2] % p or known.shape[3] % q:
        raise ShapeError(f"{op}: ONNX knows output_size {[p, q]} only where it divides the input's size")
    kernel = (known.shape[2] // p, known.shape[3] // q)
    return {"kernel_shape": kernel, "strides": kernel}


def write_adaptive_max_pool(w: OnnxWriter, node: Node) -> str:
    if tuple(node.params["output_size"]) == (1, 1):
        return w.add("GlobalMaxPool", node.inputs)
    return w.add("MaxPool", node.inputs, **_window("adaptive_max_pool2d", node))


def _errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "must be .N,C,H,W", (2, 3, 4), output_size=(1, 1))
    yield ErrorSample(ShapeError, "at least 1", (1, 2, 3, 4), output_size=(0, 1))
    yield ErrorSample(ShapeError, "no pixels", (1, 2, 0, 4), output_size=(1, 1))
    yield ErrorSample(DTypeError, "floating-point", np.ones((1, 1, 2, 2), int), output_size=(1, 1))


register(
    Op(
        name="adaptive_max_pool2d",
        formula="y[n,c,p,q] = max of x[n, c, ⌊p·H/P⌋ : ⌈(p+1)·H/P⌉, ⌊q·W/Q⌋ : ⌈(q+1)·W/Q⌉];  "
        "x [N,C,H,W], y [N,C,P,Q] with (P, Q) = output_size; (1, 1) is global maximum pooling",
        gradient="gx[n,c,h,w] = Σ gy[n,c,p,q] over the windows whose (first) maximum is at h,w",
        source="torch.nn.functional.adaptive_max_pool2d; ONNX GlobalMaxPool-22",
        shape=adaptive_max_pool2d_shape,
        forward=adaptive_max_pool2d_forward,
        backward=adaptive_max_pool2d_backward,
        samples=lambda: [
            Sample((2, 3, 5, 4), output_size=(1, 1)),
            Sample((1, 2, 6, 8), output_size=(3, 2)),
            Sample((1, 2, 7, 5), output_size=(3, 4), onnx=False),
        ],
        errors=_errors,
        reads={"GlobalMaxPool": lambda n: n.emit("adaptive_max_pool2d", n.inputs[0], output_size=(1, 1))},
        writes=write_adaptive_max_pool,
        layout="C",
    )
)

# ------------------------------------------------------------------- adaptive_max_pool2d_indices


def adaptive_max_pool2d_indices_shape(x: ArrayType, output_size: Pair) -> ArrayType:
    return ArrayType(_output_shape("adaptive_max_pool2d_indices", x, output_size), INT64)


def write_adaptive_max_pool_indices(w: OnnxWriter, node: Node) -> str:
    (x,) = node.inputs
    window = _window("adaptive_max_pool2d_indices", node)
    assert x is not None and x.type is not None
    whole = w.add_many("MaxPool", [x], 2, **window)[1]
    # ONNX counts through the whole tensor, PyTorch through each picture.
    return w.add("Mod", [whole, w.host(x.type.shape[2] * x.type.shape[3])])


register(
    Op(
        name="adaptive_max_pool2d_indices",
        formula="h · W + w of the (first) maximum of each window of adaptive_max_pool2d;  x [N,C,H,W], "
        "y [N,C,P,Q] integers",
        gradient="none: places carry no gradient; the maxima are adaptive_max_pool2d's",
        source="torch.nn.functional.adaptive_max_pool2d (return_indices)",
        shape=adaptive_max_pool2d_indices_shape,
        forward=lambda ctx, x, output_size: _places(x, output_size),
        backward=None,
        samples=lambda: [
            Sample((2, 3, 5, 4), output_size=(1, 1)),
            Sample((1, 2, 6, 8), output_size=(3, 2)),
            Sample((1, 2, 7, 5), output_size=(3, 4), onnx=False),
        ],
        errors=_errors,
        writes=write_adaptive_max_pool_indices,
        layout="C",
    )
)
