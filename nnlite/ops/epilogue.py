"""What may follow a linear operation in the same pass over memory: a residual sum, an activation.

    y = act(z + residual);  act is nothing, "relu", or (low, high) of a clamp such as ReLU6

Kernels do it before they store a sum; their geometries hold the activation. Backward sees the activation
from y: the gradient passes where y > 0, or where low < y < high.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from nnlite.errors import OperandError, ShapeError
from nnlite.geometry import CLAMP, NO_ACTIVATION, RELU
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.ops.record import ArrayType, OnnxWriter
from nnlite.ops.runs import Kernel

Act = str | tuple[float, float] | None
"""None, "relu", or (low, high) for a clamp."""


def check_epilogue(op: str, y: ArrayType, residual: ArrayType | None, activation: Act) -> None:
    """ShapeError unless the residual is like y, OperandError for an unknown activation."""
    if residual is not None and residual != y:
        raise ShapeError(f"{op}: residual is {residual} but the sum is {y}; they must be alike")
    bounds = isinstance(activation, tuple) and len(activation) == 2
    if not (activation is None or activation == "relu" or bounds):
        raise OperandError(f"{op}: activation={activation!r} must be None, 'relu' or (low, high)")


def activation_fields(activation: Act) -> dict[str, Any]:
    """The activation as a geometry's fields."""
    if activation is None:
        return dict(activation=NO_ACTIVATION)
    if activation == "relu":
        return dict(activation=RELU, low=0.0)
    return dict(activation=CLAMP, low=float(activation[0]), high=float(activation[1]))


@lru_cache(maxsize=256)
def _gate(activation: Any, dtype: np.dtype[Any]) -> tuple[Kernel, float, float]:
    """The kernel that lets the gradient pass, and the least and the largest y where it does."""
    if activation == "relu":
        return Kernel("activation_backward", **activation_fields("relu")), _above(0.0, dtype), np.inf
    # A clamp's kernel lets its bounds through; seen from y they must not pass: a clamped y sits there.
    low, high = _above(activation[0], dtype), -_above(-activation[1], dtype)
    return Kernel("activation_backward", **activation_fields((low, high))), low, high


def _above(bound: float, dtype: np.dtype[Any]) -> float:
    """The next number above ``bound`` that kernels tell from it: they take denormal ones for 0."""
    above, least = float(np.nextafter(dtype.type(bound), dtype.type(np.inf))), float(np.finfo(dtype).tiny)
    if abs(above) >= least:
        return above
    return least if bound > -least else 0.0


def epilogue_gradient(gy: Array, y: Array | None, activation: Act) -> Array:
    """gy where act passed its gradient, seen from the output y; else 0."""
    if activation is None:
        return gy
    assert y is not None
    kernel, low, high = _gate(activation, gy.dtype)
    gradient = kernel(gy, y)
    if gradient is None:
        gradient = np.where((low <= y) & (y <= high), gy, gy.dtype.type(0))
    return gradient


def write_epilogue(w: OnnxWriter, y: str, residual: Value | None, activation: Act, x: Value | None) -> str:
    """The nodes that follow ``y`` in a file: Add, then Relu or Clip of ``x``'s type."""
    if residual is not None:
        y = w.add("Add", [y, residual])
    if activation is None:
        return y
    if activation == "relu":
        return w.add("Relu", [y])
    dtype = np.float32 if x is None or x.type is None else x.type.dtype
    return w.add("Clip", [y, *(w.host(bound, dtype) for bound in activation)])
