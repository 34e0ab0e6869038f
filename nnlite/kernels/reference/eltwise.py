"""Elementwise kernels in NumPy. Every step writes into the output, so that no page is fresh."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from nnlite.geometry import (
    CLAMP,
    FUNCTION,
    FUNCTIONS,
    NO_ACTIVATION,
    RELU,
    Conv2dGeometry,
    EltwiseGeometry,
    FunctionGeometry,
    NormGeometry,
    PictureGeometry,
)
from nnlite.kernels.reference.erf import erf
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array, as_array


def activate(g: Conv2dGeometry | NormGeometry | EltwiseGeometry, z: Array, y: Array) -> None:
    """y = act(z); a NaN stays one."""
    if g.activation >= FUNCTION:
        function = FunctionGeometry(z.size, g.activation - FUNCTION, g.low, g.high)
        function_forward(function, z.copy() if y is z else z, y, None)
        return
    low, high = z.dtype.type(g.low), z.dtype.type(g.high)
    if g.activation == NO_ACTIVATION:
        if y is not z:
            np.copyto(y, z)
        return
    np.maximum(z, low, out=y)
    if g.activation == CLAMP:
        np.minimum(y, high, out=y)


def passes(g: NormGeometry | EltwiseGeometry, z: Array) -> Array:
    """Where act lets a gradient pass; a NaN passes ReLU and not a clamp, as in PyTorch."""
    if g.activation == RELU:
        return as_array(~(z <= 0))
    if g.activation == CLAMP:
        return as_array((z >= z.dtype.type(g.low)) & (z <= z.dtype.type(g.high)))
    return np.ones_like(z, bool)


def combine(g: EltwiseGeometry, a: Array, b: Array | None, y: Array, workspace: Array | None) -> None:
    alpha, beta = a.dtype.type(g.alpha), a.dtype.type(g.beta)
    if b is None and alpha == 1:
        activate(g, a, y)
        return
    # What is still needed must not be overwritten where y is an operand.
    other = b if b is None or beta == 1 else b * beta
    first = a if alpha == 1 else np.multiply(a, alpha, out=None if y is b else y)
    if other is not None:
        np.add(first, other, out=y)
    elif first is not y:
        np.copyto(y, first)
    activate(g, y, y)


def activation_backward(g: EltwiseGeometry, gy: Array, z: Array, gx: Array, workspace: Array | None) -> None:
    stopped = ~passes(g, z)
    if gx is not gy:
        np.copyto(gx, gy)
    np.copyto(gx, 0, where=stopped)


def multiply(g: EltwiseGeometry, a: Array, b: Array, y: Array, workspace: Array | None) -> None:
    np.multiply(a, b, out=y)


def scale_channels(g: PictureGeometry, x: Array, scale: Array, y: Array, workspace: Array | None) -> None:
    np.multiply(x, scale, out=y)


def _gelu_curve(x: Array) -> Array:
    """The approximation's tanh."""
    return as_array(np.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return as_array(np.where(x >= 0, 1, small) / (1 + small))


def _ramp(g: FunctionGeometry, x: Array) -> Array:
    return as_array(np.clip(x * x.dtype.type(g.a) + x.dtype.type(g.b), 0, 1))


def function_forward(g: FunctionGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    match FUNCTIONS[g.function]:
        case "sigmoid":
            y[...] = _sigmoid(x)
        case "tanh":
            np.tanh(x, out=y)
        case "silu":
            np.multiply(x, _sigmoid(x), out=y)
        case "hardsigmoid":
            y[...] = _ramp(g, x)
        case "hardswish":
            np.multiply(x, _ramp(g, x), out=y)
        case "gelu":
            y[...] = 0.5 * x * (1 + erf(x * sqrt(0.5)))
        case "gelu_tanh":
            y[...] = 0.5 * x * (1 + _gelu_curve(x))
        case "erf":
            y[...] = erf(x)
        case _:
            y[...] = np.where(x > 0, x, x * x.dtype.type(g.a))


def function_backward(g: FunctionGeometry, gy: Array, z: Array, gx: Array, workspace: Array | None) -> None:
    a = z.dtype.type(g.a)
    match FUNCTIONS[g.function]:
        case "sigmoid":
            slope = z * (1 - z)
        case "tanh":
            slope = 1 - z * z
        case "silu":
            s = _sigmoid(z)
            slope = s * (1 + z * (1 - s))
        case "leaky_relu":
            slope = np.where(z > 0, z.dtype.type(1), a)
        case "gelu":
            slope = 0.5 * (1 + erf(z * sqrt(0.5))) + z * np.exp(-0.5 * z * z) * (1 / sqrt(2 * pi))
        case "gelu_tanh":
            t, inner = _gelu_curve(z), sqrt(2 / pi) * (1 + 3 * 0.044715 * z * z)
            slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * inner
        case "erf":
            slope = np.exp(-z * z) * (2 / sqrt(pi))
        case name:
            y, hardswish = _ramp(g, z), name == "hardswish"
            inside = y + z * a if hardswish else a
            slope = np.where(y <= 0, 0, np.where(y >= 1, int(hardswish), inside))
    np.multiply(gy, slope, out=gx, dtype=gx.dtype)


REGISTRY.add_variant(Variant("function_forward", "reference", "numpy", function_forward))
REGISTRY.add_variant(Variant("function_backward", "reference", "numpy", function_backward))
REGISTRY.add_variant(Variant("scale_channels", "reference", "numpy", scale_channels))
REGISTRY.add_variant(Variant("multiply", "reference", "numpy", multiply))
REGISTRY.add_variant(Variant("combine", "reference", "numpy", combine))
REGISTRY.add_variant(Variant("activation_backward", "reference", "numpy", activation_backward))
