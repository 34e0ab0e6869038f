"""Transposed convolution over any number of axes: the adjoint of ``conv_nd``, one step per kernel element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.record import ArrayType, Context, ErrorSample, Needs, OnnxWriter, Op, Sample, register
from nnlite.ops.window import Ints, Window, attributes_of, kernel_at

OP = "conv_transpose_nd"


def _window(
    x: Ints, w: Ints, stride: Ints, padding: Ints, output_padding: Ints, dilation: Ints, groups: int
) -> tuple[Window, Ints]:
    """The window of the convolution whose input gradient this is, and the size of its input."""
    axes = len(x) - 2
    if axes < 1 or len(w) != len(x) or w[0] != x[1] or groups < 1 or w[0] % groups or 0 in w:
        raise ShapeError(f"{OP}: x {list(x)} does not fit w {list(w)} with groups={groups}")
    for name, values, count, least in (
        ("stride", stride, axes, 1), ("dilation", dilation, axes, 1), ("padding", padding, 2 * axes, 0),
        ("output_padding", output_padding, axes, 0),
    ):  # fmt: skip
        if len(values) != count or min(values) < least:
            raise ShapeError(f"{OP}: {name}={values} must be {count} integers of at least {least}")
    before, after = tuple(padding[:axes]), tuple(padding[axes:])
    size = tuple(
        (n - 1) * s - b - a + d * (k - 1) + p + 1
        for n, s, b, a, d, k, p in zip(
            x[2:], stride, before, after, dilation, w[2:], output_padding, strict=True
        )
    )
    if min(size) < 1:
        raise ShapeError(f"{OP}: padding {padding} leaves no output {size}")
    return Window(tuple(w[2:]), tuple(stride), tuple(dilation), before, after, tuple(x[2:])), size


def conv_transpose_nd_shape(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> ArrayType:
    _, size = _window(x.shape, w.shape, **params)
    channels = w.shape[1] * params["groups"]
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{OP}: bias has shape {list(bias.shape)} but must be [{channels}]")
    types = {t.dtype for t in (x, w, bias) if t is not None}
    if len(types) != 1 or x.dtype.kind != "f":
        raise DTypeError(
            f"{OP}: operands are {', '.join(sorted(map(str, types)))}; one floating type is wanted"
        )
    return ArrayType((x.shape[0], channels, *size), x.dtype)


def _grouped(a: Array, groups: int) -> Array:
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, -1)


def _kernel(w: Array, at: Ints, groups: int) -> Array:
    """[groups, C/groups, K/groups]: one element of the kernel for all channels."""
    part: Array = w[kernel_at(at)].reshape(groups, -1, w.shape[1]).swapaxes(1, 2)
    return part


def conv_transpose_nd_forward(ctx: Context, x: Array, w: Array, bias: Array | None, **params: Any) -> Array:
    (window, size), groups = _window(x.shape, w.shape, **params), params["groups"]
    channels = w.shape[1] * groups
    padded = window.padded(np.zeros((x.shape[0], channels, *size), x.dtype, like=x), 0)
    for at, where in window.pieces():
        padded[where] += (_kernel(w, at, groups) @ _grouped(x, groups)).reshape(padded[where].shape)
    y: Array = window.inside(padded, size).copy()
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(size))
    ctx.save(x, w)
    return y


def conv_transpose_nd_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w = ctx.saved
    assert x is not None and w is not None
    (window, _), groups = _window(x.shape, w.shape, **ctx.params), ctx.params["groups"]
    padded, operand = window.padded(gy, 0), _grouped(x, groups)
    gx, gw = np.zeros(operand.shape, gy.dtype, like=gy), np.zeros(w.shape, gy.dtype, like=gy)
    for at, where in window.pieces():
        piece = _grouped(padded[where], groups)
        if needs[0]:
            gx += _kernel(w, at, groups).swapaxes(1, 2) @ piece
        if needs[1]:
            gw[kernel_at(at)] = (operand @ piece.swapaxes(2, 3)).sum(0).reshape(w.shape[:2])
    gbias = gy.sum((0, *range(2, gy.ndim))) if needs[2] else None
    return gx.reshape(x.shape) if needs[0] else None, gw if needs[1] else None, gbias


_PLAIN: dict[str, Any] = dict(
    stride=(1, 1, 1), padding=(0,) * 6, output_padding=(0, 0, 0), dilation=(1, 1, 1), groups=1
)


def conv_transpose_nd_samples() -> Iterator[Sample]:
    yield Sample((2, 2, 3, 2, 3), (2, 3, 2, 3, 1), (3,), **_PLAIN)
    uneven = dict(stride=(2, 1, 3), padding=(1, 0, 1, 0, 1, 0), output_padding=(1, 0, 2), groups=2)
    yield Sample((1, 4, 2, 3, 2), (4, 1, 2, 2, 3), None, **_PLAIN | uneven)


def conv_transpose_nd_errors() -> Iterator[ErrorSample]:
    x, w = (1, 2, 3, 3, 3), (2, 3, 2, 2, 2)
    yield ErrorSample(ShapeError, "does not fit w", x, (3, 3, 2, 2, 2), None, **_PLAIN)
    yield ErrorSample(ShapeError, "bias has shape", x, w, (2,), **_PLAIN)
    yield ErrorSample(ShapeError, "stride=", x, w, None, **_PLAIN | dict(stride=(0, 1, 1)))
    yield ErrorSample(ShapeError, "leaves no output", x, w, None, **_PLAIN | dict(padding=(3,) * 6))
    ints = np.ones((1, 1, 2, 2, 2), int)
    yield ErrorSample(DTypeError, "floating type", ints, ints, None, **_PLAIN)


def _write(w: OnnxWriter, node: Node) -> str:
    params = node.params
    return w.add(
        "ConvTranspose", node.inputs, group=params["groups"], output_padding=params["output_padding"],
        **attributes_of(params),
    )  # fmt: skip


register(
    Op(
        name=OP,
        formula="conv_transpose2d's sum over any number of axes: the adjoint of conv_nd;  x [N,K,…], "
        "w [K,C/groups,…], y [N,C,…], size (P-1)·stride - pads + dilation·(R-1) + output_padding + 1",
        gradient="as conv_transpose2d's, over all axes",
        source="ONNX ConvTranspose-22; torch.nn.functional.conv_transpose3d",
        shape=conv_transpose_nd_shape,
        forward=conv_transpose_nd_forward,
        backward=conv_transpose_nd_backward,
        macs=lambda x, w, bias, **params: int(np.prod(x.shape)) * int(np.prod(w.shape[1:])),
        samples=conv_transpose_nd_samples,
        errors=conv_transpose_nd_errors,
        writes=_write,
    )
)
