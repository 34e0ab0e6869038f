"""Convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import (
    Conv2dGeometry,
    NormGeometry,
    Padding,
    Pair,
    conv2d_geometry,
    conv_transpose2d_geometry,
    pair,
    resolve_pads,
)
from nnlite.kernels import launch
from nnlite.layout import Array, rows
from nnlite.node import Node
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


def _same_float_type(op: str, **operands: ArrayType | None) -> np.dtype[Any]:
    present = {name: t.dtype for name, t in operands.items() if t is not None}
    if len(set(present.values())) != 1 or next(iter(present.values())).kind != "f":
        listed = ", ".join(f"{name} is {dtype}" for name, dtype in present.items())
        raise DTypeError(f"{op}: {listed}; all must have one floating-point type, convert with astype")
    return next(iter(present.values()))


def _check_bias(op: str, bias: ArrayType | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{op}: bias has shape {list(bias.shape)} but must be [{channels}]")


def _channel_sums(gy: Array) -> Array:
    """Gradient of a bias: gy [N,K,P,Q] summed over all but K."""
    by_row = rows(gy)
    total = memory.empty((by_row.shape[1],), gy.dtype)
    launch("channel_sum", NormGeometry(by_row.shape[0], by_row.shape[1], 0.0), by_row, total)
    return total


# ---------------------------------------------------------------------------------------- conv2d


def conv2d_geometry_of(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Conv2dGeometry:
    if len(x_shape) != 4 or len(w_shape) != 4:  # let the shape rule say what is wrong
        return conv2d_geometry(x_shape, w_shape)
    stride, dilation = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    size, kernel = (x_shape[2], x_shape[3]), (w_shape[2], w_shape[3])
    pads = resolve_pads("conv2d", padding, size, kernel, stride, dilation)
    return conv2d_geometry(x_shape, w_shape, stride, pads, dilation, groups)


def conv2d_shape(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> ArrayType:
    dtype = _same_float_type("conv2d", x=x, w=w, bias=bias)
    geometry = conv2d_geometry_of(x.shape, w.shape, **params)
    _check_bias("conv2d", bias, geometry.K)
    return ArrayType(geometry.y_shape, dtype)


def conv2d_forward(ctx: Context, x: Array, w: Array, bias: Array | None, **params: Any) -> Array:
    geometry = conv2d_geometry_of(x.shape, w.shape, **params)
    y = memory.empty(geometry.y_shape, x.dtype)
    launch("conv2d_forward", geometry, x, w, bias, y)
    # Each gradient needs only the other operand: a frozen weight does not keep x alive.
    ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None)
    ctx.values["geometry"] = geometry
    return y


def conv2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w = ctx.saved
    geometry: Conv2dGeometry = ctx.values["geometry"]
    gx = gw = gbias = None
    if needs[0]:
        gx = memory.empty(geometry.x_shape, gy.dtype)
        launch("conv2d_grad_input", geometry, gy, w, gx)
    if needs[1]:
        gw = memory.empty(geometry.w_shape, gy.dtype)
        launch("conv2d_grad_weight", geometry, x, gy, gw)
    if needs[2]:
        gbias = _channel_sums(gy)
    return gx, gw, gbias


def conv2d_macs(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> int:
    return conv2d_geometry_of(x.shape, w.shape, **params).macs


_PLAIN: dict[str, Any] = dict(stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)


def conv2d_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 6, 5), (4, 3, 3, 3), (4,), **_PLAIN)
    grouped = dict(stride=(2, 1), padding=(0, 1, 2, 3), groups=2)
    yield Sample((1, 4, 7, 8), (6, 2, 3, 2), None, **_PLAIN | grouped)
    yield Sample((2, 3, 7, 7), (6, 1, 3, 3), (6,), **_PLAIN | dict(padding=(1, 1, 1, 1), groups=3))
    yield Sample((1, 2, 9, 8), (3, 2, 3, 3), (3,), **_PLAIN | dict(dilation=(2, 3), padding=(2, 2, 2, 2)))
    yield Sample((1, 2, 7, 6), (3, 2, 3, 3), None, **_PLAIN | dict(stride=(2, 2), padding="same_upper"))
    yield Sample((1, 2, 7, 6), (3, 2, 2, 3), None, **_PLAIN | dict(stride=(2, 2), padding="same_lower"))


def conv2d_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(
        ShapeError,
        r"x has 32 channels but w \[64, 16, 3, 3\] expects 16 x groups\(1\) = 16; did you mean groups=2",
        (1, 32, 8, 8), (64, 16, 3, 3), None, **_PLAIN,
    )  # fmt: skip
    yield ErrorSample(ShapeError, "must be.*N,C,H,W.*batch", (3, 8, 8), (4, 3, 3, 3), None, **_PLAIN)
    yield ErrorSample(ShapeError, "w has shape", (1, 3, 8, 8), (4, 3, 3), None, **_PLAIN)
    yield ErrorSample(ShapeError, "bias has shape", (1, 3, 8, 8), (4, 3, 3, 3), (3,), **_PLAIN)
    yield ErrorSample(ShapeError, "has no channels", (1, 0, 8, 8), (4, 0, 3, 3), None, **_PLAIN)
    yield ErrorSample(ShapeError, "has no channels", (1, 3, 8, 8), (0, 3, 3, 3), None, **_PLAIN)
    yield ErrorSample(ShapeError, "does not fit", (1, 3, 2, 8), (4, 3, 3, 3), None, **_PLAIN)
    cases: list[tuple[dict[str, Any], str]] = [
        (dict(groups=0), "groups=0 must be at least 1"),
        (dict(groups=3), "not a multiple of groups=3"),
        (dict(stride=(0, 1)), "stride.*at least 1"),
        (dict(stride=(1.5, 2)), "stride.*one integer or"),
        (dict(dilation=(1, 0)), "dilation.*at least 1"),
        (dict(padding=(1, -1)), "must not be negative"),
        (dict(padding=(1, 1, 1)), "padding"),
        (dict(padding="same", stride=(2, 2)), "needs stride 1"),
        (dict(padding="full"), "must be 'same', 'valid'"),
    ]
    for params, match in cases:
        channels = 3 // params["groups"] if params.get("groups") else 3
        yield ErrorSample(ShapeError, match, (1, 3, 8, 8), (4, channels, 3, 3), None, **_PLAIN | params)
    integers = np.ones((1, 1, 3, 3), np.int64)
    yield ErrorSample(DTypeError, "one floating-point type", integers, integers, None, **_PLAIN)


def _kernel_of(n: OnnxNode, index: int) -> tuple[int, ...]:
    known = n.known(n.inputs[index])
    return () if known is None else known.shape[2:]


def read_conv(n: OnnxNode) -> Any:
    window = conv_window(n, _kernel_of(n, 1))
    return emit_conv(n, "conv2d", "conv_nd", window, groups=n.attribute("group", 1))


def window_attributes(op: str, params: Any, kernel: Pair) -> dict[str, Any]:
    """strides, dilations and pads (or auto_pad, which follows the input's size) as ONNX says them."""
    stride, dilation = pair(op, "stride", params["stride"], 1), pair(op, "dilation", params["dilation"], 1)
    padding = params["padding"]
    if padding in ("same_upper", "same_lower"):
        return dict(strides=stride, dilations=dilation, auto_pad=padding.upper())
    # PyTorch's "same" is for stride 1, where the pads do not depend on the size.
    pads = resolve_pads(op, padding, (1, 1), kernel, stride, dilation)
    return dict(strides=stride, dilations=dilation, pads=pads)


def _kernel_size(node: Node) -> Pair:
    weight = node.inputs[1]
    assert weight is not None
    return (1, 1) if weight.type is None else (weight.type.shape[2], weight.type.shape[3])


def write_conv(w: OnnxWriter, node: Node) -> str:
    attributes = window_attributes("conv2d", node.params, _kernel_size(node))
    return w.add("Conv", node.inputs, group=node.params["groups"], **attributes)


register(
    Op(
        name="conv2d",
        formula="y[n,k,p,q] = bias[k] + Σ_{c,r,s} w[k,c,r,s] · x[n, c, p·stride + r·dilation - pad_top, "
        "q·stride + s·dilation - pad_left];  x [N,C,H,W], w [K,C/groups,R,S], y [N,K,P,Q], "
        "P = ⌊(H + pads - dilation·(R-1) - 1) / stride⌋ + 1; c runs over the channels of k's group",
        gradient="gx: w spread over gy's windows (a convolution of gy with w flipped, at stride 1); "
        "gw[k,c,r,s] = Σ_{n,p,q} gy[n,k,p,q] · x[n,c,…]; gbias[k] = Σ_{n,p,q} gy[n,k,p,q]",
        source="ONNX Conv-22; torch.nn.functional.conv2d",
        shape=conv2d_shape,
        forward=conv2d_forward,
        backward=conv2d_backward,
        macs=conv2d_macs,
        samples=conv2d_samples,
        errors=conv2d_errors,
        reads={"Conv": read_conv},
        writes=write_conv,
        layout="channels_last",
        kernels=("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight", "channel_sum"),
    )
)

# ------------------------------------------------------------------------------ conv_transpose2d


def _pads_for_size(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: str,
    output_padding: Pair,
    dilation: Pair,
    output_size: Pair | None,
) -> str | tuple[int, ...]:
    """Pads for an output of ``output_size`` (size · stride where None); the odd one after or before."""
    if padding not in ("same_upper", "same_lower"):
        return padding
    small, large = [], []
    for i in (0, 1):
        wanted = x_shape[2 + i] * stride[i] if output_size is None else output_size[i]
        full = (x_shape[2 + i] - 1) * stride[i] + output_padding[i] + (w_shape[2 + i] - 1) * dilation[i] + 1
        if full < wanted:
            raise ShapeError(
                f"conv_transpose2d: an output of {wanted} is larger than the {full} that x {list(x_shape)}, "
                f"w {list(w_shape)} and stride {stride} give; use output_padding"
            )
        small.append((full - wanted) // 2)
        large.append(full - wanted - (full - wanted) // 2)
    first, last = (small, large) if padding == "same_upper" else (large, small)
    return (*first, *last)


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
        padding = _pads_for_size(x_shape, w_shape, stride, padding, output_padding, dilation, output_size)
    if isinstance(padding, str):
        raise ShapeError(f"{op}: padding={padding!r} must be integers, 'same_upper' or 'same_lower'")
    pads = resolve_pads(op, padding, (1, 1), (1, 1), stride, dilation)
    return conv_transpose2d_geometry(x_shape, w_shape, stride, pads, output_padding, dilation, groups)


def conv_transpose2d_shape(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> ArrayType:
    dtype = _same_float_type("conv_transpose2d", x=x, w=w, bias=bias)
    geometry = conv_transpose2d_geometry_of(x.shape, w.shape, **params)
    _check_bias("conv_transpose2d", bias, geometry.C)
    return ArrayType(geometry.x_shape, dtype)


def conv_transpose2d_forward(ctx: Context, x: Array, w: Array, bias: Array | None, **params: Any) -> Array:
    geometry = conv_transpose2d_geometry_of(x.shape, w.shape, **params)
    y = memory.empty(geometry.x_shape, x.dtype)
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
        gx = memory.empty(geometry.y_shape, gy.dtype)
        launch("conv2d_forward", geometry, gy, w, None, gx)
    if needs[1]:
        gw = memory.empty(geometry.w_shape, gy.dtype)
        launch("conv2d_grad_weight", geometry, gy, x, gw)
    if needs[2]:
        gbias = _channel_sums(gy)
    return gx, gw, gbias


def conv_transpose2d_macs(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> int:
    return conv_transpose2d_geometry_of(x.shape, w.shape, **params).macs


_TRANSPOSED: dict[str, Any] = _PLAIN | dict(output_padding=(0, 0))


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
        (dict(padding="same_upper", stride=(4, 4)), "larger than the 15"),
    ]
    for params, match in cases:
        yield ErrorSample(ShapeError, match, x, w, None, **_TRANSPOSED | params)
    integers = np.ones((1, 1, 3, 3), np.int64)
    yield ErrorSample(DTypeError, "one floating-point type", integers, integers, None, **_TRANSPOSED)


def read_conv_transpose(n: OnnxNode) -> Any:
    window = conv_window(n, _kernel_of(n, 1))
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
    attributes = window_attributes("conv_transpose2d", params, _kernel_size(node))
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
