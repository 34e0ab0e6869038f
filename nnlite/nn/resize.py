"""Resizing, channels into pixels, and padding as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nnlite import functional as F
from nnlite.errors import ConfigError
from nnlite.nn.module import Module
from nnlite.tensors import Tensor


class Upsample(Module):
    """Resize x [N,C,...] to ``size`` or by ``scale_factor``. Source: op ``resize``; torch.nn.Upsample."""

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ConfigError("Upsample: give either size or scale_factor")
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, x: Tensor) -> Tensor:
        """The resized x."""
        options = (self.mode, self.align_corners, self.recompute_scale_factor)
        return F.interpolate(x, self.size, self.scale_factor, *options)

    def extra_repr(self) -> str:
        """Options, for repr."""
        which = f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"
        return f"{which}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """:class:`Upsample` with mode "nearest"."""

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """:class:`Upsample` with mode "bilinear" and aligned corners."""

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(size, scale_factor, "bilinear", True)


class PixelShuffle(Module):
    """[N,C·r²,H,W] to [N,C,H·r,W·r]. Source: op ``depth_to_space``; torch.nn.PixelShuffle."""

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """Channels become pixels."""
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """[N,C,H·r,W·r] to [N,C·r²,H,W]. Source: op ``space_to_depth``; torch.nn.PixelUnshuffle."""

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """Pixels become channels."""
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channels [groups, C/groups] counted as [C/groups, groups]. Source: torch.nn.ChannelShuffle."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """x with its channels in another order."""
        return F.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"groups={self.groups}"


class _Pad(Module):
    _mode: ClassVar[str] = "constant"
    _axes: ClassVar[int] = 2

    def __init__(self, padding: int | Sequence[int]) -> None:
        count = 2 * self._axes
        self.padding = (padding,) * count if isinstance(padding, int) else tuple(padding)
        self.value = 0.0
        if len(self.padding) != count:
            name = type(self).__name__
            raise ConfigError(f"{name}: padding={padding} must be one integer or {count}")

    def forward(self, x: Tensor) -> Tensor:
        """The padded x."""
        return F.pad(x, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.padding}"


class ConstantPad1d(_Pad):
    """Pad the last axis with ``value``: padding (left, right)."""

    _axes = 1

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value


class ConstantPad2d(_Pad):
    """Pad the last two axes with ``value``: padding (left, right, top, bottom)."""

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value


class ZeroPad2d(_Pad):
    """Pad the last two axes with 0: padding (left, right, top, bottom)."""


class ReflectionPad1d(_Pad):
    """Pad the last axis with its mirror image."""

    _mode, _axes = "reflect", 1


class ReflectionPad2d(_Pad):
    """Pad the last two axes with their mirror image."""

    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """Pad the last axis with its first and last element."""

    _mode, _axes = "replicate", 1


class ReplicationPad2d(_Pad):
    """Pad the last two axes with the edge."""

    _mode = "replicate"


class CircularPad2d(_Pad):
    """Pad the last two axes with the opposite end."""

    _mode = "circular"


class ZeroPad1d(_Pad):
    """Pad the last axis with 0: padding (left, right)."""

    _axes = 1


class CircularPad1d(_Pad):
    """Pad the last axis with its opposite end."""

    _mode, _axes = "circular", 1
