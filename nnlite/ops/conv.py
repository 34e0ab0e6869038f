"""Convolution, with a residual and an activation in the same pass where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.geometry import (
    Conv2dGeometry,
    NormGeometry,
    Padding,
    Pair,
    conv2d_geometry,
    pair,
    remembered,
    resolve_pads,
)
from nnlite.kernels import launch
from nnlite.layout import Array, rows
from nnlite.node import Node
from nnlite.ops.epilogue import Act, activation_fields, check_epilogue, epilogue_gradient, write_epilogue
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


def same_float_type(op: str, **operands: ArrayType | None) -> np.dtype[Any]:
    present = {name: t.dtype for name, t in operands.items() if t is not None}
    if len(set(present.values())) != 1 or next(iter(present.values())).kind != "f":
        listed = ", ".join(f"{name} is {dtype}" for name, dtype in present.items())
        raise DTypeError(f"{op}: {listed}; all must have one floating-point type, convert with astype")
    return next(iter(present.values()))


def check_bias(op: str, bias: ArrayType | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{op}: bias has shape {list(bias.shape)} but must be [{channels}]")


def channel_sums(gy: Array) -> Array:
    """Gradient of a bias: gy [N,K,P,Q] summed over all but K."""
    by_row = rows(gy)
    total = memory.empty((by_row.shape[1],), gy.dtype, like=gy)
    launch("channel_sum", NormGeometry(by_row.shape[0], by_row.shape[1], 0.0), by_row, total)
    return total


# ---------------------------------------------------------------------------------------- conv2d


@remembered
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


@remembered
def activated(geometry: Conv2dGeometry, activation: Act) -> Conv2dGeometry:
    """The geometry of the convolution with an activation behind it."""
    return geometry if activation is None else geometry.activated(**activation_fields(activation))


def conv2d_shape(
    x: ArrayType,
    w: ArrayType,
    bias: ArrayType | None,
    residual: ArrayType | None = None,
    *,
    activation: Act = None,
    **params: Any,
) -> ArrayType:
    dtype = same_float_type("conv2d", x=x, w=w, bias=bias)
    geometry = conv2d_geometry_of(x.shape, w.shape, **params)
    check_bias("conv2d", bias, geometry.K)
    y = ArrayType(geometry.y_shape, dtype)
    check_epilogue("conv2d", y, residual, activation)
    return y


def conv2d_forward(
    ctx: Context,
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None = None,
    *,
    activation: Act = None,
    **params: Any,
) -> Array:
    geometry = conv2d_geometry_of(x.shape, w.shape, **params)
    y = memory.empty(geometry.y_shape, x.dtype, like=x)
    launch("conv2d_forward", activated(geometry, activation), x, w, bias, residual, y)
    # Each gradient needs only the other operand: a frozen weight does not keep x alive.
    ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None, None if activation is None else y)
    ctx.values["geometry"] = geometry
    return y


def conv2d_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w, y = ctx.saved
    geometry: Conv2dGeometry = ctx.values["geometry"]
    gy = epilogue_gradient(gy, y, ctx.params.get("activation"))
    gx = gw = gbias = None
    if needs[0]:
        gx = memory.empty(geometry.x_shape, gy.dtype, like=gy)
        launch("conv2d_grad_input", geometry, gy, w, gx)
    if needs[1]:
        gw = memory.empty(geometry.w_shape, gy.dtype, like=gy)
        launch("conv2d_grad_weight", geometry, x, gy, gw)
    if needs[2]:
        gbias = channel_sums(gy)
    return (gx, gw, gbias, gy)[: len(needs)]


def conv2d_macs(
    x: ArrayType,
    w: ArrayType,
    bias: ArrayType | None,
    *residual: ArrayType,
    activation: Act = None,
    **params: Any,
) -> int:
    return conv2d_geometry_of(x.shape, w.shape, **params).macs


PLAIN: dict[str, Any] = dict(stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)


def conv2d_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 6, 5), (4, 3, 3, 3), (4,), **PLAIN)
    grouped = dict(stride=(2, 1), padding=(0, 1, 2, 3), groups=2)
    yield Sample((1, 4, 7, 8), (6, 2, 3, 2), None, **PLAIN | grouped)
    yield Sample((2, 3, 7, 7), (6, 1, 3, 3), (6,), **PLAIN | dict(padding=(1, 1, 1, 1), groups=3))
    yield Sample((1, 2, 9, 8), (3, 2, 3, 3), (3,), **PLAIN | dict(dilation=(2, 3), padding=(2, 2, 2, 2)))
    yield Sample((1, 2, 7, 6), (3, 2, 3, 3), None, **PLAIN | dict(stride=(2, 2), padding="same_upper"))
    yield Sample((1, 2, 7, 6), (3, 2, 2, 3), None, **PLAIN | dict(stride=(2, 2), padding="same_lower"))


def conv2d_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(
        ShapeError,
        r"x has 32 channels but w \[64, 16, 3, 3\] expects 16 x groups\(1\) = 16; did you mean groups=2",
        (1, 32, 8, 8), (64, 16, 3, 3), None, **PLAIN,
    )  # fmt: skip
    yield ErrorSample(ShapeError, "must be.*N,C,H,W.*batch", (3, 8, 8), (4, 3, 3, 3), None, **PLAIN)
    yield ErrorSample(ShapeError, "w has shape", (1, 3, 8, 8), (4, 3, 3), None, **PLAIN)
    yield ErrorSample(ShapeError, "bias has shape", (1, 3, 8, 8), (4, 3, 3, 3), (3,), **PLAIN)
    yield ErrorSample(ShapeError, "has no channels", (1, 0, 8, 8), (4, 0, 3, 3), None, **PLAIN)
    yield ErrorSample(ShapeError, "has no channels", (1, 3, 8, 8), (0, 3, 3, 3), None, **PLAIN)
    yield ErrorSample(ShapeError, "does not fit", (1, 3, 2, 8), (4, 3, 3, 3), None, **PLAIN)
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
        yield ErrorSample(ShapeError, match, (1, 3, 8, 8), (4, channels, 3, 3), None, **PLAIN | params)
    x, w = (1, 3, 8, 8), (4, 3, 3, 3)
    yield ErrorSample(ShapeError, "residual is", x, w, None, (1, 4, 8, 8), **PLAIN)
    yield ErrorSample(OperandError, "activation='gelu' must be", x, w, None, **PLAIN, activation="gelu")
    integers = np.ones((1, 1, 3, 3), np.int64)
    yield ErrorSample(DTypeError, "one floating-point type", integers, integers, None, **PLAIN)


def kernel_of(n: OnnxNode, index: int) -> tuple[int, ...]:
    known = n.known(n.inputs[index])
    return () if known is None else known.shape[2:]


def read_conv(n: OnnxNode) -> Any:
    window = conv_window(n, kernel_of(n, 1))
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


def kernel_size_of(node: Node) -> Pair:
    weight = node.inputs[1]
    assert weight is not None
    return (1, 1) if weight.type is None else (weight.type.shape[2], weight.type.shape[3])


def write_conv(w: OnnxWriter, node: Node) -> str:
    attributes = window_attributes("conv2d", node.params, kernel_size_of(node))
    y = w.add("Conv", node.inputs[:3], group=node.params["groups"], **attributes)
    residual = node.inputs[3] if len(node.inputs) > 3 else None
    return write_epilogue(w, y, residual, node.params.get("activation"), node.inputs[0])


register(
    Op(
        name="conv2d",
        formula="y[n,k,p,q] = act(bias[k] + Σ_{c,r,s} w[k,c,r,s] · x[n, c, p·stride + r·dilation - pad_top, "
        "q·stride + s·dilation - pad_left] + residual[n,k,p,q]);  x [N,C,H,W], w [K,C/groups,R,S], y and "
        "residual (if given) [N,K,P,Q], activation: None, 'relu' or (low, high) of a clamp; "
        "P = ⌊(H + pads - dilation·(R-1) - 1) / stride⌋ + 1; c runs over the channels of k's group",
        gradient="where act passes it (else gy = 0): gresidual = gy; "
        "gx: w spread over gy's windows (a convolution of gy with w flipped, at stride 1); "
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
        kernels=(
            "conv2d_forward",
            "conv2d_grad_input",
            "conv2d_grad_weight",
            "channel_sum",
            "activation_backward",
        ),
    )
)
