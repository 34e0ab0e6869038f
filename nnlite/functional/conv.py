"""Convolution and linear maps."""

from __future__ import annotations

import numpy as np

from nnlite.errors import ShapeError
from nnlite.functional.sizes import Size, as_pair
from nnlite.geometry import Padding, Pair
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution of x [N,C,H,W] with weight [K,C/groups,R,S]; see op ``conv2d``.

    ``padding``: integer, (height, width), (top, left, bottom, right), "same" or "valid".
    """
    return apply(
        OPS["conv2d"], x, weight, bias,
        stride=as_pair("conv2d", "stride", stride), padding=padding,
        dilation=as_pair("conv2d", "dilation", dilation), groups=groups,
    )  # fmt: skip


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of x [N,K,P,Q] with weight [K,C/groups,R,S]; see op ``conv_transpose2d``."""
    name = "conv_transpose2d"
    return apply(
        OPS[name], x, weight, bias,
        stride=as_pair(name, "stride", stride), padding=padding,
        output_padding=as_pair(name, "output_padding", output_padding, 0),
        dilation=as_pair(name, "dilation", dilation), groups=groups,
    )  # fmt: skip


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X @ weight.T + bias for x [..., in_features], weight [out_features, in_features]."""
    return apply(OPS["linear"], x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes; leading axes broadcast."""
    return apply(OPS["matmul"], a, b)


# -------------------------------------------------------------------------------- one dimension


def _rows(op: str, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N,C,L] and its kernel as pictures of one row."""
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.ndim != 3:
            raise ShapeError(f"{op}: {name} has shape {list(tensor.shape)} but must have three axes")
    return apply(OPS["unsqueeze"], x, axes=(2,)), apply(OPS["unsqueeze"], weight, axes=(2,))


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """One-dimensional convolution of x [N,C,L] with weight [K,C/groups,S]; see op ``conv2d``."""
    pads = padding if isinstance(padding, str) else (0, padding)
    y = conv2d(*_rows("conv1d", x, weight), bias, (1, stride), pads, (1, dilation), groups)
    return apply(OPS["squeeze"], y, axes=(2,))


def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Tensor:
    """The adjoint of conv1d: x [N,K,L] with weight [K,C/groups,S]; see op ``conv_transpose2d``."""
    sizes = (1, stride), (0, padding), (0, output_padding)
    y = conv_transpose2d(*_rows("conv_transpose1d", x, weight), bias, *sizes, groups, (1, dilation))
    return apply(OPS["squeeze"], y, axes=(2,))


# ---------------------------------------------------------------------------- windows as columns


def _each_alone(kernel: Pair, channels: int, x: Tensor) -> Tensor:
    """The kernel [C·R·S,1,R,S] whose outputs are the window's elements one by one."""
    count = kernel[0] * kernel[1]
    return Tensor(np.tile(np.eye(count, dtype=x.dtype), (channels, 1)).reshape(-1, 1, *kernel))


def unfold(
    x: Tensor, kernel_size: Size, dilation: Size = 1, padding: Padding = 0, stride: Size = 1
) -> Tensor:
    """Every window of x [N,C,H,W] as a column of y [N,C·R·S,P·Q]: conv2d with a kernel for each element."""
    kernel = as_pair("unfold", "kernel_size", kernel_size)
    if x.ndim != 4:
        raise ShapeError(f"unfold: x has shape {list(x.shape)} but must be [N,C,H,W]")
    weight = _each_alone(kernel, x.shape[1], x)
    return conv2d(x, weight, None, stride, padding, dilation, x.shape[1]).flatten(2)


def fold(
    x: Tensor,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Tensor:
    """Columns x [N,C·R·S,P·Q] added up as windows of y [N,C,H,W], (H, W) = ``output_size``."""
    size, kernel = as_pair("fold", "output_size", output_size), as_pair("fold", "kernel_size", kernel_size)
    steps, spread = as_pair("fold", "stride", stride), as_pair("fold", "dilation", dilation)
    pads = as_pair("fold", "padding", padding, 0)
    options = {"stride": steps, "padding": (*pads, *pads), "dilation": spread}
    return apply(OPS["fold"], x, size=size, kernel_size=kernel, **options)
