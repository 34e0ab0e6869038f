"""Depthwise convolution: one input and one output channel per group, so that all loops run over channels.

A result in memory is read and written once for three products: with one product each, reading and
writing it is what takes the time.
"""

from __future__ import annotations

from numba import prange

from nnlite.kernels.numba_cpu.jit.options import borrow, helper, parallel
from nnlite.layout import Array

Ints = tuple[int, ...]


@helper
def _add(y: Array, x: Array, w: Array, at: Ints, tap: Ints) -> None:
    """y [C] += the products of three vectors x[at:at+C] and three rows w[tap:tap+C]."""
    C = y.size
    x0, x1, x2 = x[at[0] : at[0] + C], x[at[1] : at[1] + C], x[at[2] : at[2] + C]
    w0, w1, w2 = w[tap[0] : tap[0] + C], w[tap[1] : tap[1] + C], w[tap[2] : tap[2] + C]
    for c in range(C):
        y[c] = y[c] + x0[c] * w0[c] + x1[c] * w1[c] + x2[c] * w2[c]


@helper
def _add_one(y: Array, x: Array, w: Array, at: int, tap: int) -> None:
    C = y.size
    x0, w0 = x[at : at + C], w[tap : tap + C]
    for c in range(C):
        y[c] += x0[c] * w0[c]


@parallel
def gather(
    x: Array, w: Array, bias: Array, y: Array, source: Ints, target: Ints, walk: Ints, RS: Ints
) -> None:
    """y = bias + sum over taps of gathered x times w [R·S,C]; the walk is that of ``gemm.gather_product``."""
    H, W, C = source
    height, wide, _, N = target
    scale_h, scale_w, shift_h, shift_w, step_h, step_w, divisor_h, divisor_w = walk
    R, S = RS
    for line in prange(N * height):
        inputs, weights, outputs = borrow(x), borrow(w), borrow(y)
        n, h0 = line // height, line % height * scale_h + shift_h
        for q in range(wide):
            w0 = q * scale_w + shift_w
            start = (line * wide + q) * C
            to = outputs[start : start + C]
            for c in range(C):
                to[c] = 0
            if bias.size:
                for c in range(C):
                    to[c] = bias[c]
            waiting, at0, at1, tap0, tap1 = 0, 0, 0, 0, 0
            for r in range(R):
                h = h0 + r * step_h
                if h < 0 or h >= H * divisor_h or h % divisor_h:
                    continue
                for s in range(S):
                    v = w0 + s * step_w
                    if v < 0 or v >= W * divisor_w or v % divisor_w:
                        continue
                    at = ((n * H + h // divisor_h) * W + v // divisor_w) * C
                    tap = (r * S + s) * C
                    if waiting == 0:
                        at0, tap0, waiting = at, tap, 1
                    elif waiting == 1:
                        at1, tap1, waiting = at, tap, 2
                    else:
                        _add(to, inputs, weights, (at0, at1, at), (tap0, tap1, tap))
                        waiting = 0
            if waiting > 0:
                _add_one(to, inputs, weights, at0, tap0)
            if waiting > 1:
                _add_one(to, inputs, weights, at1, tap1)


@parallel
def weight_sums(
    x: Array, gy: Array, partial: Array, source: Ints, target: Ints, walk: Ints, RS: Ints
) -> None:
    """partial [chunks,R·S·C]: sums over a chunk's output rows of gathered x times gy."""
    H, W, C = source
    height, wide, _, N = target
    scale_h, scale_w, shift_h, shift_w, step_h, step_w, _, _ = walk
    R, S = RS
    chunks, lines = partial.shape[0], N * height
    for chunk in prange(chunks):
        inputs, gradients, sums = borrow(x), borrow(gy), borrow(partial)[chunk]
        sums[:] = 0
        for line in range(lines * chunk // chunks, lines * (chunk + 1) // chunks):
            n, h0 = line // height, line % height * scale_h + shift_h
            for r in range(R):
                h = h0 + r * step_h
                if h < 0 or h >= H:
                    continue
                for s in range(S):
                    # the columns q whose source column lies inside
                    left = shift_w + s * step_w
                    low = max(0, (-left + scale_w - 1) // scale_w)
                    high = min(wide, (W - 1 - left) // scale_w + 1)
                    to = sums[(r * S + s) * C : (r * S + s + 1) * C]
                    row, step = ((n * H + h) * W + left) * C, scale_w * C
                    q = low
                    while q + 3 <= high:
                        at, g = row + q * step, (line * wide + q) * C
                        _add(to, inputs, gradients, (at, at + step, at + 2 * step), (g, g + C, g + 2 * C))
                        q += 3
                    while q < high:
                        _add_one(to, inputs, gradients, row + q * step, (line * wide + q) * C)
                        q += 1
