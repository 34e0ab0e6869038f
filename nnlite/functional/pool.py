"""Pooling."""

from __future__ import annotations

from nnlite.functional.sizes import Size, as_pair
from nnlite.geometry import Padding
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply


def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Maximum over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``."""
    kernel = as_pair("max_pool2d", "kernel_size", kernel_size)
    return apply(
        OPS["max_pool2d"], x, kernel_size=kernel,
        stride=kernel if stride is None else as_pair("max_pool2d", "stride", stride),
        padding=padding, dilation=as_pair("max_pool2d", "dilation", dilation), ceil_mode=ceil_mode,
    )  # fmt: skip


def avg_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    dilation: Size = 1,
) -> Tensor:
    """Mean over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``."""
    kernel = as_pair("avg_pool2d", "kernel_size", kernel_size)
    return apply(
        OPS["avg_pool2d"], x, kernel_size=kernel,
        stride=kernel if stride is None else as_pair("avg_pool2d", "stride", stride),
        padding=padding, dilation=as_pair("avg_pool2d", "dilation", dilation),
        ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip


def adaptive_avg_pool2d(x: Tensor, output_size: Size) -> Tensor:
    """Mean over as many windows as ``output_size`` asks for; 1 is global average pooling."""
    size = as_pair("adaptive_avg_pool2d", "output_size", output_size)
    return apply(OPS["adaptive_avg_pool2d"], x, output_size=size)
