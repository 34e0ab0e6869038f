"""Pooling in NumPy: one vectorised step per window element."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnlite.geometry import Pool2dGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def _extent(g: Pool2dGeometry) -> tuple[int, int]:
    """Size of the input with padding and with what windows overhang under ceil_mode."""
    height = max(g.H + g.pad_top + g.pad_bottom, (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1)
    width = max(g.W + g.pad_left + g.pad_right, (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1)
    return height, width


def _inner(padded: Array, g: Pool2dGeometry) -> Array:
    return padded[:, :, g.pad_top : g.pad_top + g.H, g.pad_left : g.pad_left + g.W]


def _windows(padded: Array, g: Pool2dGeometry) -> Iterator[Array]:
    """For each window element in row-major order the view [N,C,P,Q] of what it meets."""
    for r in range(g.R):
        for s in range(g.S):
            top, left = r * g.dilation_h, s * g.dilation_w
            rows = slice(top, top + (g.P - 1) * g.stride_h + 1, g.stride_h)
            columns = slice(left, left + (g.Q - 1) * g.stride_w + 1, g.stride_w)
            yield padded[:, :, rows, columns]


def max_forward(
    g: Pool2dGeometry, x: Array, y: Array, indices: Array | None, workspace: Array | None
) -> None:
    height, width = _extent(g)
    padded = np.full((g.N, g.C, height, width), -np.inf, x.dtype)
    _inner(padded, g)[...] = x
    at = np.full((1, 1, height, width), -1, np.int32)
    _inner(at, g)[0, 0] = np.arange(g.H * g.W, dtype=np.int32).reshape(g.H, g.W)
    best: Array | None = None
    where = np.empty((g.N, g.C, g.P, g.Q), np.int32)
    for value, position in zip(_windows(padded, g), _windows(at, g), strict=True):
        if best is None:
            best, where[...] = value.copy(), position
            continue
        # Until something inside the input was met anything inside wins, even -inf; then only more, or NaN.
        wins = ((where < 0) & (position >= 0)) | (value > best) | (np.isnan(value) & ~np.isnan(best))
        best = np.where(wins, value, best)
        where = np.where(wins, position, where)
    y[...] = best
    if indices is not None:
        indices[...] = where


def max_backward(g: Pool2dGeometry, gy: Array, indices: Array, gx: Array, workspace: Array | None) -> None:
    planes = np.arange(g.N * g.C).reshape(g.N, g.C, 1, 1) * (g.H * g.W)
    at = (planes + indices).ravel()
    # bincount adds in float64, whatever gy is
    total = np.bincount(at, gy.ravel(), minlength=g.N * g.C * g.H * g.W)
    gx[...] = total.reshape(g.x_shape)


def _counts(g: Pool2dGeometry, dtype: np.dtype[np.floating]) -> Array:
    """Number of elements that each window averages over, [1,1,P,Q]."""
    height, width = _extent(g)
    counted = np.zeros((1, 1, height, width), dtype)
    if g.count_include_pad:
        counted[:, :, : g.H + g.pad_top + g.pad_bottom, : g.W + g.pad_left + g.pad_right] = 1
    else:
        _inner(counted, g)[...] = 1
    return np.asarray(sum(_windows(counted, g)))


def avg_forward(g: Pool2dGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    padded = np.zeros((g.N, g.C, *_extent(g)), x.dtype)
    _inner(padded, g)[...] = x
    y[...] = sum(_windows(padded, g)) / _counts(g, x.dtype)


def avg_backward(g: Pool2dGeometry, gy: Array, gx: Array, workspace: Array | None) -> None:
    padded = np.zeros((g.N, g.C, *_extent(g)), gy.dtype)
    share = gy / _counts(g, gy.dtype)
    for window in _windows(padded, g):
        window += share
    gx[...] = _inner(padded, g)


REGISTRY.add_variant(Variant("max_pool2d_forward", "reference", "windows", max_forward))
REGISTRY.add_variant(Variant("max_pool2d_backward", "reference", "windows", max_backward))
REGISTRY.add_variant(Variant("avg_pool2d_forward", "reference", "windows", avg_forward))
REGISTRY.add_variant(Variant("avg_pool2d_backward", "reference", "windows", avg_backward))
