"""Elementwise kernels in NumPy. Every step writes into the output, so that no page is fresh."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import CLAMP, NO_ACTIVATION, RELU, EltwiseGeometry, NormGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def activate(g: NormGeometry | EltwiseGeometry, z: Array, y: Array) -> None:
    """y = act(z); a NaN stays one."""
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
        return np.asarray(~(z <= 0))
    if g.activation == CLAMP:
        return np.asarray((z >= z.dtype.type(g.low)) & (z <= z.dtype.type(g.high)))
    return np.ones(z.shape, bool)


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


REGISTRY.add_variant(Variant("combine", "reference", "numpy", combine))
REGISTRY.add_variant(Variant("activation_backward", "reference", "numpy", activation_backward))
