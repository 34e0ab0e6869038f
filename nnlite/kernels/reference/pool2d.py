"""Pooling in NumPy: one vectorised step per window element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nnlite.geometry import Pool2dGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def _first_and_count(
    out: int, size: int, kernel: int, stride: int, before: int, dilation: int
) -> tuple[int, int]:
    """Which elements of a window meet the input for some output: the first, and how many from there on."""
    first = max(0, min(-(-(before - (out - 1) * stride) // dilation), before // dilation))
    last = min(kernel - 1, (size - 1 + before) // dilation)
    return first, last - first + 1


def _meeting(g: Pool2dGeometry) -> Pool2dGeometry:
    """``g`` without the rows and columns of its window that meet nothing but padding: they may be many."""
    top, R = _first_and_count(g.P, g.H, g.R, g.stride_h, g.pad_top, g.dilation_h)
    left, S = _first_and_count(g.Q, g.W, g.S, g.stride_w, g.pad_left, g.dilation_w)
    return replace(
        g, R=R, S=S, pad_top=g.pad_top - top * g.dilation_h, pad_left=g.pad_left - left * g.dilation_w,
        pad_bottom=0, pad_right=0,
    )  # fmt: skip


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
    g = _meeting(g)
    height, width = _extent(g)
    padded = np.full_like(x, -np.inf, x.dtype, "C", shape=(g.N, g.C, height, width))
    _inner(padded, g)[...] = x
    at = np.full_like(x, -1, np.int32, "C", shape=(1, 1, height, width))
    _inner(at, g)[0, 0] = np.arange(g.H * g.W, dtype=np.int32, like=x).reshape(g.H, g.W)
    best: Array | None = None
    where = np.empty((g.N, g.C, g.P, g.Q), np.int32, like=x)
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
    planes = np.arange(g.N * g.C, like=indices).reshape(g.N, g.C, 1, 1) * (g.H * g.W)
    at = (planes + indices).ravel()
    # bincount adds in float64, whatever gy is
    total = np.bincount(at, gy.ravel(), minlength=g.N * g.C * g.H * g.W)
    gx[...] = total.reshape(g.x_shape)


def _count(out: int, kernel: int, stride: int, before: int, dilation: int, begin: int, end: int) -> Array:
    """For each output along an axis how many of its window's elements lie within [begin, end)."""
    start = np.arange(out) * stride - before
    first = np.maximum(-((start - begin) // dilation), 0)
    last = np.minimum((end - 1 - start) // dilation, kernel - 1)
    count: Array = np.maximum(last - first + 1, 0)
    return count


def _counts(g: Pool2dGeometry, x: Array) -> Array:
    """Number of elements that each window averages over, [1,1,P,Q], of x's type and beside it."""
    inside = not g.count_include_pad
    rows = (0, g.H) if inside else (-g.pad_top, g.H + g.pad_bottom)
    columns = (0, g.W) if inside else (-g.pad_left, g.W + g.pad_right)
    by_row = _count(g.P, g.R, g.stride_h, g.pad_top, g.dilation_h, *rows)
    by_column = _count(g.Q, g.S, g.stride_w, g.pad_left, g.dilation_w, *columns)
    return np.asarray(np.multiply.outer(by_row, by_column)[None, None], x.dtype, like=x)


def avg_forward(g: Pool2dGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    counts, g = _counts(g, x), _meeting(g)
    padded = np.zeros((g.N, g.C, *_extent(g)), x.dtype, like=x)
    _inner(padded, g)[...] = x
    y[...] = sum(_windows(padded, g)) / counts


def avg_backward(g: Pool2dGeometry, gy: Array, gx: Array, workspace: Array | None) -> None:
    share, g = gy / _counts(g, gy), _meeting(g)
    padded = np.zeros((g.N, g.C, *_extent(g)), gy.dtype, like=gy)
    for window in _windows(padded, g):
        window += share
    gx[...] = _inner(padded, g)


REGISTRY.add_variant(Variant("max_pool2d_forward", "reference", "windows", max_forward))
REGISTRY.add_variant(Variant("max_pool2d_backward", "reference", "windows", max_backward))
REGISTRY.add_variant(Variant("avg_pool2d_forward", "reference", "windows", avg_forward))
REGISTRY.add_variant(Variant("avg_pool2d_backward", "reference", "windows", avg_backward))
