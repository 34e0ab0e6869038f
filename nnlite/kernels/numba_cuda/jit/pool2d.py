"""Pooling: a thread for each number that is written, so that no two threads add into one place.

Threads of a warp take neighbouring channels: what they read and write is one piece of memory.
"""

from __future__ import annotations

from numba import cuda


@cuda.jit(device=True)
def first_tap(start, low, dilation):  # type: ignore[no-untyped-def]
    """The least k >= 0 with start + k·dilation >= low."""
    return max(0, -((start - low) // dilation))


@cuda.jit(device=True)
def end_tap(start, high, kernel, dilation):  # type: ignore[no-untyped-def]
    """One past the last k < kernel with start + k·dilation < high."""
    return min(kernel, -((start - high) // dilation))


@cuda.jit(device=True)
def count(o, size, kernel, stride, before, after, dilation, padded):  # type: ignore[no-untyped-def]
    """Elements along one axis that the window of output ``o`` averages over."""
    start = o * stride - before
    low, high = (-before, size + after) if padded else (0, size)
    return max(0, end_tap(start, high, kernel, dilation) - first_tap(start, low, dilation))


@cuda.jit
def max_forward(x, y, indices, g):  # type: ignore[no-untyped-def]
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, _, _, dilation_h, dilation_w, _ = g
    at = cuda.grid(1)
    if at >= N * P * Q * C:
        return
    c, q, p, n = at % C, at // C % Q, at // (C * Q) % P, at // (C * Q * P)
    h0, w0 = p * stride_h - top, q * stride_w - left
    where, best = -1, x[0]
    for r in range(first_tap(h0, 0, dilation_h), end_tap(h0, H, R, dilation_h)):
        h = h0 + r * dilation_h
        for s in range(first_tap(w0, 0, dilation_w), end_tap(w0, W, S, dilation_w)):
            w = w0 + s * dilation_w
            value = x[((n * H + h) * W + w) * C + c]
            # a NaN wins, unless one was there already
            if where < 0 or value > best or (value != value and best == best):
                where, best = h * W + w, value
    y[at] = best
    if indices.size:
        indices[at] = where


@cuda.jit(device=True)
def window_begin(h, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    """The first output whose window may reach position ``h``."""
    return max(0, -((dilation * (kernel - 1) - before - h) // stride))


@cuda.jit
def max_backward(gy, indices, gx, g):  # type: ignore[no-untyped-def]
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, _, _, dilation_h, dilation_w, _ = g
    at = cuda.grid(1)
    if at >= N * H * W * C:
        return
    c, w, h, n = at % C, at // C % W, at // (C * W) % H, at // (C * W * H)
    total = gx.dtype.type(0)
    for p in range(window_begin(h, R, stride_h, top, dilation_h), min(P, (h + top) // stride_h + 1)):
        for q in range(window_begin(w, S, stride_w, left, dilation_w), min(Q, (w + left) // stride_w + 1)):
            window = ((n * P + p) * Q + q) * C + c
            if indices[window] == h * W + w:
                total += gy[window]
    gx[at] = total


@cuda.jit
def avg_forward(x, y, g):  # type: ignore[no-untyped-def]
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, padded = g
    at = cuda.grid(1)
    if at >= N * P * Q * C:
        return
    c, q, p, n = at % C, at // C % Q, at // (C * Q) % P, at // (C * Q * P)
    h0, w0 = p * stride_h - top, q * stride_w - left
    total = y.dtype.type(0)
    for r in range(first_tap(h0, 0, dilation_h), end_tap(h0, H, R, dilation_h)):
        h = h0 + r * dilation_h
        for s in range(first_tap(w0, 0, dilation_w), end_tap(w0, W, S, dilation_w)):
            total += x[((n * H + h) * W + w0 + s * dilation_w) * C + c]
    taps = count(p, H, R, stride_h, top, bottom, dilation_h, padded)
    y[at] = total / y.dtype.type(taps * count(q, W, S, stride_w, left, right, dilation_w, padded))


@cuda.jit
def avg_backward(gy, gx, g):  # type: ignore[no-untyped-def]
    N, C, H, W, R, S, P, Q, stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, padded = g
    at = cuda.grid(1)
    if at >= N * H * W * C:
        return
    c, w, h, n = at % C, at // C % W, at // (C * W) % H, at // (C * W * H)
    total = gx.dtype.type(0)
    for p in range(window_begin(h, R, stride_h, top, dilation_h), min(P, (h + top) // stride_h + 1)):
        if (h + top - p * stride_h) % dilation_h:
            continue
        rows = count(p, H, R, stride_h, top, bottom, dilation_h, padded)
        for q in range(window_begin(w, S, stride_w, left, dilation_w), min(Q, (w + left) // stride_w + 1)):
            if (w + left - q * stride_w) % dilation_w:
                continue
            taps = rows * count(q, W, S, stride_w, left, right, dilation_w, padded)
            total += gy[((n * P + p) * Q + q) * C + c] / gx.dtype.type(taps)
    gx[at] = total
