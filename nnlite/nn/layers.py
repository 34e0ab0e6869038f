"""Layers with parameters or with a mode: convolution, linear, batch normalisation, dropout.

Arguments, parameter names and initial values are PyTorch's; mathematics and shapes stand in the op
records (``nnlite/ops``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.functional import Size
from nnlite.geometry import Padding, Pair, pair, resolve_pads
from nnlite.nn.init import fan_in_uniform
from nnlite.nn.module import Module
from nnlite.nn.parameter import Buffer, Parameter
from nnlite.tensors import Tensor


def _check_sizes(layer: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{layer}: {name}={size} must be at least 1")


PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def check_padding_mode(layer: str, padding_mode: str) -> None:
    """Raise ConfigError for a mode that no convolution has."""
    if padding_mode not in PADDING_MODES:
        raise ConfigError(f"{layer}: padding_mode={padding_mode!r} must be one of {', '.join(PADDING_MODES)}")


def output_padding_for(layer: str, output_size: Size, smallest: Sequence[int], stride: Sequence[int]) -> Pair:
    """The output padding with which a transposed convolution gives ``output_size``; ShapeError for none."""
    size = output_size[-2:] if isinstance(output_size, Sequence) else output_size
    wanted = pair(layer, "output_size", size, 1)
    extra = (wanted[0] - smallest[0], wanted[1] - smallest[1])
    if not all(0 <= e < s for e, s in zip(extra, stride, strict=True)):
        largest = [low + step - 1 for low, step in zip(smallest, stride, strict=True)]
        raise ShapeError(f"{layer}: output_size={list(wanted)} must be from {list(smallest)} to {largest}")
    return extra


class _Convolution(Module):
    """What Conv2d and ConvTranspose2d share: options, weight [a,b,R,S] and bias."""

    def __init__(
        self,
        channels: Pair,
        kernel_size: Size,
        stride: Size,
        padding: Padding,
        dilation: Size,
        groups: int,
        padding_mode: str,
    ) -> None:
        layer = type(self).__name__
        check_padding_mode(layer, padding_mode)
        self.in_channels, self.out_channels = channels
        _check_sizes(layer, in_channels=channels[0], out_channels=channels[1], groups=groups)
        for name, count in zip(("in_channels", "out_channels"), channels, strict=True):
            if count % groups:
                raise ConfigError(f"{layer}: {name}={count} must be a multiple of groups={groups}")
        self.kernel_size = pair(layer, "kernel_size", kernel_size, 1)
        self.stride = pair(layer, "stride", stride, 1)
        self.dilation = pair(layer, "dilation", dilation, 1)
        self.padding, self.padding_mode = padding, padding_mode
        self.groups = groups
        resolve_pads(layer, padding, (1, 1), self.kernel_size, self.stride, self.dilation)

    def _create(self, rows: int, columns: int, bias: bool) -> None:
        shape = (rows, columns, *self.kernel_size)
        fan_in = columns * self.kernel_size[0] * self.kernel_size[1]
        self.weight = Parameter(fan_in_uniform(shape, fan_in))
        self.bias = Parameter(fan_in_uniform((self.out_channels,), fan_in)) if bias else None

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        usual = {"stride": (1, 1), "padding": 0, "dilation": (1, 1), "groups": 1, "output_padding": (0, 0)}
        usual |= {"padding_mode": "zeros"}
        text += "".join(
            f", {name}={getattr(self, name)!r}"
            for name, value in usual.items()
            if getattr(self, name, value) != value
        )
        return text + (", bias=False" if self.bias is None else "")


class Conv2d(_Convolution):
    """Two-dimensional convolution: x [N,in_channels,H,W] to y [N,out_channels,P,Q].

    weight [out_channels, in_channels/groups, R, S], bias [out_channels]. ``padding``: integer,
    (height, width), (top, left, bottom, right), "same" or "valid"; ``padding_mode``, what stands there:
    "zeros", "reflect", "replicate" or "circular". Raises ConfigError or ShapeError for options that do not
    fit together. Source: op ``conv2d``; torch.nn.Conv2d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        options = (kernel_size, stride, padding, dilation, groups, padding_mode)
        super().__init__((in_channels, out_channels), *options)
        self._create(out_channels, in_channels // groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        """y = conv2d(x, weight) + bias."""
        padding = self.padding
        if self.padding_mode != "zeros" and x.ndim == 4:
            size = (x.shape[2], x.shape[3])
            options = (self.kernel_size, self.stride, self.dilation)
            top, left, bottom, right = resolve_pads("Conv2d", padding, size, *options)
            x, padding = F.pad(x, (left, right, top, bottom), self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """Transposed convolution, the adjoint of Conv2d: x [N,in_channels,P,Q] to y [N,out_channels,H,W].

    weight [in_channels, out_channels/groups, R, S], bias [out_channels]; H = (P-1)·stride -
    2·padding + dilation·(R-1) + output_padding + 1. Raises ConfigError or ShapeError for options
    that do not fit together; ``padding_mode`` can only be "zeros".
    Source: op ``conv_transpose2d``; torch.nn.ConvTranspose2d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
    ) -> None:
        options = (kernel_size, stride, padding, dilation, groups, padding_mode)
        super().__init__((in_channels, out_channels), *options)
        if padding_mode != "zeros":
            raise ConfigError(f"ConvTranspose2d: padding_mode={padding_mode!r} can only be 'zeros'")
        if isinstance(padding, str):
            raise ConfigError(f"ConvTranspose2d: padding={padding!r} must be integers")
        self.output_padding = pair("ConvTranspose2d", "output_padding", output_padding, 0)
        self._create(in_channels, out_channels // groups, bias)

    def forward(self, x: Tensor, output_size: Size | None = None) -> Tensor:
        """y = conv_transpose2d(x, weight) + bias, padded at the end to ``output_size`` if that is given."""
        extra = self.output_padding
        if output_size is not None:
            if x.ndim != 4:
                raise ShapeError(f"ConvTranspose2d: x has shape {list(x.shape)} but must be [N,C,H,W]")
            size = (x.shape[2], x.shape[3])
            pads = resolve_pads("ConvTranspose2d", self.padding, size, (1, 1), (1, 1), (1, 1))
            smallest = [
                (size[i] - 1) * self.stride[i]
                + self.dilation[i] * (self.kernel_size[i] - 1) + 1 - pads[i] - pads[2 + i]
                for i in (0, 1)
            ]  # fmt: skip
            extra = output_padding_for("ConvTranspose2d", output_size, smallest, self.stride)
        options = (self.stride, self.padding, extra, self.groups, self.dilation)
        return F.conv_transpose2d(x, self.weight, self.bias, *options)


class Linear(Module):
    """y = x weightᵀ + bias for x [..., in_features], weight [out_features, in_features].

    Raises ConfigError for a size below 1. Source: op ``linear``; torch.nn.Linear.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        _check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(fan_in_uniform((out_features, in_features), in_features))
        self.bias = Parameter(fan_in_uniform((out_features,), in_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """y = x weightᵀ + bias."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")


class BatchNorm(Module):
    """Batch normalisation per channel: y = (x - mean) / √(variance + eps) · weight + bias, x [N,C,...].

    In training mean and variance are the batch's, and the running ones move towards them:
    running = (1 - momentum) · running + momentum · batch, the variance unbiased. In evaluation, and
    whenever the layer is frozen, they are the running ones, which then stay as they are. Without
    ``track_running_stats`` they are always the batch's. With ``activation`` ("relu", "relu6" or the
    (low, high) of a clamp), and with a residual given to ``forward``, these follow in the same pass
    over memory: y = activation(normalised x + residual). Raises ShapeError for a wrong number of axes.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167; torch.nn.BatchNorm2d.
    """

    _axes: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        activation: str | tuple[float, float] | None = None,
        *,
        bias: bool = True,
    ) -> None:
        _check_sizes(type(self).__name__, num_features=num_features)
        if momentum is None:
            raise ConfigError(
                f"{type(self).__name__}: momentum=None, a plain average, is not known; give a number"
            )
        if activation not in (None, "relu", "relu6") and not isinstance(activation, tuple):
            known = "None, 'relu', 'relu6' or (low, high)"
            raise ConfigError(f"{type(self).__name__}: activation={activation!r} must be {known}")
        self.activation = activation
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        self.weight = Parameter(ones) if affine else None
        self.bias = Parameter(zeros) if affine and bias else None
        self.running_mean = Buffer(zeros) if track_running_stats else None
        self.running_var = Buffer(ones) if track_running_stats else None

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        activation: str | tuple[float, float] | None = None,
    ) -> Tensor:
        """The normalised x, ``residual`` added and ``activation`` (or the layer's own) applied."""
        if x.ndim not in self._axes:
            expected = " or ".join({2: "[N,C]", 3: "[N,C,L]", 4: "[N,C,H,W]"}[n] for n in self._axes)
            raise ShapeError(f"{type(self).__name__}: x has shape {list(x.shape)} but must be {expected}")
        training = self.running_mean is None or (self.training and not self.frozen)
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(
            x, *statistics, self.weight, self.bias, training, self.momentum, self.eps,
            activation or self.activation, residual,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        text += ", affine=False" if self.weight is None else ""
        text += "" if self.activation is None else f", activation={self.activation!r}"
        return text + (", track_running_stats=False" if self.running_mean is None else "")


class BatchNorm1d(BatchNorm):
    """:class:`BatchNorm` of x [N,C] or [N,C,L]."""

    _axes = (2, 3)


class BatchNorm2d(BatchNorm):
    """:class:`BatchNorm` of x [N,C,H,W]."""

    _axes = (4,)


class Dropout(Module):
    """Zero each element with probability ``p`` and scale the rest by 1 / (1 - p).

    In training only, and never in a frozen module; ``inplace`` is taken for PyTorch's sake and changes
    nothing. Raises ConfigError unless 0 ≤ p < 1.
    Source: op ``dropout``; torch.nn.Dropout.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if not 0 <= p < 1:
            raise ConfigError(f"{type(self).__name__}: p={p} must be in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The result of dropping elements of x."""
        return F.dropout(x, self.p, self.training and not self.frozen)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"p={self.p}"


class Dropout1d(Dropout):
    """:class:`Dropout` of whole channels of x [N,C,L]."""

    def forward(self, x: Tensor) -> Tensor:
        """The result of dropping channels of x."""
        return F.dropout1d(x, self.p, self.training and not self.frozen)


class Dropout2d(Dropout):
    """:class:`Dropout` of whole channels of x [N,C,H,W]."""

    def forward(self, x: Tensor) -> Tensor:
        """The result of dropping channels of x."""
        return F.dropout2d(x, self.p, self.training and not self.frozen)
