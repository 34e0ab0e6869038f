"""Pooling as modules; formulas and sources stand in the op records (``nnlite/ops/pool*.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite import functional as F
from nnlite.functional import OutputSize, Size
from nnlite.geometry import Padding, pair
from nnlite.nn.module import Module
from nnlite.tensors import Tensor


class _Pool(Module):
    """Options that are shown."""

    _options: tuple[str, ...] = ("kernel_size", "stride", "padding")

    def extra_repr(self) -> str:
        """Options, for repr."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._options)


class MaxPool2d(_Pool):
    """Maximum over windows: x [N,C,H,W] to [N,C,P,Q]; ``stride`` defaults to ``kernel_size``.

    With ``return_indices`` also where in its picture each maximum is, h · W + w. Raises ShapeError for sizes
    below 1. Source: op ``max_pool2d``; torch.nn.MaxPool2d.
    """

    _options = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("MaxPool2d", "stride", stride, 1)
        self.dilation = pair("MaxPool2d", "dilation", dilation, 1)
        self.padding, self.ceil_mode, self.return_indices = padding, ceil_mode, return_indices

    def forward(self, x: Tensor) -> Any:
        """The largest element of each window, and its place where asked for."""
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        if self.return_indices:
            return F.max_pool2d(x, *options, return_indices=True)
        return F.max_pool2d(x, *options)


class AvgPool2d(_Pool):
    """Mean over windows: x [N,C,H,W] to [N,C,P,Q]; ``stride`` defaults to ``kernel_size``.

    ``count_include_pad``: padding counts as elements of value 0. ``divisor_override`` divides the sum
    instead of the number of elements. Raises ShapeError for sizes below 1.
    Source: op ``avg_pool2d``; torch.nn.AvgPool2d.
    """

    _options = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.kernel_size = pair("AvgPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("AvgPool2d", "stride", stride, 1)
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool2d(x, *options, self.divisor_override)


class MaxPool1d(_Pool):
    """Maximum over windows of x [N,C,L]. Source: op ``max_pool2d``; torch.nn.MaxPool1d."""

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Tensor) -> Any:
        """The largest element of each window, and its place where asked for."""
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return F.max_pool1d(x, *options, self.return_indices)


class AvgPool1d(_Pool):
    """Mean over windows of x [N,C,L]. Source: op ``avg_pool2d``; torch.nn.AvgPool1d."""

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool1d(x, *options)


class LPPool2d(_Pool):
    """(Σ |x|ᵖ)^(1/p) over windows of x [N,C,H,W]. Source: op ``lp_pool2d``; torch.nn.LPPool2d."""

    _options = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
    ) -> None:
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """The norm of each window."""
        return F.lp_pool2d(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool1d(_Pool):
    """(Σ |x|ᵖ)^(1/p) over windows of x [N,C,L]. Source: op ``lp_pool2d``; torch.nn.LPPool1d."""

    _options = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self, norm_type: float, kernel_size: int, stride: int | None = None, ceil_mode: bool = False
    ) -> None:
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """The norm of each window."""
        return F.lp_pool1d(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


# --------------------------------------------------------------------------------------- inverse


class MaxUnpool2d(_Pool):
    """The inverse of MaxPool2d with its indices: all but the maxima are 0.

    Source: op ``max_unpool2d``; torch.nn.MaxUnpool2d.
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, x: Tensor, indices: Tensor, output_size: Size | None = None) -> Tensor:
        """x [N,C,P,Q] spread over [N,C,H,W], (H, W) = ``output_size`` where several would be possible."""
        return F.max_unpool2d(x, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool1d(_Pool):
    """The inverse of MaxPool1d with its indices. Source: op ``max_unpool2d``; torch.nn.MaxUnpool1d."""

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0) -> None:
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, x: Tensor, indices: Tensor, output_size: int | Sequence[int] | None = None) -> Tensor:
        """x [N,C,Q] spread over [N,C,L], L = ``output_size`` where several would be possible."""
        return F.max_unpool1d(x, indices, self.kernel_size, self.stride, self.padding, output_size)


# -------------------------------------------------------------------------------------- adaptive


class AdaptiveAvgPool2d(_Pool):
    """Mean over as many windows as ``output_size`` says: x [N,C,H,W] to [N,C,*output_size].

    A size of None is the input's. Raises ShapeError for sizes below 1.
    Source: op ``adaptive_avg_pool2d``; torch.nn.AdaptiveAvgPool2d.
    """

    _options = ("output_size",)

    def __init__(self, output_size: OutputSize) -> None:
        self.output_size = checked_output_size("AdaptiveAvgPool2d", output_size)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        return F.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(_Pool):
    """Maximum over as many windows as ``output_size`` says: x [N,C,H,W] to [N,C,*output_size].

    A size of None is the input's. With ``return_indices`` also where in its picture each maximum is.
    Raises ShapeError for sizes below 1. Source: op ``adaptive_max_pool2d``; torch.nn.AdaptiveMaxPool2d.
    """

    _options = ("output_size",)

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        self.output_size = checked_output_size("AdaptiveMaxPool2d", output_size)
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """The largest element of each window, and its place where asked for."""
        return F.adaptive_max_pool2d(x, self.output_size, self.return_indices)


def checked_output_size(layer: str, output_size: OutputSize) -> tuple[int | None, int | None]:
    """``output_size`` as (height, width), each None or at least 1; ShapeError for anything else."""
    if isinstance(output_size, Sequence):
        pair(layer, "output_size", [1 if size is None else size for size in output_size], 1)
        return output_size[0], output_size[1]
    return (None, None) if output_size is None else pair(layer, "output_size", output_size, 1)


class AdaptiveAvgPool1d(_Pool):
    """Mean over ``output_size`` windows of x [N,C,L]."""

    _options = ("output_size",)

    def __init__(self, output_size: int) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        return F.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveMaxPool1d(_Pool):
    """Maximum over ``output_size`` windows of x [N,C,L]; with ``return_indices`` also where they are."""

    _options = ("output_size",)

    def __init__(self, output_size: int, return_indices: bool = False) -> None:
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, x: Tensor) -> Any:
        """The largest element of each window, and its place where asked for."""
        return F.adaptive_max_pool1d(x, self.output_size, self.return_indices)
