"""Convolution whose places are moved by computed offsets: deform_conv2d."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array
from nnlite.memory import check_budget, max_tensor_bytes
from nnlite.node import Node
from nnlite.ops.grid_sample import taps_along
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
from nnlite.ops.window import Ints, Window, window_of

Taps = Sequence[tuple[Array, Array, Array]]
"""Along one axis, for the two elements around every place: index, weight, d weight / d place."""


def _window(
    x: Ints,
    w: Ints,
    offset: Ints,
    stride: Ints,
    padding: Any,
    dilation: Ints,
    groups: int,
    offset_groups: int,
) -> Window:
    if len(x) != 4 or len(w) != 4 or len(offset) != 4:
        raise ShapeError(
            f"deform_conv2d: x {list(x)}, w {list(w)} and offset {list(offset)} must be [N,C,H,W], "
            "[K,C/groups,R,S] and [N,offset_groups·R·S·2,P,Q]"
        )
    if groups < 1 or w[1] * groups != x[1] or w[0] % groups or 0 in w[:2]:
        raise ShapeError(
            f"deform_conv2d: x has {x[1]} channels, w {list(w)} with groups={groups} does not fit"
        )
    window = window_of("deform_conv2d", x[2:], w[2:], stride, padding, dilation)
    if offset_groups < 1 or x[1] % offset_groups:
        raise ShapeError(f"deform_conv2d: offset_groups={offset_groups} must divide the {x[1]} channels of x")
    wanted = (x[0], offset_groups * w[2] * w[3] * 2, *window.out)
    if offset != wanted:
        raise ShapeError(f"deform_conv2d: offset has shape {list(offset)} but must be {list(wanted)}")
    return window


def deform_conv2d_shape(
    x: ArrayType,
    w: ArrayType,
    offset: ArrayType,
    bias: ArrayType | None,
    mask: ArrayType | None,
    **params: Any,
) -> ArrayType:
    window = _window(x.shape, w.shape, offset.shape, **params)
    if bias is not None and bias.shape != w.shape[:1]:
        raise ShapeError(f"deform_conv2d: bias has shape {list(bias.shape)} but must be [{w.shape[0]}]")
    half = (offset.shape[0], offset.shape[1] // 2, *offset.shape[2:])
    if mask is not None and mask.shape != half:
        raise ShapeError(f"deform_conv2d: mask has shape {list(mask.shape)} but must be {list(half)}")
    types = {t.dtype for t in (x, w, offset, bias, mask) if t is not None}
    if len(types) != 1 or x.dtype.kind != "f":
        listed = ", ".join(sorted(map(str, types)))
        raise DTypeError(f"deform_conv2d: operands are {listed} but must be of one floating type")
    check_budget("deform_conv2d", [((*x.shape[:2], *window.out), x.dtype)], max_tensor_bytes())
    return ArrayType((x.shape[0], w.shape[0], *window.out), x.dtype)


class _Places(NamedTuple):
    """Where one element of the kernel looks, in every offset group: [N,G,P,Q]."""

    rows: Taps
    columns: Taps

    def corners(self) -> Iterator[tuple[Any, Any]]:
        """Each of the four elements around a place."""
        return iter(product(self.rows, self.columns))


def _places(window: Window, size: Ints, offset: Array, at: Ints, groups: int) -> _Places:
    n, _, p, q = offset.shape
    r, s = at
    moved = offset.reshape(n, groups, *window.kernel, 2, p, q)[:, :, r, s]
    found = []
    for axis, (count, element) in enumerate(zip((p, q), at, strict=True)):
        start = element * window.dilation[axis] - window.before[axis]
        regular = np.arange(count, like=offset) * window.stride[axis] + start
        place = moved[:, :, axis] + regular.reshape((-1, 1) if axis == 0 else (1, -1)).astype(offset.dtype)
        found.append(list(taps_along(place, size[axis], "linear", "zeros", False)))
    return _Places(*found)


def _spread(a: Array, channels: int) -> Array:
    """[N,G,P,Q] per offset group as [N,C,P,Q] per channel."""
    return np.repeat(a, channels // a.shape[1], axis=1)


def _index(rows: Array, columns: Array, channels: int) -> tuple[Array, ...]:
    """Index of one corner into x [N,C,H,W]."""
    batch = np.arange(rows.shape[0], like=rows).reshape(-1, 1, 1, 1)
    channel = np.arange(channels, like=rows).reshape(-1, 1, 1)
    return batch, channel, _spread(rows, channels), _spread(columns, channels)


def _sampled(x: Array, places: _Places) -> Array:
    """x [N,C,P,Q] at the places, linear between its elements, 0 outside."""
    y = np.zeros((*x.shape[:2], *places.rows[0][0].shape[2:]), x.dtype, like=x)
    for (rows, high, _), (columns, wide, _) in places.corners():
        y += x[_index(rows, columns, x.shape[1])] * _spread(high * wide, x.shape[1])
    return y


def _mask(mask: Array, window: Window, at: Ints, groups: int, channels: int) -> Array:
    n, _, p, q = mask.shape
    return _spread(mask.reshape(n, groups, *window.kernel, p, q)[:, :, at[0], at[1]], channels)


def _grouped(a: Array, groups: int) -> Array:
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, -1)


def deform_conv2d_forward(
    ctx: Context, x: Array, w: Array, offset: Array, bias: Array | None, mask: Array | None, **params: Any
) -> Array:
    window = _window(x.shape, w.shape, offset.shape, **params)
    groups, parts = params["groups"], params["offset_groups"]
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, int(np.prod(window.out))), x.dtype, like=x)
    for at in np.ndindex(*window.kernel):
        column = _sampled(x, _places(window, x.shape[2:], offset, at, parts))
        if mask is not None:
            column *= _mask(mask, window, at, parts, x.shape[1])
        y += w[:, :, at[0], at[1]].reshape(groups, -1, w.shape[1]) @ _grouped(column, groups)
    y = y.reshape(x.shape[0], w.shape[0], *window.out)
    if bias is not None:
        y += bias.reshape(-1, 1, 1)
    ctx.save(x, w, offset, mask)
    return y


def deform_conv2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w, offset, mask = ctx.saved
    assert x is not None and w is not None and offset is not None
    window = _window(x.shape, w.shape, offset.shape, **ctx.params)
    groups, parts = ctx.params["groups"], ctx.params["offset_groups"]
    n, channels, p, q = x.shape[0], x.shape[1], *window.out
    gradient = _grouped(gy, groups)
    gx, gw = (np.zeros_like(a) if need else None for a, need in zip((x, w), needs, strict=False))
    goffset = np.zeros((n, parts, *window.kernel, 2, p, q), x.dtype, like=x) if needs[2] else None
    gmask = np.zeros((n, parts, *window.kernel, p, q), x.dtype, like=x) if needs[4] else None
    for at in np.ndindex(*window.kernel):
        r, s = at
        places = _places(window, x.shape[2:], offset, at, parts)
        sample = _sampled(x, places)
        kernel = w[:, :, r, s].reshape(groups, -1, w.shape[1])
        gcolumn = (kernel.swapaxes(1, 2) @ gradient).reshape(x.shape[0], channels, p, q)
        scale = None if mask is None else _mask(mask, window, at, parts, channels)
        if gw is not None:
            column = sample if scale is None else sample * scale
            found = (gradient @ _grouped(column, groups).swapaxes(2, 3)).sum(0)
            gw[:, :, r, s] = found.reshape(w.shape[:2])
        if gmask is not None:
            gmask[:, :, r, s] = (gcolumn * sample).reshape(n, parts, -1, p, q).sum(2)
        if scale is not None:
            gcolumn = gcolumn * scale
        for (rows, high, dhigh), (columns, wide, dwide) in places.corners():
            index = _index(rows, columns, channels)
            if gx is not None:
                add_at(gx, index, gcolumn * _spread(high * wide, channels))
            if goffset is not None:
                along = (x[index] * gcolumn).reshape(n, parts, -1, p, q).sum(2)
                goffset[:, :, r, s, 0] += along * dhigh * wide
                goffset[:, :, r, s, 1] += along * high * dwide
    gbias = gy.sum((0, 2, 3)) if needs[3] else None
    half = (offset.shape[0], offset.shape[1] // 2, p, q)
    return (
        gx, gw, None if goffset is None else goffset.reshape(offset.shape), gbias,
        None if gmask is None else gmask.reshape(half),
    )  # fmt: skip


_PLAIN: dict[str, Any] = dict(stride=(1, 1), padding=(0,) * 4, dilation=(1, 1), groups=1, offset_groups=1)


def _moves(*shape: int) -> Array:
    """Offsets away from the kinks at whole places, some of which lead out of the picture."""
    return np.asarray(np.random.default_rng(5).uniform(-1.5, 1.5, shape).round(1) + 0.03)


def deform_conv2d_samples() -> Iterator[Sample]:
    yield Sample((2, 2, 4, 5), (3, 2, 2, 3), _moves(2, 12, 3, 3), (3,), (2, 6, 3, 3), **_PLAIN)
    uneven = dict(stride=(2, 1), padding=(1, 0, 1, 2), dilation=(1, 2), groups=2, offset_groups=2)
    yield Sample((1, 4, 4, 5), (2, 2, 2, 2), _moves(1, 16, 3, 5), None, None, **_PLAIN | uneven)
    yield Sample(
        (1, 4, 3, 3), (2, 4, 3, 3), _moves(1, 36, 3, 3), None, (1, 18, 3, 3),
        **_PLAIN | dict(padding=(1, 1, 1, 1), offset_groups=2),
    )  # fmt: skip


def deform_conv2d_errors() -> Iterator[ErrorSample]:
    x, w, offset = (1, 2, 3, 3), (4, 2, 2, 2), (1, 8, 2, 2)
    yield ErrorSample(ShapeError, "must be .N,C,H,W", (1, 2, 3), w, offset, None, None, **_PLAIN)
    yield ErrorSample(ShapeError, "does not fit", x, (4, 1, 2, 2), offset, None, None, **_PLAIN)
    yield ErrorSample(ShapeError, "offset has shape", x, w, (1, 8, 3, 2), None, None, **_PLAIN)
    yield ErrorSample(ShapeError, "must divide", x, w, offset, None, None, **_PLAIN | dict(offset_groups=3))
    yield ErrorSample(ShapeError, "bias has shape", x, w, offset, (3,), None, **_PLAIN)
    yield ErrorSample(ShapeError, "mask has shape", x, w, offset, None, (1, 8, 2, 2), **_PLAIN)
    yield ErrorSample(ShapeError, "stride", x, w, offset, None, None, **_PLAIN | dict(stride=(0, 1)))
    ints = np.zeros(offset, int)
    yield ErrorSample(DTypeError, "one floating type", x, w, ints, None, None, **_PLAIN)


def read_deform_conv(n: OnnxNode) -> Any:
    operands = [*n.inputs, *[None] * (5 - len(n.inputs))]
    declared, known = n.attribute("kernel_shape"), n.known(operands[1])
    if declared is not None and known is not None and tuple(known.shape[2:]) != tuple(declared):
        raise n.refuse(f"kernel_shape {declared} disagrees with the weight's {list(known.shape[2:])}")
    rank = n.rank(0) or 4
    if rank != 4:
        raise n.refuse(f"x has {rank} axes; only pictures [N,C,H,W] are supported")
    return n.emit(
        "deform_conv2d", *operands, stride=n.attribute("strides") or (1, 1),
        padding=n.attribute("pads") or (0,) * 4, dilation=n.attribute("dilations") or (1, 1),
        groups=n.attribute("group", 1), offset_groups=n.attribute("offset_group", 1),
    )  # fmt: skip


def write_deform_conv(w: OnnxWriter, node: Node) -> str:
    if w.version < 19:
        raise ShapeError("deform_conv2d: ONNX knows DeformConv from operator set 19 on; export with opset=19")
    params = node.params
    return w.add(
        "DeformConv", node.inputs, strides=params["stride"], pads=params["padding"],
        dilations=params["dilation"], group=params["groups"], offset_group=params["offset_groups"],
    )  # fmt: skip


register(
    Op(
        name="deform_conv2d",
        formula="conv2d whose element (r, s) looks at place (p·stride + r·dilation - pad + offset[…]) of x, "
        "linear between elements and 0 outside, times mask;  x [N,C,H,W], w [K,C/groups,R,S], "
        "offset [N, offset_groups·R·S·2, P, Q] (row before column), bias [K], "
        "mask [N, offset_groups·R·S, P, Q]",
        gradient="of the sum as conv2d's; of an offset Σ_c gx · slope of x between its elements",
        source="ONNX DeformConv-22; Dai et al. 2017, arXiv:1703.06211; Zhu et al. 2019, arXiv:1811.11168; "
        "torchvision.ops.deform_conv2d",
        shape=deform_conv2d_shape,
        forward=deform_conv2d_forward,
        backward=deform_conv2d_backward,
        macs=lambda x, w, offset, *rest, **params: (
            int(np.prod(offset.shape[2:])) * x.shape[0] * int(np.prod(w.shape))
        ),
        samples=deform_conv2d_samples,
        errors=deform_conv2d_errors,
        reads={"DeformConv": read_deform_conv},
        writes=write_deform_conv,
    )
)
