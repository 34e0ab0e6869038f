"""Reduced precision in NumPy: sums in float64, which are exact, then float32 as every variant has it."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import Conv2dGeometry, QuantiseGeometry, ReducedConv2dGeometry
from nnlite.kernels.bfloat16 import from_bfloat16, to_bfloat16
from nnlite.kernels.reference import conv2d
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def _sums(g: ReducedConv2dGeometry) -> Conv2dGeometry:
    """The convolution without what follows it."""
    return Conv2dGeometry(*g.ints())


def _per_channel(numbers: Array) -> Array:
    return numbers.astype(np.float32)[:, None, None]


def _end(g: ReducedConv2dGeometry, t: Array, residual: Array | None) -> Array:
    if residual is not None:
        t = t + residual.astype(np.float32) * np.float32(g.residual_scale)
    return np.clip(t, np.float32(g.low), np.float32(g.high))


def conv2d_int8(
    g: ReducedConv2dGeometry,
    x: Array,
    w: Array,
    scale: Array,
    bias: Array,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    total = np.empty(g.y_shape, np.float64, like=x)
    weight = w.astype(np.float64)
    # Centred, what surrounds the picture is 0; then x_zero times the weights is added again.
    conv2d.forward(_sums(g), x.astype(np.float64) - g.x_zero, weight, None, None, total, None)
    total += g.x_zero * weight.sum((1, 2, 3))[:, None, None]
    t = _end(g, total.astype(np.float32) * _per_channel(scale) + _per_channel(bias), residual)
    y[...] = np.rint(t) if y.dtype == np.uint8 else t


def conv2d_bfloat16(
    g: ReducedConv2dGeometry,
    x: Array,
    w: Array,
    bias: Array,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    total = np.empty(g.y_shape, np.float64, like=x)
    conv2d.forward(
        _sums(g),
        from_bfloat16(x).astype(np.float64),
        from_bfloat16(w).astype(np.float64),
        None,
        None,
        total,
        None,
    )
    other = None if residual is None else from_bfloat16(residual)
    t = _end(g, total.astype(np.float32) + _per_channel(bias), other)
    y[...] = to_bfloat16(t) if y.dtype == np.uint16 else t


def quantise(g: QuantiseGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    steps = x.astype(np.float32) / np.float32(g.scale)
    y[...] = np.clip(np.rint(steps) + np.float32(g.zero), 0, 255)


def round_bfloat16(g: QuantiseGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    y[...] = to_bfloat16(x)


for _suffix in ("", "_float"):
    REGISTRY.add_variant(Variant(f"conv2d_int8{_suffix}", "reference", "taps", conv2d_int8))
    REGISTRY.add_variant(Variant(f"conv2d_bfloat16{_suffix}", "reference", "taps", conv2d_bfloat16))
REGISTRY.add_variant(Variant("quantise", "reference", "numpy", quantise))
REGISTRY.add_variant(Variant("round_bfloat16", "reference", "numpy", round_bfloat16))
