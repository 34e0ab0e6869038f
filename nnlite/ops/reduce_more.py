"""More reductions over axes: minimum, product, Euclidean norm, log of a sum of exponentials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.layout import Array, as_array
from nnlite.ops.record import Context, Needs, OnnxNode, Sample
from nnlite.ops.reduce import (
    Axes,
    extreme,
    extreme_samples,
    outermost,
    register_reduction,
    remember_axes,
    spread,
)


def min_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    reduced = remember_axes(ctx, "min", x, axes)
    smallest = outermost(x, reduced, extreme(x.dtype, lowest=False), np.min)
    if ctx.recording:
        hits = x == smallest
        ctx.save(hits / hits.sum(reduced, keepdims=True))
    return as_array(smallest if keepdims else np.squeeze(smallest, reduced))


def min_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    return ((spread(ctx, gy) * ctx.saved[0]).astype(gy.dtype),)


def prod_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    ctx.save(x)
    return as_array(x.prod(remember_axes(ctx, "prod", x, axes), keepdims=keepdims, dtype=x.dtype))


def prod_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    x, axes = ctx.saved[0], ctx.values["axes"]
    # Without division, which fails where x is 0: products of what lies before and behind each element.
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    moved = np.transpose(x, (*kept, *axes))
    rows = moved.reshape(*moved.shape[: len(kept)], -1)
    ones = np.ones_like(x, x.dtype, "C", shape=(*rows.shape[:-1], 1))
    before = np.cumprod(np.concatenate([ones, rows[..., :-1]], -1), -1)
    behind = np.cumprod(np.concatenate([ones, rows[..., :0:-1]], -1), -1)[..., ::-1]
    others = (before * behind).reshape(moved.shape).transpose(np.argsort((*kept, *axes)))
    return ((spread(ctx, gy) * others).astype(gy.dtype),)


def norm_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    reduced = remember_axes(ctx, "norm", x, axes)
    # Scaled by the largest magnitude, so that the squares neither overflow nor vanish.
    scale = outermost(np.abs(x), reduced, 0, np.max)
    scale = np.where((scale == 0) | ~np.isfinite(scale), 1, scale).astype(x.dtype)
    y = np.sqrt(np.square(x / scale).sum(reduced, keepdims=True)) * scale
    ctx.save(x, y)
    return as_array(y if keepdims else np.squeeze(y, reduced))


def norm_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, y = ctx.saved
    assert x is not None and y is not None
    return ((spread(ctx, gy) * (x / np.where(y == 0, 1, y))).astype(gy.dtype),)


def logsumexp_forward(ctx: Context, x: Array, axes: Axes, keepdims: bool) -> Array:
    reduced = remember_axes(ctx, "logsumexp", x, axes)
    largest = outermost(x, reduced, -np.inf, np.max)
    largest = np.where(np.isfinite(largest), largest, 0).astype(x.dtype)
    with np.errstate(divide="ignore"):  # the log of an empty or vanishing sum is -inf
        y = np.log(np.exp(x - largest).sum(reduced, keepdims=True)) + largest
    ctx.save(x, y)
    return as_array(y if keepdims else np.squeeze(y, reduced))


def logsumexp_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, y = ctx.saved
    assert x is not None and y is not None
    return ((spread(ctx, gy) * np.exp(x - y)).astype(gy.dtype),)


def _samples() -> Iterator[Sample]:
    for axes in [None, (1,), (2, 3), (-1, 0)]:
        for keepdims in (False, True):
            yield Sample((2, 3, 2, 3), axes=axes, keepdims=keepdims)


def _prod_samples() -> Iterator[Sample]:
    yield from _samples()
    zeros = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0], [0.5, -1.5, 2.0]])
    yield Sample(zeros, axes=(1,), keepdims=False)


register_reduction(
    "min", "minimum (of no elements: the highest number)",
    "gx = gy at the minimum, shared equally among ties", "fiub", min_forward, min_backward,
    "ReduceMin", 18, samples=extreme_samples, source="ONNX ReduceMin-20; torch.amin",
)  # fmt: skip
register_reduction(
    "prod", "Π", "gx = gy · the product of all other elements", "fiu",
    prod_forward, prod_backward, "ReduceProd", 18, samples=_prod_samples,
    reads={
        "Size": lambda n: n.emit("prod", n.emit("shape_of", n.inputs[0]), axes=None, keepdims=False)
    },
)  # fmt: skip


def read_lp_normalization(n: OnnxNode) -> Any:
    """x divided by its norm along an axis; 0 where that is 0."""
    x, along = n.inputs[0], dict[str, Any](axes=(n.attribute("axis", -1),), keepdims=True)
    if n.attribute("p", 2) == 2:
        length = n.emit("norm", x, **along)
    else:
        length = n.emit("sum", n.emit("abs", x), **along)
    empty = n.emit("cast", n.emit("logical_not", n.emit("cast", length, dtype="bool")), dtype="float32")
    return n.emit("div", x, n.emit("add", length, empty))


register_reduction(
    "norm", "√Σ x² (the Euclidean norm)", "gx = gy · x / y, 0 where y = 0", "f",
    norm_forward, norm_backward, "ReduceL2", 18,
    source="ONNX ReduceL2-18; torch.linalg.vector_norm", samples=_samples,
    reads={"LpNormalization": read_lp_normalization},
)  # fmt: skip
register_reduction(
    "logsumexp", "ln Σ eˣ", "gx = gy · e^(x - y)", "f",
    logsumexp_forward, logsumexp_backward, "ReduceLogSumExp", 18, samples=_samples,
)  # fmt: skip
