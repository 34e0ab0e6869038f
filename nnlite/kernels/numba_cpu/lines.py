"""Softmax, cross-entropy, layer normalisation and resizing: operands handed to ``jit/lines.py``."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import NO_ACTIVATION, NormGeometry, ResizeGeometry
from nnlite.kernels.numba_cpu.launch import compiled, floating, session
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array, channels_inside

CHUNKS = 32  # the most that sums over rows are cut into


def _vector(array: Array | None, like: Array) -> Array:
    return np.empty(0, like.dtype) if array is None else array


def _matrix(array: Array | None, like: Array) -> Array:
    return np.empty((0, like.shape[1]), like.dtype) if array is None else array


def softmax_forward(g: NormGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    with session():
        compiled("lines").softmax(x, y, False)


def log_softmax_forward(g: NormGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    with session():
        compiled("lines").softmax(x, y, True)


def softmax_backward(g: NormGeometry, gy: Array, y: Array, gx: Array, workspace: Array | None) -> None:
    with session():
        compiled("lines").softmax_gradient(gy, y, gx, False)


def log_softmax_backward(g: NormGeometry, gy: Array, y: Array, gx: Array, workspace: Array | None) -> None:
    with session():
        compiled("lines").softmax_gradient(gy, y, gx, True)


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
    with session():
        compiled("lines").cross_entropy(
            logits, labels, _vector(weight, logits), options, losses, _matrix(gradient, logits)
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
    with session():
        compiled("lines").layer_norm(x, _vector(weight, x), _vector(bias, x), y, mean, inv_std, g.epsilon)


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
    assert workspace is not None
    partial = workspace[: _size(g)].view(np.float64).reshape(-1, 2, g.C)
    with session():
        compiled("lines").layer_norm_gradient(
            x, gy, _vector(weight, x), mean, inv_std, _matrix(gx, x), partial
        )
    sums = partial.sum(0)
    if gweight is not None:
        gweight[...] = sums[0]
    if gbias is not None:
        gbias[...] = sums[1]


def resize(
    g: ResizeGeometry,
    x: Array,
    row_start: Array,
    row: Array,
    row_weight: Array,
    column_start: Array,
    column: Array,
    column_weight: Array,
    y: Array,
    workspace: Array | None,
) -> None:
    rows, columns = (row_start, row, row_weight), (column_start, column, column_weight)
    with session():
        compiled("lines").resize(channels_inside(x), *rows, *columns, channels_inside(y))


def _size(g: NormGeometry) -> int:
    return max(1, min(CHUNKS, g.M, g.M * g.C // 16384)) * 2 * g.C * 8


def _serves(g: NormGeometry, dtype: DType) -> str | None:
    return floating(dtype) or (None if g.C and g.activation == NO_ACTIVATION else "needs plain rows")


def _resizes(g: ResizeGeometry, dtype: DType) -> str | None:
    return floating(dtype) or (None if min(g.C, g.H, g.W, g.P, g.Q) else "needs pictures that are not empty")


for _run in (
    softmax_forward,
    softmax_backward,
    log_softmax_forward,
    log_softmax_backward,
    cross_entropy,
    layer_norm_forward,
):
    REGISTRY.add_variant(Variant(_run.__name__, "numba", "lines", _run, _serves))
REGISTRY.add_variant(Variant("layer_norm_backward", "numba", "lines", layer_norm_backward, _serves, _size))
REGISTRY.add_variant(Variant("resize", "numba", "taps", resize, _resizes))
