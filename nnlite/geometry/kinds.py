"""The geometries: everything that a kernel needs to know besides its arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import inf
from typing import Any

Shape = tuple[int, ...]

NO_ACTIVATION, RELU, CLAMP, FUNCTION = 0, 1, 2, 3
"""What may follow a sum elementwise: nothing, max(z, 0), z kept within [low, high].

Behind a convolution also the function whose place in :data:`FUNCTIONS` is ``activation - FUNCTION``, with
a = ``low`` and b = ``high``, or :data:`PRELU`."""


FUNCTIONS = (
    "sigmoid", "tanh", "silu", "hardsigmoid", "hardswish", "leaky_relu", "gelu", "gelu_tanh", "erf"
)  # fmt: skip
"""Elementwise functions that kernels know by their place in this list."""

PRELU = FUNCTION + len(FUNCTIONS)
"""z where z > 0, else z times the slope of its channel. The slopes are the second row of the bias [2,K];
without it they are 0, as the bias is."""


class _Fields:
    """What every kernel call asks of its geometry, computed once: the fields and their hash."""

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """All fields in order."""
        return tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    @cached_property
    def _hash(self) -> int:
        return hash(self.values)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class Conv2dGeometry(_Fields):
    """A two-dimensional convolution y [N,K,P,Q] of x [N,C,H,W] with w [K,C/groups,R,S]."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int
    dilation_h: int
    dilation_w: int
    groups: int
    activation: int = NO_ACTIVATION
    low: float = -inf
    high: float = inf

    __hash__ = _Fields.__hash__

    @property
    def x_shape(self) -> Shape:
        """[N,C,H,W]."""
        return (self.N, self.C, self.H, self.W)

    @property
    def w_shape(self) -> Shape:
        """[K,C/groups,R,S]."""
        return (self.K, self.C // self.groups, self.R, self.S)

    @property
    def y_shape(self) -> Shape:
        """The output's shape."""
        return (self.N, self.K, self.P, self.Q)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the direct algorithm, padding included."""
        return self.N * self.K * self.P * self.Q * (self.C // self.groups) * self.R * self.S

    def ints(self) -> tuple[int, ...]:
        """The integers in order, as ``csrc/include/params.h`` has them."""
        return self.values[:18]

    def activated(self, activation: int, low: float = -inf, high: float = inf) -> Conv2dGeometry:
        """The same convolution followed by an activation."""
        return replace(self, activation=activation, low=low, high=high)


@dataclass(frozen=True)
class ReducedConv2dGeometry(Conv2dGeometry):
    """A convolution of integers of 8 bits or of bfloat16 numbers, and what follows its sums.

    y = clamp(sum·scale + bias + residual·residual_scale, low, high); outside the picture x is ``x_zero``.
    The bounds hold whatever ``activation`` says.
    """

    x_zero: int = 0
    residual_scale: float = 1.0

    __hash__ = _Fields.__hash__


@dataclass(frozen=True)
class QuantiseGeometry(_Fields):
    """Rounding of ``size`` numbers that lie one after another, whatever their axes, to a smaller type."""

    size: int
    scale: float = 1.0
    zero: float = 0.0

    __hash__ = _Fields.__hash__

    def ints(self) -> tuple[int, ...]:
        """The fields in order, as ``csrc/include/params.h`` has them."""
        return (self.size,)


class _Pictures(_Fields):
    """Work that turns pictures x [N,C,H,W] into y [N,C,P,Q]."""

    N: int
    C: int
    H: int
    W: int
    P: int
    Q: int

    @property
    def x_shape(self) -> Shape:
        """[N,C,H,W]."""
        return (self.N, self.C, self.H, self.W)

    @property
    def y_shape(self) -> Shape:
        """The output's shape."""
        return (self.N, self.C, self.P, self.Q)

    def ints(self) -> tuple[int, ...]:
        """The fields in order, as ``csrc/include/params.h`` has them."""
        return self.values


@dataclass(frozen=True)
class Pool2dGeometry(_Pictures):
    """A two-dimensional pooling y [N,C,P,Q] of x [N,C,H,W] with an R x S window."""

    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    P: int
    Q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int
    dilation_h: int
    dilation_w: int
    count_include_pad: int

    __hash__ = _Fields.__hash__


@dataclass(frozen=True)
class NormGeometry(_Fields):
    """Work on rows x [M,C]: per channel, M being all other axes of a channels-last array, or row by row."""

    M: int
    C: int
    epsilon: float
    activation: int = NO_ACTIVATION
    low: float = -inf
    high: float = inf

    __hash__ = _Fields.__hash__

    def ints(self) -> tuple[int, ...]:
        """The fields in order, as ``csrc/include/params.h`` has them."""
        return (self.M, self.C)


@dataclass(frozen=True)
class EltwiseGeometry(_Fields):
    """Elementwise work on ``size`` numbers that lie one after another, whatever their axes."""

    size: int
    alpha: float = 1.0
    beta: float = 1.0
    activation: int = NO_ACTIVATION
    low: float = -inf
    high: float = inf

    __hash__ = _Fields.__hash__

    def ints(self) -> tuple[int, ...]:
        """The fields in order, as ``csrc/include/params.h`` has them."""
        return (self.size,)


@dataclass(frozen=True)
class FunctionGeometry(_Fields):
    """One of :data:`FUNCTIONS` on ``size`` numbers that lie one after another.

    ``a`` and ``b`` are slope and shift of hardsigmoid and hardswish, ``a`` leaky_relu's slope below 0.
    """

    size: int
    function: int
    a: float = 0.0
    b: float = 0.0

    __hash__ = _Fields.__hash__

    def ints(self) -> tuple[int, ...]:
        """The fields in order, as ``csrc/include/params.h`` has them."""
        return (self.size, self.function)


@dataclass(frozen=True)
class PictureGeometry(_Fields):
    """Work on pictures [N,C,H,W] whose channels are taken one by one."""

    N: int
    C: int
    H: int
    W: int

    __hash__ = _Fields.__hash__

    def ints(self) -> tuple[int, ...]:
        """The fields in order, as ``csrc/include/params.h`` has them."""
        return self.values


@dataclass(frozen=True)
class ResizeGeometry(_Pictures):
    """Pictures x [N,C,H,W] to y [N,C,P,Q], each of whose rows is a weighted sum of some rows of x.

    ``row_taps`` are those of all rows together; the same with columns.
    """

    N: int
    C: int
    H: int
    W: int
    P: int
    Q: int
    row_taps: int
    column_taps: int

    __hash__ = _Fields.__hash__


Geometry = (
    Conv2dGeometry
    | Pool2dGeometry
    | NormGeometry
    | EltwiseGeometry
    | FunctionGeometry
    | QuantiseGeometry
    | PictureGeometry
    | ResizeGeometry
)


def describe(geometry: Geometry) -> str:
    """``N=1 C=3 H=8 ...``: every field that differs from what is usual."""
    usual: dict[str, float] = dict(stride_h=1, stride_w=1, pad_top=0, pad_left=0, pad_bottom=0, pad_right=0)
    usual.update(dilation_h=1, dilation_w=1, groups=1, count_include_pad=1)
    usual.update(x_zero=0, residual_scale=1)
    usual.update(alpha=1, beta=1, activation=NO_ACTIVATION, low=-inf, high=inf)
    values = ((field.name, getattr(geometry, field.name)) for field in fields(geometry))
    return " ".join(f"{name}={value}" for name, value in values if usual.get(name) != value)
