"""Pooling: loops over channels innermost, one task per output row, input row or image."""

from __future__ import annotations

import numpy as np
from numba import prange

from nnlite.kernels.numba_cpu.jit.options import borrow, helper, parallel
from nnlite.layout import Array

Ints = tuple[int, ...]
CHANNELS = 32  # of one task of max_backward: whole cache lines


@helper
def _taps(start: int, low: int, high: int, kernel: int, dilation: int) -> tuple[int, int]:
    """The taps k of a window, from the first to one past the last, with low <= start + k·dilation < high.

    A file may ask for windows far beyond its picture: what meets nothing is never looked at.
    """
    first = max(0, -((start - low) // dilation))
    end = min(kernel, -((start - high) // dilation))
    return first, max(first, end)


@parallel
def max_forward(x: Array, y: Array, indices: Array, geometry: Ints) -> None:
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, _, _, dilation_h, dilation_w, _ = geometry
    for line in prange(N * P):
        inputs, outputs, places = borrow(x), borrow(y), borrow(indices)
        n, h0 = line // P, line % P * stride_h - top
        r_begin, r_end = _taps(h0, 0, H, R, dilation_h)
        for q in range(Q):
            w0 = q * stride_w - left
            s_begin, s_end = _taps(w0, 0, W, S, dilation_w)
            start = (line * Q + q) * C
            best = outputs[start : start + C]
            where = places[start : start + C] if indices.size else places
            first = True
            for r in range(r_begin, r_end):
                h = h0 + r * dilation_h
                for s in range(s_begin, s_end):
                    w = w0 + s * dilation_w
                    at = np.int32(h * W + w)
                    base = ((n * H + h) * W + w) * C
                    values = inputs[base : base + C]
                    if first:
                        first = False
                        best[:] = values
                        where[:] = at
                    elif indices.size:
                        for c in range(C):
                            v, b = values[c], best[c]
                            wins = v > b or (v != v and b == b)  # a NaN, unless one was there already
                            best[c] = v if wins else b
                            where[c] = at if wins else where[c]
                    else:
                        for c in range(C):
                            v, b = values[c], best[c]
                            best[c] = v if v > b or (v != v and b == b) else b


@parallel
def max_backward(gy: Array, indices: Array, gx: Array, geometry: Ints) -> None:
    N, C, H, W, _, _, P, Q, _, _, _, _, _, _, _, _, _ = geometry
    parts = (C + CHANNELS - 1) // CHANNELS
    # Windows overlap: whoever adds into an image's channels adds all of them, in the order of the windows.
    for task in prange(N * parts):
        gradients, places, outputs = borrow(gy), borrow(indices), borrow(gx)
        n, c0 = task // parts, task % parts * CHANNELS
        count = min(CHANNELS, C - c0)
        for position in range(n * H * W, (n + 1) * H * W):
            outputs[position * C + c0 : position * C + c0 + count] = 0
        image = outputs[n * H * W * C : (n + 1) * H * W * C]
        for window in range(n * P * Q, (n + 1) * P * Q):
            values = gradients[window * C + c0 : window * C + c0 + count]
            where = places[window * C + c0 : window * C + c0 + count]
            for c in range(count):
                image[np.int64(where[c]) * C + c0 + c] += values[c]


@helper
def _count(
    o: int, size: int, kernel: int, stride: int, before: int, after: int, dilation: int, padded: int
) -> int:
    """Elements along one axis that the window of output ``o`` averages over."""
    low, high = (-before, size + after) if padded else (0, size)
    first, end = _taps(o * stride - before, low, high, kernel, dilation)
    return end - first


@parallel
def avg_forward(x: Array, y: Array, geometry: Ints) -> None:
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, pad = (
        geometry
    )
    for line in prange(N * P):
        inputs, outputs = borrow(x), borrow(y)
        n, p = line // P, line % P
        rows = _count(p, H, R, stride_h, top, bottom, dilation_h, pad)
        h0 = p * stride_h - top
        r_begin, r_end = _taps(h0, 0, H, R, dilation_h)
        for q in range(Q):
            w0 = q * stride_w - left
            s_begin, s_end = _taps(w0, 0, W, S, dilation_w)
            start = (line * Q + q) * C
            to = outputs[start : start + C]
            to[:] = 0
            for r in range(r_begin, r_end):
                h = h0 + r * dilation_h
                for s in range(s_begin, s_end):
                    w = w0 + s * dilation_w
                    base = ((n * H + h) * W + w) * C
                    values = inputs[base : base + C]
                    for c in range(C):
                        to[c] += values[c]
            divisor = to.dtype.type(rows * _count(q, W, S, stride_w, left, right, dilation_w, pad))
            for c in range(C):
                to[c] /= divisor


@parallel
def avg_backward(gy: Array, gx: Array, geometry: Ints) -> None:
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, pad = (
        geometry
    )
    for line in prange(N * H):
        gradients, outputs = borrow(gy), borrow(gx)
        n, h = line // H, line % H
        start = line * W * C
        outputs[start : start + W * C] = 0
        # Taps by which a window [0, P) reaches row h: 0 <= h + top - r·dilation <= (P - 1)·stride.
        r_begin = max(0, -(((P - 1) * stride_h - h - top) // dilation_h))
        for r in range(r_begin, min(R, (h + top) // dilation_h + 1)):
            p = h + top - r * dilation_h
            if p % stride_h:
                continue
            p //= stride_h
            rows = _count(p, H, R, stride_h, top, bottom, dilation_h, pad)
            for q in range(Q):
                count = rows * _count(q, W, S, stride_w, left, right, dilation_w, pad)
                share = outputs.dtype.type(1) / outputs.dtype.type(count)
                base = ((n * P + p) * Q + q) * C
                values = gradients[base : base + C]
                w0 = q * stride_w - left
                s_begin, s_end = _taps(w0, 0, W, S, dilation_w)
                for s in range(s_begin, s_end):
                    w = w0 + s * dilation_w
                    to = outputs[start + w * C : start + (w + 1) * C]
                    for c in range(C):
                        to[c] += values[c] * share
