"""Sampling an array at computed places: grid_sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array
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

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75
"""The free parameter of cubic interpolation, as in PyTorch and ONNX."""


def grid_sample_shape(
    x: ArrayType, grid: ArrayType, mode: str, padding_mode: str, align_corners: bool
) -> ArrayType:
    if mode not in MODES or padding_mode not in PADDINGS:
        raise OperandError(
            f"grid_sample: mode={mode!r} must be one of {', '.join(MODES)}, "
            f"padding_mode={padding_mode!r} one of {', '.join(PADDINGS)}"
        )
    if x.dtype.kind != "f" or grid.dtype != x.dtype:
        raise DTypeError(f"grid_sample: x is {x.dtype}, grid {grid.dtype}; both must be one floating type")
    axes = len(x.shape) - 2
    if axes < 1 or len(grid.shape) != axes + 2 or grid.shape[-1] != axes or grid.shape[0] != x.shape[0]:
        raise ShapeError(
            f"grid_sample: x {list(x.shape)} needs a grid [{x.shape[0] if x.shape else 'N'}, …, {axes}] with "
            f"{axes} axes of places, not {list(grid.shape)}"
        )
    if 0 in x.shape[2:]:
        raise ShapeError(f"grid_sample: x {list(x.shape)} has no elements to sample")
    return ArrayType((*x.shape[:2], *grid.shape[1:-1]), x.dtype)


def _reflect(at: Array, low: float, high: float) -> tuple[Array, Array]:
    """``at`` mirrored at low and high until it lies between them; and the derivative, 1 or -1."""
    span = high - low
    if span == 0:
        return np.full_like(at, low), np.zeros_like(at)
    shifted = at - low
    sign = np.where(shifted < 0, -1, 1)
    turns, rest = np.divmod(np.abs(shifted), span)
    odd = turns % 2 == 1
    return np.where(odd, high - rest, rest + low), np.where(odd, -sign, sign).astype(at.dtype)


def _padded(at: Array, size: int, padding_mode: str, align_corners: bool) -> tuple[Array, Array]:
    """Coordinates brought into the array as ``padding_mode`` says, and their derivative."""
    slope = np.ones_like(at)
    if padding_mode == "zeros":
        return at, slope
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        at, slope = _reflect(at, low, high)
    inside = (at > 0) & (at < size - 1)  # PyTorch counts the border itself as outside
    return np.clip(at, 0, size - 1), slope * inside


def taps_along(
    at: Array, size: int, mode: str, padding_mode: str, align_corners: bool
) -> Iterator[tuple[Array, Array, Array]]:
    """For one axis: (index, weight, d weight / d at) of every element that takes part; weight 0 outside."""
    slope = np.ones_like(at)
    if mode != "cubic":
        at, slope = _padded(at, size, padding_mode, align_corners)
    if mode == "nearest":
        taps = [(np.rint(at), np.ones_like(at), np.zeros_like(at))]
    elif mode == "linear":
        low = np.floor(at)
        taps = [(low, 1 - (at - low), -slope), (low + 1, at - low, slope)]
    else:
        low, a = np.floor(at), CUBIC
        taps = []
        for offset in (-1, 0, 1, 2):
            d = np.abs(at - low - offset)
            sign = np.sign(at - low - offset)
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
            near_slope, far_slope = (3 * (a + 2) * d - 2 * (a + 3)) * d, (3 * a * d - 10 * a) * d + 8 * a
            weight = np.where(d <= 1, near, far)
            taps.append((low + offset, weight, np.where(d <= 1, near_slope, far_slope) * sign))
    for index, weight, change in taps:
        if mode == "cubic" and padding_mode != "zeros":
            index, _ = _padded(index, size, padding_mode, align_corners)
            index = np.rint(index)
        outside = ~((index >= 0) & (index <= size - 1))  # NaN too
        place = np.where(outside, 0, index).astype(np.int64)
        yield place, np.where(outside, 0, weight).astype(at.dtype), np.where(outside, 0, change)


def _axes(x_shape: tuple[int, ...], grid: Array, params: Any) -> tuple[list[list[Any]], list[float]]:
    """Taps of every axis of x, and by how much a coordinate moves with its grid value."""
    sizes = x_shape[2:]
    taps, scales = [], []
    for axis, size in enumerate(sizes):
        g = grid[..., len(sizes) - 1 - axis]  # grid holds x before y
        scale = (size - 1) / 2 if params["align_corners"] else size / 2
        at = (g + 1) * scale if params["align_corners"] else ((g + 1) * size - 1) / 2
        at = at.astype(grid.dtype)
        taps.append(
            list(taps_along(at, size, params["mode"], params["padding_mode"], params["align_corners"]))
        )
        scales.append(scale)
    return taps, scales


def _corner(x: Array, combination: Sequence[Any]) -> tuple[Any, Array]:
    """Index into x [N, places…, C] of one tap per axis, and the weight [N, places…]."""
    batch = np.arange(x.shape[0], like=x).reshape(-1, *[1] * (combination[0][0].ndim - 1))
    weight = combination[0][1]
    for _, w, _ in combination[1:]:
        weight = weight * w
    return (batch, *(place for place, _, _ in combination)), weight


def grid_sample_forward(ctx: Context, x: Array, grid: Array, **params: Any) -> Array:
    pixels = np.moveaxis(x, 1, -1)
    taps, _ = _axes(x.shape, grid, params)
    y = np.zeros((*grid.shape[:-1], x.shape[1]), x.dtype, like=x)
    for combination in product(*taps):
        where, weight = _corner(pixels, combination)
        y += pixels[where] * weight[..., None]
    ctx.save(x, grid)
    return np.moveaxis(y, -1, 1)


def grid_sample_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, grid = ctx.saved
    assert x is not None and grid is not None
    pixels, gradient = np.moveaxis(x, 1, -1), np.moveaxis(gy, 1, -1)
    taps, scales = _axes(x.shape, grid, ctx.params)
    gx = np.zeros(pixels.shape, x.dtype, like=x) if needs[0] else None
    ggrid = np.zeros(grid.shape, x.dtype, like=x) if needs[1] else None
    for combination in product(*taps):
        where, weight = _corner(pixels, combination)
        if gx is not None:
            add_at(gx, where, gradient * weight[..., None])
        if ggrid is None:
            continue
        along = (pixels[where] * gradient).sum(-1)
        for axis, (_, _, change) in enumerate(combination):
            others = change * scales[axis]
            for other, (_, w, _) in enumerate(combination):
                others = others * w if other != axis else others
            ggrid[..., len(scales) - 1 - axis] += along * others
    return None if gx is None else np.moveaxis(gx, -1, 1), ggrid


def _places(*shape: int) -> Array:
    """A grid that reaches beyond the array, away from the kinks at whole coordinates."""
    return np.asarray(np.random.default_rng(11).uniform(-1.3, 1.3, shape).round(2) + 0.003)


def grid_sample_samples() -> Iterator[Sample]:
    for mode, padding_mode, align in product(MODES, PADDINGS, (False, True)):
        yield Sample(
            (2, 3, 4, 5), _places(2, 3, 2, 2), mode=mode, padding_mode=padding_mode, align_corners=align
        )
    yield Sample(
        (1, 2, 3, 4, 3), _places(1, 2, 2, 2, 3), mode="linear", padding_mode="border", align_corners=False,
        onnx=False,
    )  # fmt: skip


_PLAIN: dict[str, Any] = dict(mode="linear", padding_mode="zeros", align_corners=False)


def grid_sample_errors() -> Iterator[ErrorSample]:
    x, grid = (1, 2, 3, 3), (1, 2, 2, 2)
    yield ErrorSample(OperandError, "mode='area' must be", x, grid, **_PLAIN | dict(mode="area"))
    yield ErrorSample(OperandError, "padding_mode='wrap'", x, grid, **_PLAIN | dict(padding_mode="wrap"))
    yield ErrorSample(ShapeError, "needs a grid", x, (1, 2, 2, 3), **_PLAIN)
    yield ErrorSample(ShapeError, "needs a grid", x, (2, 2, 2, 2), **_PLAIN)
    yield ErrorSample(ShapeError, "no elements", (1, 2, 0, 3), grid, **_PLAIN)
    yield ErrorSample(DTypeError, "one floating type", x, np.zeros(grid, int), **_PLAIN)


def read_grid_sample(n: OnnxNode) -> Any:
    mode = n.attribute("mode", "bilinear" if n.version < 20 else "linear")
    modes = {"bilinear": "linear", "bicubic": "cubic"}
    return n.emit(
        "grid_sample", *n.inputs, mode=modes.get(mode, mode),
        padding_mode=n.attribute("padding_mode", "zeros"),
        align_corners=bool(n.attribute("align_corners", 0)),
    )  # fmt: skip


def write_grid_sample(w: OnnxWriter, node: Node) -> str:
    if w.version < 16:
        raise OperandError("grid_sample: ONNX knows GridSample from operator set 16 on; export with opset=16")
    names = {"linear": "bilinear", "cubic": "bicubic"} if w.version < 20 else {}
    mode, padding = node.params["mode"], node.params["padding_mode"]
    align = int(node.params["align_corners"])
    return w.add(
        "GridSample", node.inputs, mode=names.get(mode, mode), padding_mode=padding, align_corners=align
    )


register(
    Op(
        name="grid_sample",
        formula="y[n,c,p…] = x[n,c] at the place grid[n,p…,:], which counts from -1 to 1 across x, last axis "
        "of x first; between elements linear, cubic (a = -0.75) or the nearest; beyond the edge zeros, the "
        "edge or the mirror image;  x [N,C,H,W] or any number of axes, grid [N,P,Q,2]",
        gradient="gx: each gy spread over the elements it was made of, by their weights; "
        "ggrid = Σ_c gy · x · d weight / d grid",
        source="ONNX GridSample-22; torch.nn.functional.grid_sample",
        shape=grid_sample_shape,
        forward=grid_sample_forward,
        backward=grid_sample_backward,
        samples=grid_sample_samples,
        errors=grid_sample_errors,
        reads={"GridSample": read_grid_sample},
        writes=write_grid_sample,
    )
)
