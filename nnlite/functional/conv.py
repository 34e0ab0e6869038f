"""Convolution and linear maps."""

from __future__ import annotations

from nnlite.functional.sizes import Size, as_pair
from nnlite.geometry import Padding
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
