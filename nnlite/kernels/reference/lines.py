"""Softmax, cross-entropy and layer normalisation of rows [M,C] in NumPy."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import NormGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def softmax_forward(g: NormGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    # Subtracting the maximum changes nothing mathematically and keeps exp from overflowing.
    np.exp(x - x.max(1, keepdims=True), out=y)
    y /= y.sum(1, keepdims=True)


def softmax_backward(g: NormGeometry, gy: Array, y: Array, gx: Array, workspace: Array | None) -> None:
    np.multiply(y, gy - (gy * y).sum(1, keepdims=True), out=gx)


def log_softmax_forward(g: NormGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    np.subtract(x, x.max(1, keepdims=True), out=y)
    y -= np.log(np.exp(y).sum(1, keepdims=True))


def log_softmax_backward(g: NormGeometry, gy: Array, y: Array, gx: Array, workspace: Array | None) -> None:
    np.subtract(gy, np.exp(y) * gy.sum(1, keepdims=True), out=gx)


def cross_entropy(
    g: NormGeometry,
    logits: Array,
    labels: Array,
    weight: Array | None,
    options: Array,
    losses: Array,
    gradient: Array | None,
    workspace: Array | None,
) -> None:
    smoothing, scale = options
    logs = np.empty_like(logits)
    log_softmax_forward(g, logits, logs, None)
    counted, at = labels >= 0, np.arange(g.M, like=logits)
    own = np.where(counted, labels, 0)
    weights = np.ones_like(logits, logits.dtype, "C", shape=g.C) if weight is None else weight
    # losses = -sum_c share[m,c] logs[m,c]
    share = np.broadcast_to(weights * (smoothing / g.C), logits.shape).copy()
    share[at, own] += (1 - smoothing) * weights[own]
    share *= counted[:, None]
    losses[...] = np.where(counted, -np.where(share == 0, 0, share * logs).sum(1), 0)
    if gradient is not None:
        gradient[...] = np.where(
            counted[:, None], scale * (np.exp(logs) * share.sum(1, keepdims=True) - share), 0
        )


def layer_norm_forward(
    g: NormGeometry,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    y: Array,
    mean: Array,
    inv_std: Array,
    workspace: Array | None,
) -> None:
    mean[...] = x.mean(1, dtype=np.float64)
    centred = x - mean[:, None]
    inv_std[...] = 1 / np.sqrt(np.square(centred, dtype=np.float64).mean(1) + g.epsilon)
    np.multiply(centred, inv_std[:, None], out=y)
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias


def layer_norm_backward(
    g: NormGeometry,
    x: Array,
    gy: Array,
    weight: Array | None,
    mean: Array,
    inv_std: Array,
    gx: Array | None,
    gweight: Array | None,
    gbias: Array | None,
    workspace: Array | None,
) -> None:
    normal = (x - mean[:, None]) * inv_std[:, None]
    if gweight is not None:
        gweight[...] = (gy * normal).sum(0, dtype=np.float64)
    if gbias is not None:
        gbias[...] = gy.sum(0, dtype=np.float64)
    if gx is not None:
        scaled = gy if weight is None else gy * weight
        rest = scaled - scaled.mean(1, keepdims=True) - normal * (scaled * normal).mean(1, keepdims=True)
        np.multiply(rest, inv_std[:, None], out=gx)


for _run in (
    softmax_forward,
    softmax_backward,
    log_softmax_forward,
    log_softmax_backward,
    cross_entropy,
    layer_norm_forward,
    layer_norm_backward,
):
    REGISTRY.add_variant(Variant(_run.__name__, "reference", "numpy", _run))
