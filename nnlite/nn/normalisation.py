"""Normalisation within one sample: layer, group, instance, root mean square, local response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.nn.module import Module
from nnlite.nn.parameter import Buffer, Parameter
from nnlite.tensors import Tensor


def _ones(shape: int | Sequence[int], wanted: bool = True) -> Parameter | None:
    return Parameter(np.ones(shape, np.float32)) if wanted else None


def _zeros(shape: int | Sequence[int], wanted: bool = True) -> Parameter | None:
    return Parameter(np.zeros(shape, np.float32)) if wanted else None


class LayerNorm(Module):
    """Normalisation over the last axes, of sizes ``normalized_shape``; weight and bias have that shape.

    Source: op ``layer_norm``; torch.nn.LayerNorm.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not sizes or min(sizes) < 1:
            raise ConfigError(f"LayerNorm: normalized_shape={normalized_shape} must hold sizes of at least 1")
        self.normalized_shape, self.eps = sizes, eps
        self.weight = _ones(sizes, elementwise_affine)
        self.bias = _zeros(sizes, elementwise_affine and bias)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class RMSNorm(Module):
    """x / √(mean of x² + eps) · weight over the last axes, of sizes ``normalized_shape``.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467; torch.nn.RMSNorm.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
    ) -> None:
        self.normalized_shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.eps = eps
        self.weight = _ones(self.normalized_shape, elementwise_affine)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class GroupNorm(Module):
    """Normalisation of x [N,C,...] over the pixels and channels of each group; weight, bias [C].

    Raises ConfigError unless ``num_groups`` divides ``num_channels``. Source: op ``group_norm``;
    torch.nn.GroupNorm.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ConfigError(f"GroupNorm: num_groups={num_groups} must divide num_channels={num_channels}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = _ones(num_channels, affine), _zeros(num_channels, affine and bias)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.weight is not None}"


class InstanceNorm(Module):
    """Normalisation of x [N,C,...] over the pixels of each channel of each sample; weight, bias [C].

    With ``track_running_stats`` evaluation (and a frozen layer) uses the running statistics. Raises
    ShapeError for a wrong number of axes. Source: Ulyanov et al. 2016, arXiv:1607.08022; op
    ``group_norm``; torch.nn.InstanceNorm2d.
    """

    _axes: int = 0

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
    ) -> None:
        if num_features < 1:
            raise ConfigError(f"{type(self).__name__}: num_features={num_features} must be at least 1")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight, self.bias = _ones(num_features, affine), _zeros(num_features, affine and bias)
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        self.running_mean = Buffer(zeros) if track_running_stats else None
        self.running_var = Buffer(ones) if track_running_stats else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        if x.ndim != self._axes:
            expected = {3: "[N,C,L]", 4: "[N,C,H,W]"}[self._axes]
            raise ShapeError(f"{type(self).__name__}: x has shape {list(x.shape)} but must be {expected}")
        own = self.running_mean is None or (self.training and not self.frozen)
        statistics = (self.running_mean, self.running_var)
        return F.instance_norm(x, *statistics, self.weight, self.bias, own, self.momentum, self.eps)

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        return f"{text}, affine={self.weight is not None}"


class InstanceNorm1d(InstanceNorm):
    """:class:`InstanceNorm` of x [N,C,L]."""

    _axes = 3


class InstanceNorm2d(InstanceNorm):
    """:class:`InstanceNorm` of x [N,C,H,W]."""

    _axes = 4


class LocalResponseNorm(Module):
    """x / (k + alpha · mean of x² over ``size`` neighbouring channels)^beta for x [N,C,...]."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
