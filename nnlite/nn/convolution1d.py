"""Convolution in one dimension: pictures of one row."""

from __future__ import annotations

from collections.abc import Sequence

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.geometry import resolve_pads
from nnlite.nn.init import fan_in_uniform
from nnlite.nn.layers import check_padding_mode, output_padding_for
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.tensors import Tensor


class _Convolution1d(Module):
    """What both directions share: options, weight [a,b,S] and bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int | str,
        dilation: int,
        groups: int,
        padding_mode: str,
    ) -> None:
        layer = type(self).__name__
        check_padding_mode(layer, padding_mode)
        if min(in_channels, out_channels, kernel_size, stride, dilation, groups) < 1:
            raise ConfigError(
                f"{layer}: channels, kernel_size, stride, dilation and groups must be at least 1"
            )
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{layer}: channels {in_channels} and {out_channels} must be multiples of groups={groups}"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.padding_mode = padding_mode

    def _create(self, rows: int, columns: int, bias: bool) -> None:
        fan_in = columns * self.kernel_size
        self.weight = Parameter(fan_in_uniform((rows, columns, self.kernel_size), fan_in))
        self.bias = Parameter(fan_in_uniform((self.out_channels,), fan_in)) if bias else None

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{text}, stride={self.stride}, padding={self.padding}, groups={self.groups}"


class Conv1d(_Convolution1d):
    """One-dimensional convolution: x [N,in_channels,L] to y [N,out_channels,Q].

    weight [out_channels, in_channels/groups, S], bias [out_channels]. ``padding``: integer, "same" or
    "valid"; ``padding_mode``: "zeros", "reflect", "replicate" or "circular". Raises ConfigError for options
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
        padding_mode: str = "zeros",
    ) -> None:
        sizes = (kernel_size, stride, padding, dilation, groups)
        super().__init__(in_channels, out_channels, *sizes, padding_mode)
        self._create(out_channels, in_channels // groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        """y = conv1d(x, weight) + bias."""
        padding = self.padding
        if self.padding_mode != "zeros" and x.ndim == 3:
            pads = padding if isinstance(padding, str) else (0, padding)
            sizes = ((1, n) for n in (x.shape[2], self.kernel_size, self.stride, self.dilation))
            _, left, _, right = resolve_pads("Conv1d", pads, *sizes)
            x, padding = F.pad(x, (left, right), self.padding_mode), 0
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose1d(_Convolution1d):
    """Transposed convolution, the adjoint of Conv1d: x [N,in_channels,Q] to y [N,out_channels,L].

    weight [in_channels, out_channels/groups, S], bias [out_channels]. Raises ConfigError for options that
    do not fit together; ``padding_mode`` can only be "zeros".
    Source: op ``conv_transpose2d``; torch.nn.ConvTranspose1d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ConfigError("ConvTranspose1d: padding must be an integer and padding_mode 'zeros'")
        sizes = (kernel_size, stride, padding, dilation, groups)
        super().__init__(in_channels, out_channels, *sizes, padding_mode)
        self.output_padding, self._pads = output_padding, padding
        self._create(in_channels, out_channels // groups, bias)

    def forward(self, x: Tensor, output_size: int | Sequence[int] | None = None) -> Tensor:
        """y = conv_transpose1d(x, weight) + bias, padded at the end to ``output_size`` if that is given."""
        extra = self.output_padding
        if output_size is not None:
            if x.ndim != 3:
                raise ShapeError(f"ConvTranspose1d: x has shape {list(x.shape)} but must be [N,C,L]")
            length = (x.shape[2] - 1) * self.stride + self.dilation * (self.kernel_size - 1) + 1
            wanted = (1, output_size[-1] if isinstance(output_size, Sequence) else output_size)
            smallest = (1, length - 2 * self._pads)
            extra = output_padding_for("ConvTranspose1d", wanted, smallest, (1, self.stride))[1]
        options = (self.stride, self._pads, extra, self.groups, self.dilation)
        return F.conv_transpose1d(x, self.weight, self.bias, *options)
