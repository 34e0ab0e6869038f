"""One-dimensional convolution, further pooling, windows as columns, and embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import functional as F
from nnlite import random
from nnlite.errors import ConfigError
from nnlite.functional import Size
from nnlite.layout import Array
from nnlite.nn.init import fan_in_uniform
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.tensors import Tensor


class Conv1d(Module):
    """One-dimensional convolution: x [N,in_channels,L] to y [N,out_channels,Q].

    weight [out_channels, in_channels/groups, S], bias [out_channels]. Raises ConfigError for options
    that do not fit together. Source: op ``conv2d``; torch.nn.Conv1d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if min(in_channels, out_channels, kernel_size, stride, dilation, groups) < 1:
            raise ConfigError("Conv1d: channels, kernel_size, stride, dilation and groups must be at least 1")
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"Conv1d: channels {in_channels} and {out_channels} must be multiples of groups={groups}"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        fan_in = in_channels // groups * kernel_size
        shape = (out_channels, in_channels // groups, kernel_size)
        self.weight = Parameter(fan_in_uniform(shape, fan_in))
        self.bias = Parameter(fan_in_uniform((out_channels,), fan_in)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """y = conv1d(x, weight) + bias."""
        options = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv1d(x, self.weight, self.bias, *options)

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{text}, stride={self.stride}, padding={self.padding}, groups={self.groups}"


class _Pool1d(Module):
    def __init__(
        self, kernel_size: int, stride: int | None = None, padding: int = 0, ceil_mode: bool = False
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(_Pool1d):
    """Maximum over windows of x [N,C,L]. Source: op ``max_pool2d``; torch.nn.MaxPool1d."""

    def forward(self, x: Tensor) -> Tensor:
        """The largest element of each window."""
        options = (self.kernel_size, self.stride, self.padding, 1, self.ceil_mode)
        y: Tensor = F.max_pool1d(x, *options)
        return y


class AvgPool1d(_Pool1d):
    """Mean over windows of x [N,C,L]. Source: op ``avg_pool2d``; torch.nn.AvgPool1d."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


class LPPool2d(Module):
    """(Σ |x|ᵖ)^(1/p) over windows of x [N,C,H,W]. Source: op ``lp_pool2d``; torch.nn.LPPool2d."""

    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
    ) -> None:
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """The norm of each window."""
        return F.lp_pool2d(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class _Adaptive(Module):
    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(_Adaptive):
    """Maximum over as many windows as ``output_size`` says: x [N,C,H,W] to [N,C,*output_size]."""

    def forward(self, x: Tensor) -> Tensor:
        """The largest element of each window."""
        return F.adaptive_max_pool2d(x, self.output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """Mean over ``output_size`` windows of x [N,C,L]."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        return F.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveMaxPool1d(_Adaptive):
    """Maximum over ``output_size`` windows of x [N,C,L]."""

    def forward(self, x: Tensor) -> Tensor:
        """The largest element of each window."""
        return F.adaptive_max_pool1d(x, self.output_size)


class Unfold(Module):
    """Every window of x [N,C,H,W] as a column of y [N,C·R·S,P·Q]."""

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None:
        self.options = (kernel_size, dilation, padding, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The columns."""
        return F.unfold(x, *self.options)


class Fold(Module):
    """Columns x [N,C·R·S,P·Q] added up as windows of y [N,C,*output_size]."""

    def __init__(
        self,
        output_size: Size,
        kernel_size: Size,
        dilation: Size = 1,
        padding: Size = 0,
        stride: Size = 1,
    ) -> None:
        self.options = (output_size, kernel_size, dilation, padding, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the windows."""
        return F.fold(x, *self.options)


class Embedding(Module):
    """Rows of weight [num_embeddings, embedding_dim] by integers, drawn from a normal distribution.

    The row of ``padding_idx`` is 0 and stays so. Source: op ``gather``; torch.nn.Embedding.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        if num_embeddings < 1 or embedding_dim < 1:
            raise ConfigError("Embedding: num_embeddings and embedding_dim must be at least 1")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ConfigError(f"Embedding: padding_idx={padding_idx} is not one of {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        weight = random.generator().standard_normal((num_embeddings, embedding_dim))
        if padding_idx is not None:
            weight[padding_idx] = 0
        self.weight = Parameter(weight.astype(np.float32))

    def forward(self, indices: Tensor | Array) -> Tensor:
        """The rows that the integers name."""
        return F.embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.num_embeddings}, {self.embedding_dim}"
