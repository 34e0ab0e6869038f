"""The three matrix products of a convolution: what stands at (i, d) and (d, j), and where sums go.

x [N,H,W,C], w [K,R,S,C/groups], y and gy [N,P,Q,K] as they lie in memory; ``g`` is the geometry's integers.
"""

from __future__ import annotations

from typing import Any

from numba import cuda

from nnlite.kernels.numba_cuda.jit.product import product


@cuda.jit(device=True)
def pixel(x, row, element, group, g):  # type: ignore[no-untyped-def]
    """What (r, s, c) = ``element`` of the window of (n, p, q) = ``row`` meets: x, or 0 in the padding."""
    _, C, H, W, _, _, S, P, Q, stride_h, stride_w, top, left, _, _, dilation_h, dilation_w, groups = g
    ins = C // groups
    n, p, q = row // (P * Q), row // Q % P, row % Q
    r, s, c = element // (S * ins), element // ins % S, element % ins
    h, w = p * stride_h - top + r * dilation_h, q * stride_w - left + s * dilation_w
    if h < 0 or h >= H or w < 0 or w >= W:
        return x.dtype.type(0)
    return x[((n * H + h) * W + w) * C + group * ins + c]


# -------------------------------------------------------------- y[(n,p,q), k] = sum_(r,s,c) x · w[k, (r,s,c)]


@cuda.jit(device=True)
def forward_sizes(g):  # type: ignore[no-untyped-def]
    N, C, _, _, K, R, S, P, Q, _, _, _, _, _, _, _, _, groups = g
    return N * P * Q, K // groups, R * S * (C // groups)


@cuda.jit(device=True)
def weight(w, element, k, group, g):  # type: ignore[no-untyped-def]
    _, C, _, _, K, R, S, _, _, _, _, _, _, _, _, _, _, groups = g
    return w[(group * (K // groups) + k) * (R * S * (C // groups)) + element]


@cuda.jit(device=True)
def finish(y, row, k, total, bias, residual, low, high, group, g):  # type: ignore[no-untyped-def]
    """Bias, residual and the bounds of an activation; a NaN stays one."""
    K, groups = g[4], g[17]
    channel = group * (K // groups) + k
    if bias.size:
        total += bias[channel]
    if residual.size:
        total += residual[row * K + channel]
    if total < low:
        total = low
    elif total > high:
        total = high
    y[row * K + channel] = total


# ------------------------------------------------------------ gx[(n,h,w), c] = sum_(r,s,k) gy · w[k, r, s, c]


@cuda.jit(device=True)
def input_sizes(g):  # type: ignore[no-untyped-def]
    N, C, H, W, K, R, S, _, _, _, _, _, _, _, _, _, _, groups = g
    return N * H * W, C // groups, R * S * (K // groups)


@cuda.jit(device=True)
def gradient(gy, row, element, group, g):  # type: ignore[no-untyped-def]
    """gy of the output whose tap (r, s) meets input ``row`` = (n, h, w): 0 where none does."""
    _, _, H, W, K, _, S, P, Q, stride_h, stride_w, top, left, _, _, dilation_h, dilation_w, groups = g
    outs = K // groups
    n, h, w = row // (H * W), row // W % H, row % W
    r, s, k = element // (S * outs), element // outs % S, element % outs
    p, q = h + top - r * dilation_h, w + left - s * dilation_w
    if p < 0 or q < 0 or p % stride_h or q % stride_w or p // stride_h >= P or q // stride_w >= Q:
        return gy.dtype.type(0)
    return gy[((n * P + p // stride_h) * Q + q // stride_w) * K + group * outs + k]


@cuda.jit(device=True)
def weight_by_input(w, element, c, group, g):  # type: ignore[no-untyped-def]
    _, C, _, _, K, R, S, _, _, _, _, _, _, _, _, _, _, groups = g
    outs, ins = K // groups, C // groups
    tap, k = element // outs, element % outs
    return w[((group * outs + k) * R * S + tap) * ins + c]


@cuda.jit(device=True)
def store_input(gx, row, c, total, bias, residual, low, high, group, g):  # type: ignore[no-untyped-def]
    C, groups = g[1], g[17]
    gx[row * C + group * (C // groups) + c] = total


# ------------------------------------------------------------ gw[k, (r,s,c)] = sum_(n,p,q) gy[(n,p,q), k] · x


@cuda.jit(device=True)
def weight_sizes(g):  # type: ignore[no-untyped-def]
    N, C, _, _, K, R, S, P, Q, _, _, _, _, _, _, _, _, groups = g
    return K // groups, R * S * (C // groups), N * P * Q


@cuda.jit(device=True)
def gradient_column(gy, k, row, group, g):  # type: ignore[no-untyped-def]
    K, groups = g[4], g[17]
    return gy[row * K + group * (K // groups) + k]


@cuda.jit(device=True)
def store_weight(gw, k, element, total, bias, residual, low, high, group, g):  # type: ignore[no-untyped-def]
    _, C, _, _, K, R, S, _, _, _, _, _, _, _, _, _, _, groups = g
    gw[(group * (K // groups) + k) * (R * S * (C // groups)) + element] = total


def kernel(which: str, dtype: str) -> Any:
    """The compiled kernel of one pass."""
    return product(*PASSES[which], dtype)


PASSES = {
    "forward": (forward_sizes, pixel, weight, finish),
    "grad_input": (input_sizes, gradient, weight_by_input, store_input),
    "grad_weight": (weight_sizes, gradient_column, pixel, store_weight),
}
