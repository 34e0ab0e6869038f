"""Batch normalisation and channel sums: passes over rows in ``jit/rows.py``, the rest here."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.geometry import CLAMP, NO_ACTIVATION, RELU, EltwiseGeometry, NormGeometry
from nnlite.kernels.numba_cpu.launch import compiled, floating, session
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array

CHUNKS = 32  # the most threads that a normalisation keeps busy
ELEMENTS = 16384  # of a chunk at least: starting threads costs as much as some thousand elements


def gate(g: NormGeometry | EltwiseGeometry, seen_from_y: bool) -> int:
    """What ``jit/rows.py`` calls a gate."""
    return {NO_ACTIVATION: 0, RELU: 1, CLAMP: 3 if seen_from_y else 2}[g.activation]


def bounds(g: NormGeometry | EltwiseGeometry, dtype: DType) -> tuple[Any, Any]:
    """The activation's bounds in the type of the operands, so that nothing is computed in float64."""
    return dtype.type(g.low), dtype.type(g.high)


def _chunks(g: NormGeometry) -> int:
    return max(1, min(CHUNKS, g.M, g.M * g.C // ELEMENTS))


def _size(g: NormGeometry) -> int:
    return _chunks(g) * 3 * g.C * 8


def _views(g: NormGeometry, workspace: Array | None, dtype: DType) -> tuple[Array, Array]:
    """The workspace as sums [chunks,2,C] and one row per chunk [chunks,C]."""
    assert workspace is not None
    sums = workspace[: _chunks(g) * 2 * g.C * 8].view(np.float64).reshape(_chunks(g), 2, g.C)
    rows = workspace[sums.nbytes :].view(dtype)[: _chunks(g) * g.C].reshape(_chunks(g), g.C)
    return sums, rows


def _or_empty(array: Array | None, like: Array) -> Array:
    return np.empty((0, like.shape[1]), like.dtype) if array is None else array


def _sums(g: NormGeometry, x: Array, mean: Array, power: int, workspace: Array | None) -> Array:
    partial = _views(g, workspace, x.dtype)[0].reshape(-1, g.C)[: _chunks(g)]
    compiled("rows").moments(x, mean, power, partial)
    total: Array = partial.sum(0)
    return total


def training_forward(
    g: NormGeometry,
    x: Array,
    weight: Array,
    bias: Array,
    residual: Array | None,
    y: Array,
    mean: Array,
    inv_std: Array,
    workspace: Array | None,
) -> None:
    with session():
        # Two passes: the one-pass formula E[x^2] - E[x]^2 cancels where |mean| is large.
        mean[...] = _sums(g, x, np.zeros(g.C, x.dtype), 1, workspace) / g.M
        inv_std[...] = 1 / np.sqrt(_sums(g, x, mean, 2, workspace) / g.M + g.epsilon)
        added = _or_empty(residual, x)
        compiled("rows").affine(x, mean, inv_std * weight, bias, added, y, *bounds(g, x.dtype), _chunks(g))


def training_backward(
    g: NormGeometry,
    x: Array,
    gy: Array,
    y: Array | None,
    weight: Array,
    bias: Array,
    mean: Array,
    inv_std: Array,
    gx: Array | None,
    gweight: Array,
    gbias: Array,
    gresidual: Array | None,
    workspace: Array | None,
) -> None:
    rows, (partial, passed) = compiled("rows"), _views(g, workspace, x.dtype)
    slope = inv_std * weight
    seen = (x, gy, _or_empty(y, x), mean, slope, bias, mean)
    act = (gate(g, y is not None), *bounds(g, x.dtype))
    with session():
        rows.gradient_sums(*seen, inv_std, *act, _or_empty(gresidual, x), passed, partial)
        sums = partial.sum(0)
        gbias[...], gweight[...] = sums
        if gx is not None:
            plain = (sums[0] / g.M).astype(x.dtype)
            weighted = (sums[1] / g.M * inv_std).astype(x.dtype)
            rows.gradient(*seen, slope, plain, weighted, *act, gx, _chunks(g))


def inference_forward(
    g: NormGeometry,
    x: Array,
    mean: Array | None,
    scale: Array,
    shift: Array,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    centre, added = np.zeros(g.C, x.dtype) if mean is None else mean, _or_empty(residual, x)
    with session():
        compiled("rows").affine(x, centre, scale, shift, added, y, *bounds(g, x.dtype), _chunks(g))


def inference_backward(
    g: NormGeometry,
    x: Array,
    gy: Array,
    y: Array | None,
    scale: Array,
    shift: Array,
    mean: Array,
    inv_std: Array,
    gx: Array | None,
    gweight: Array | None,
    gbias: Array | None,
    gresidual: Array | None,
    workspace: Array | None,
) -> None:
    rows, (partial, passed) = compiled("rows"), _views(g, workspace, x.dtype)
    seen = (x, gy, _or_empty(y, x), np.zeros(g.C, x.dtype), scale, shift, mean)
    act = (gate(g, y is not None), *bounds(g, x.dtype))
    with session():
        if gx is not None:
            nothing = np.empty(0, x.dtype)
            rows.gradient(*seen, scale, nothing, nothing, *act, gx, _chunks(g))
        if gweight is None and gbias is None and gresidual is None:
            return
        rows.gradient_sums(*seen, inv_std, *act, _or_empty(gresidual, x), passed, partial)
        sums = partial.sum(0)
        if gbias is not None:
            gbias[...] = sums[0]
        if gweight is not None:
            gweight[...] = sums[1]


def channel_sum(g: NormGeometry, x: Array, total: Array, workspace: Array | None) -> None:
    with session():
        total[...] = _sums(g, x, np.zeros(g.C, x.dtype), 1, workspace)


def _serves(g: NormGeometry, dtype: DType) -> str | None:
    return floating(dtype)


for _name, _run in (
    ("batch_norm_training_forward", training_forward),
    ("batch_norm_training_backward", training_backward),
    ("batch_norm_inference_forward", inference_forward),
    ("batch_norm_inference_backward", inference_backward),
    ("channel_sum", channel_sum),
):
    REGISTRY.add_variant(Variant(_name, "numba", "rows", _run, _serves, _size))
