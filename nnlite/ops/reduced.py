"""Layers of reduced precision, which the compiler puts in the place of others: never part of a file.

Integers of 8 bits with sums of 32, or bfloat16 (its bits, in uint16) with sums in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import QuantiseGeometry, ReducedConv2dGeometry, Shape
from nnlite.kernels import launch
from nnlite.layout import Array, runs
from nnlite.ops.conv import PLAIN, conv2d_geometry_of
from nnlite.ops.record import ArrayType, Context, ErrorSample, Op, Sample, register

NO_GRADIENT = "none: it serves what is frozen"

# --------------------------------------------------------------------------------- to a smaller type


def to_uint8_shape(x: ArrayType, scale: float, zero: int) -> ArrayType:
    if x.dtype.kind != "f":
        raise DTypeError(f"to_uint8: x is {x.dtype} but must be floating-point")
    if not (scale > 0 and 0 <= zero <= 255):
        raise ShapeError(f"to_uint8: scale={scale} must be positive and zero={zero} within 0..255")
    return ArrayType(x.shape, np.dtype(np.uint8))


def _rounded(kernel: str, geometry: QuantiseGeometry, x: Array, dtype: Any) -> Array:
    y = memory.empty(x.shape, dtype, like=x)
    flat = runs(x, y)
    if flat is None:  # another memory order than y's
        np.copyto(other := memory.empty(x.shape, x.dtype, like=x), x)
        flat = runs(other, y)
    assert flat is not None
    launch(kernel, geometry, flat[0], flat[1])
    return y


def to_uint8_forward(ctx: Context, x: Array, scale: float, zero: int) -> Array:
    return _rounded("quantise", QuantiseGeometry(x.size, scale, float(zero)), x, np.uint8)


def to_uint8_samples() -> Iterator[Sample]:
    yield Sample((2, 3, 4, 5), scale=0.02, zero=128)
    yield Sample((3, 7), scale=0.5, zero=0)


def to_uint8_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(DTypeError, "must be floating-point", np.ones((2, 3), np.int64), scale=0.5, zero=0)
    yield ErrorSample(ShapeError, "must be positive", (2, 3), scale=0.0, zero=0)


def to_bfloat16_shape(x: ArrayType) -> ArrayType:
    if x.dtype.kind != "f":
        raise DTypeError(f"to_bfloat16: x is {x.dtype} but must be floating-point")
    return ArrayType(x.shape, np.dtype(np.uint16))


def to_bfloat16_forward(ctx: Context, x: Array) -> Array:
    return _rounded("round_bfloat16", QuantiseGeometry(x.size), x, np.uint16)


# ------------------------------------------------------------------------------------ convolution


def reduced_geometry(
    x: Shape, w: Shape, *, residual_scale: float, x_zero: int, low: float, high: float, **window: Any
) -> ReducedConv2dGeometry:
    """The geometry of x [N,C,H,W] with w [K,C/groups,R,S]; x [N,C] and w [K,C] are pictures of one pixel."""
    plain = conv2d_geometry_of(*(shape if len(shape) != 2 else (*shape, 1, 1) for shape in (x, w)), **window)
    end: dict[str, Any] = dict(x_zero=x_zero, residual_scale=residual_scale, low=low, high=high)
    return ReducedConv2dGeometry(*plain.ints(), **end)


def _check(
    op: str, x: ArrayType, w: ArrayType, per_channel: tuple[ArrayType, ...], residual: ArrayType | None,
    kinds: tuple[Any, Any], to_float: bool, geometry: ReducedConv2dGeometry,
) -> ArrayType:  # fmt: skip
    if (x.dtype, w.dtype) != kinds or (residual is not None and residual.dtype != kinds[0]):
        raise DTypeError(f"{op}: x is {x.dtype} and w {w.dtype} but they must be {kinds[0]} and {kinds[1]}")
    if any(known.shape != (geometry.K,) for known in per_channel):
        raise ShapeError(f"{op}: scale and bias must be [{geometry.K}]")
    shape = geometry.y_shape if len(x.shape) == 4 else geometry.y_shape[:2]
    if residual is not None and residual.shape != shape:
        raise ShapeError(f"{op}: residual is {list(residual.shape)} but the sum is {list(shape)}")
    return ArrayType(shape, np.dtype(np.float32) if to_float else kinds[0])


def _pictures(array: Array | None) -> Array | None:
    return array if array is None or array.ndim == 4 else array[:, :, None, None]


def conv2d_int8_shape(
    x: ArrayType, w: ArrayType, scale: ArrayType, bias: ArrayType, residual: ArrayType | None = None, *,
    to_float: bool, **params: Any,
) -> ArrayType:  # fmt: skip
    geometry = reduced_geometry(x.shape, w.shape, **params)
    kinds = (np.dtype(np.uint8), np.dtype(np.int8))
    return _check("conv2d_int8", x, w, (scale, bias), residual, kinds, to_float, geometry)


def _convolved(kernel: str, w: Array, operands: tuple[Array, ...], to_float: bool, params: Any) -> Array:
    x = operands[0]
    geometry = reduced_geometry(x.shape, w.shape, **params)
    y = memory.empty(geometry.y_shape, np.float32 if to_float else x.dtype, like=x)
    first, *per_channel, residual = operands
    pictures, weights, addend = _pictures(first), _pictures(w), _pictures(residual)
    launch(kernel + "_float" * to_float, geometry, pictures, weights, *per_channel, addend, y)
    return y if x.ndim == 4 else y[:, :, 0, 0]


def conv2d_int8_forward(
    ctx: Context, x: Array, w: Array, scale: Array, bias: Array, residual: Array | None = None, *,
    to_float: bool, **params: Any,
) -> Array:  # fmt: skip
    return _convolved("conv2d_int8", w, (x, scale, bias, residual), to_float, params)  # type: ignore[arg-type]


def conv2d_bfloat16_shape(
    x: ArrayType, w: ArrayType, bias: ArrayType, residual: ArrayType | None = None, *,
    to_float: bool, **params: Any,
) -> ArrayType:  # fmt: skip
    geometry = reduced_geometry(x.shape, w.shape, **params)
    kinds = (np.dtype(np.uint16), np.dtype(np.uint16))
    return _check("conv2d_bfloat16", x, w, (bias,), residual, kinds, to_float, geometry)


def conv2d_bfloat16_forward(
    ctx: Context, x: Array, w: Array, bias: Array, residual: Array | None = None, *,
    to_float: bool, **params: Any,
) -> Array:  # fmt: skip
    return _convolved("conv2d_bfloat16", w, (x, bias, residual), to_float, params)  # type: ignore[arg-type]


def reduced_macs(x: ArrayType, w: ArrayType, *others: Any, to_float: bool, **params: Any) -> int:
    return reduced_geometry(x.shape, w.shape, **params).macs


_END: dict[str, Any] = dict(x_zero=0, residual_scale=1.0, low=-inf, high=inf)


def _integers(seed: int, *shape: int, low: int = 0, high: int = 256, dtype: Any = np.uint8) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def _samples(kind: Any, weight_kind: Any, *per_channel: float) -> Iterator[Sample]:
    # Bits of bfloat16 near 1: 0x3F80 and what follows.
    base = 0 if kind is np.uint8 else 0x3F80
    for shape, w_shape, window in (
        ((2, 5, 6, 5), (4, 5, 3, 3), PLAIN | dict(padding=(1, 1, 1, 1))),
        ((1, 4, 7, 6), (4, 1, 3, 3), PLAIN | dict(stride=(2, 2), groups=4)),
        ((3, 6), (5, 6), PLAIN),
    ):
        x = _integers(1, *shape, low=base, high=base + 100, dtype=kind)
        w = _integers(2, *w_shape, low=base - 60 * (base == 0), high=base + 60, dtype=weight_kind)
        numbers = [np.full(w_shape[0], number) for number in per_channel]
        for to_float in (False, True):
            yield Sample(
                x, w, *numbers, None, **window, **_END | dict(high=255.0, low=0.0), to_float=to_float
            )


def _errors(kind: Any, weight_kind: Any, per_channel: int) -> Iterator[ErrorSample]:
    x, w = np.ones((1, 3, 5, 5), kind), np.ones((4, 3, 3, 3), weight_kind)
    numbers, more = [np.ones(4)] * per_channel, dict(PLAIN) | _END | dict(to_float=False)
    yield ErrorSample(DTypeError, "they must be", x.astype(np.float32), w, *numbers, None, **more)
    yield ErrorSample(ShapeError, r"must be \[4\]", x, w, *[np.ones(3)] * per_channel, None, **more)
    yield ErrorSample(ShapeError, "residual is", x, w, *numbers, x, **more)


register(
    Op(
        name="to_uint8",
        formula="y = clip(round(x / scale) + zero, 0, 255), halves to the even integer",
        gradient=NO_GRADIENT,
        source="ONNX QuantizeLinear-25, for one scale",
        shape=to_uint8_shape,
        forward=to_uint8_forward,
        backward=None,
        samples=to_uint8_samples,
        errors=to_uint8_errors,
        writes=None,
        kernels=("quantise",),
    )
)
register(
    Op(
        name="to_bfloat16",
        formula="the bits of x rounded to bfloat16, to the nearest, halves to the one whose last bit is 0",
        gradient=NO_GRADIENT,
        source="Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training, arXiv:1905.12322",
        shape=to_bfloat16_shape,
        forward=to_bfloat16_forward,
        backward=None,
        samples=lambda: iter([Sample((2, 3, 4, 5)), Sample((3, 7))]),
        errors=lambda: iter([ErrorSample(DTypeError, "must be floating-point", np.ones((2, 3), np.int64))]),
        writes=None,
        kernels=("round_bfloat16",),
    )
)
register(
    Op(
        name="conv2d_int8",
        formula="y[n,k,p,q] = clamp(scale[k] Σ_{c,r,s} w[k,c,r,s] x[n, c, p·stride + r·dilation - pad_top, …]"
        " + bias[k] + residual_scale residual[n,k,p,q], low, high), rounded to uint8 or, to_float, as it is; "
        "x and residual uint8, w int8, sums of 32 bits; x is x_zero outside; also x [N,C], w [K,C]",
        gradient=NO_GRADIENT,
        source="Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient "
        "Integer-Arithmetic-Only Inference, arXiv:1712.05877",
        shape=conv2d_int8_shape,
        forward=conv2d_int8_forward,
        backward=None,
        macs=reduced_macs,
        samples=lambda: _samples(np.uint8, np.int8, 0.01, 60.0),
        errors=lambda: _errors(np.uint8, np.int8, 2),
        writes=None,
        layout="channels_last",
        kernels=("conv2d_int8", "conv2d_int8_float"),
    )
)
register(
    Op(
        name="conv2d_bfloat16",
        formula="y[n,k,p,q] = clamp(Σ_{c,r,s} w[k,c,r,s] x[n, c, p·stride + r·dilation - pad_top, …] "
        "+ bias[k] + residual[n,k,p,q], low, high), rounded to bfloat16 or, to_float, as float32; "
        "x, w and residual bfloat16, sums in float32; also x [N,C], w [K,C]",
        gradient=NO_GRADIENT,
        source="Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training, arXiv:1905.12322",
        shape=conv2d_bfloat16_shape,
        forward=conv2d_bfloat16_forward,
        backward=None,
        macs=reduced_macs,
        samples=lambda: _samples(np.uint16, np.uint16, 0.5),
        errors=lambda: _errors(np.uint16, np.uint16, 1),
        writes=None,
        layout="channels_last",
        kernels=("conv2d_bfloat16", "conv2d_bfloat16_float"),
    )
)
