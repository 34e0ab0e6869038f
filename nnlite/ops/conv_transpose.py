"""Transposed convolution: the adjoint of convolution, on the same kernels with the roles exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import (
    Conv2dGeometry,
    Padding,
    Pair,
    conv_transpose2d_geometry,
    pair,
    resolve_pads,
)
from nnlite.kernels import launch
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.conv import (
    PLAIN,
    channel_sums,
    check_bias,
    kernel_of,
    kernel_size_of,
    same_float_type,
    window_attributes,
)
from nnlite.ops.onnx_window import conv_window, emit_conv
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


def _pads_for_size(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: str,
    output_padding: Pair,
    dilation: Pair,
    output_size: Pair | None,
) -> tuple[str | tuple[int, ...], Pair]:
    """Pads and output padding for an output of ``output_size`` (size · stride where None).

    An odd pad lies after or before. What no window reaches lies behind: it is output padding.
    """
    if padding not in ("same_upper", "same_lower"):
        return padding, output_padding
    small, large, beyond = [], [], []
    for i in (0, 1):
        wanted = x_shape[2 + i] * stride[i] if output_size is None else output_size[i]
        full = (x_shape[2 + i] - 1) * stride[i] + output_padding[i] + (w_shape[2 + i] - 1) * dilation[i] + 1
        surplus = max(full - wanted, 0)
        small.append(surplus // 2)
        large.append(surplus - surplus // 2)
        beyond.append(output_padding[i] + max(wanted - full, 0))
    first, last = (small, large) if padding == "same_upper" else (large, small)
    return (*first, *last), (beyond[0], beyond[1])


def conv_transpose2d_geometry_of(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    output_padding: Pair,
    dilation: Pair,
    groups: int,
    output_size: Pair | None = None,
) -> Conv2dGeometry:
    op = "conv_transpose2d"
    stride, dilation = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    output_padding = pair(op, "output_padding", output_padding, 0)
    if isinstance(padding, str) and len(x_shape) == len(w_shape) == 4:
        resolved = _pads_for_size(x_shape, w_shape, stride, padding, output_padding, dilation, output_size)
        padding, output_padding = resolved
    if isinstance(padding, str):
        raise ShapeError(f"{op}: padding={padding!r} must be integers, 'same_upper' or 'same_lower'")
    pads = resolve_pads(op, padding, (1, 1), (1, 1), stride, dilation)
    return conv_transpose2d_geometry(x_shape, w_shape, stride, pads, output_padding, dilation, groups)


def conv_transpose2d_shape(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> ArrayType:
    dtype = same_float_type("conv_transpose2d", x=x, w=w, bias=bias)
    geometry = conv_transpose2d_geometry_of(x.shape, w.shape, **params)
    check_bias("conv_transpose2d", bias, geometry.C)
    return ArrayType(geometry.x_shape, dtype)


def conv_transpose2d_forward(ctx: Context, x: Array, w: Array, bias: Array | None, **params: Any) -> Array:
    geometry = conv_transpose2d_geometry_of(x.shape, w.shape, **params)
    y = memory.empty(geometry.x_shape, x.dtype, like=x)
    launch("conv2d_grad_input", geometry, x, w, y)
    if bias is not None:
        y += bias[:, None, None]
    ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None)
    ctx.values["geometry"] = geometry
    return y


def conv_transpose2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w = ctx.saved
    geometry: Conv2dGeometry = ctx.values["geometry"]
    gx = gw = gbias = None
    if needs[0]:
        gx = memory.empty(geometry.y_shape, gy.dtype, like=gy)
        launch("conv2d_forward", geometry, gy, w, None, None, gx)
    if needs[1]:
        gw = memory.empty(geometry.w_shape, gy.dtype, like=gy)
        launch("conv2d_grad_weight", geometry, gy, x, gw)
    if needs[2]:
        gbias = channel_sums(gy)
    return gx, gw, gbias


def conv_transpose2d_macs(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> int:
    return conv_transpose2d_geometry_of(x.shape, w.shape, **params).macs


_TRANSPOSED: dict[str, Any] = PLAIN | dict(output_padding=(0, 0))


def conv_transpose2d_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 4, 5), (3, 4, 3, 3), (4,), **_TRANSPOSED)
    yield Sample((1, 4, 3, 3), (4, 5, 4, 4), None, **_TRANSPOSED | dict(stride=(2, 2), padding=(1, 1, 1, 1)))
    yield Sample(
        (1, 4, 3, 4), (4, 3, 3, 2), (6,),
        **_TRANSPOSED | dict(stride=(2, 3), padding=(0, 1, 1, 0), output_padding=(1, 2), groups=2),
    )  # fmt: skip
    dilated = dict(dilation=(2, 2), padding=(2, 2, 2, 2))
    yield Sample((1, 2, 5, 4), (2, 3, 3, 3), (3,), **_TRANSPOSED | dilated)
    same = dict(stride=(2, 2), padding="same_upper")
    yield Sample((1, 2, 3, 4), (2, 3, 3, 4), None, **_TRANSPOSED | same)
    sized = dict(stride=(2, 3), padding="same_lower", output_size=(6, 9))
    yield Sample((1, 2, 3, 4), (2, 3, 3, 4), None, **_TRANSPOSED | sized)


def conv_transpose2d_errors() -> Iterator[ErrorSample]:
    x, w = (1, 3, 4, 4), (3, 2, 3, 3)
    yield ErrorSample(ShapeError, "x has 5 channels", (1, 5, 4, 4), w, None, **_TRANSPOSED)
    yield ErrorSample(ShapeError, "has no channels", x, (3, 0, 3, 3), None, **_TRANSPOSED)
    yield ErrorSample(ShapeError, "must be", (3, 4, 4), w, None, **_TRANSPOSED)
    yield ErrorSample(ShapeError, "must be", x, (3, 2, 3), None, **_TRANSPOSED)
    yield ErrorSample(ShapeError, "bias has shape", x, w, (3,), **_TRANSPOSED)
    cases: list[tuple[dict[str, Any], str]] = [
        (dict(groups=2), "must divide"),
        (dict(output_padding=(1, 1)), "output_padding.*smaller"),
        (dict(padding=(4, 4)), "leaves no output"),
        (dict(padding="same"), "must be integers"),
        (dict(padding="same_upper", stride=(2, 2), output_size=(12, 9)), "output_padding.*smaller"),
    ]
    for params, match in cases:
        yield ErrorSample(ShapeError, match, x, w, None, **_TRANSPOSED | params)
    integers = np.ones((1, 1, 3, 3), np.int64)
    yield ErrorSample(DTypeError, "one floating-point type", integers, integers, None, **_TRANSPOSED)


def read_conv_transpose(n: OnnxNode) -> Any:
    window = conv_window(n, kernel_of(n, 1))
    axes, groups = len(window["stride"]), n.attribute("group", 1)
    window["output_padding"] = tuple(n.attribute("output_padding") or (0,) * axes)
    size = n.attribute("output_shape")
    if window["padding"] == "valid":
        window["padding"] = (0,) * (2 * axes)
    if size is None and not isinstance(window["padding"], str):
        return emit_conv(n, "conv_transpose2d", "conv_transpose_nd", window, groups=groups)
    if axes > 2:
        raise n.refuse("auto_pad and output_shape are supported for one and two axes; export explicit pads")
    if size is not None:
        size = (1, *size)[-2:] if axes == 1 else tuple(size)[-2:]
        if not isinstance(window["padding"], str):  # ONNX: pads are ignored, and found so that the size fits
            window["padding"] = "same_lower"
    return emit_conv(n, "conv_transpose2d", "", window, groups=groups, output_size=size)


def write_conv_transpose(w: OnnxWriter, node: Node) -> str:
    params = node.params
    output_padding = pair("conv_transpose2d", "output_padding", params["output_padding"], 0)
    if isinstance(params["padding"], str):
        x, weight = (value.type if value is not None else None for value in node.inputs[:2])
        if x is None or weight is None:
            raise ShapeError("conv_transpose2d: the shape of x must be known to write padding by size")
        geometry = conv_transpose2d_geometry_of(x.shape, weight.shape, **params)
        pads = (geometry.pad_top, geometry.pad_left, geometry.pad_bottom, geometry.pad_right)
        params = dict(params, padding=pads)
        least = conv_transpose2d_geometry_of(
            x.shape, weight.shape, **dict(params, output_size=None, output_padding=(0, 0))
        )
        output_padding = (geometry.H - least.H, geometry.W - least.W)
    attributes = window_attributes("conv_transpose2d", params, kernel_size_of(node))
    return w.add(
        "ConvTranspose", node.inputs, group=params["groups"], output_padding=output_padding, **attributes
    )


register(
    Op(
        name="conv_transpose2d",
        formula="y[n,c,h,w] = bias[c] + Σ over k,r,s,p,q with h = p·stride + r·dilation - pad_top and "
        "w = q·stride + s·dilation - pad_left of w[k,c,r,s] · x[n,k,p,q]: the adjoint of conv2d;  "
        "x [N,K,P,Q], w [K,C/groups,R,S], y [N,C,H,W], "
        "H = (P-1)·stride - pads + dilation·(R-1) + output_padding + 1",
        gradient="gx = conv2d(gy, w); gw = conv2d's weight gradient with the roles of x and gy exchanged; "
        "gbias[c] = Σ_{n,h,w} gy[n,c,h,w]",
        source="ONNX ConvTranspose-22; torch.nn.functional.conv_transpose2d",
        shape=conv_transpose2d_shape,
        forward=conv_transpose2d_forward,
        backward=conv_transpose2d_backward,
        macs=conv_transpose2d_macs,
        samples=conv_transpose2d_samples,
        errors=conv_transpose2d_errors,
        reads={"ConvTranspose": read_conv_transpose},
        writes=write_conv_transpose,
        layout="channels_last",
        kernels=("conv2d_grad_input", "conv2d_forward", "conv2d_grad_weight"),
    )
)
