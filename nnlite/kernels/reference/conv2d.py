"""Convolution in NumPy: one matrix product per kernel tap, no im2col copy of the whole input.

Works in any floating type, so that the same lines are the float64 oracle of every other backend.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnlite.geometry import PRELU, Conv2dGeometry
from nnlite.kernels.reference.eltwise import activate
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def _padded(x: Array, g: Conv2dGeometry) -> Array:
    """x as [N,H+pads,W+pads,groups,C/groups], zeros around it."""
    height, width = g.H + g.pad_top + g.pad_bottom, g.W + g.pad_left + g.pad_right
    padded = np.zeros((g.N, height, width, g.C), x.dtype, like=x)
    _inner(padded, g)[...] = np.moveaxis(x, 1, -1)
    return padded.reshape(g.N, height, width, g.groups, g.C // g.groups)


def _inner(padded: Array, g: Conv2dGeometry) -> Array:
    return padded[:, g.pad_top : g.pad_top + g.H, g.pad_left : g.pad_left + g.W]


def _taps(padded: Array, g: Conv2dGeometry) -> Iterator[tuple[int, int, Array]]:
    """r, s and the view [N,P,Q,groups,C/groups] of the elements that tap (r, s) meets."""
    for r in range(g.R):
        for s in range(g.S):
            top, left = r * g.dilation_h, s * g.dilation_w
            bottom = top + (g.P - 1) * g.stride_h + 1
            right = left + (g.Q - 1) * g.stride_w + 1
            yield r, s, padded[:, top : bottom : g.stride_h, left : right : g.stride_w]


def _by_group(array: Array, g: Conv2dGeometry) -> Array:
    """[N,P,Q,groups,channels] as [groups, N·P·Q, channels], the shape of a batched matrix product."""
    return np.transpose(array.reshape(-1, g.groups, array.shape[-1]), (1, 0, 2))


def _grouped_weight(w: Array, g: Conv2dGeometry) -> Array:
    """w as [groups, K/groups, C/groups, R, S]."""
    return w.reshape(g.groups, g.K // g.groups, g.C // g.groups, g.R, g.S)


def _grouped_output(y: Array, g: Conv2dGeometry) -> Array:
    """y as [N,P,Q,groups,K/groups]."""
    return np.moveaxis(y, 1, -1).reshape(g.N, g.P, g.Q, g.groups, g.K // g.groups)


def forward(
    g: Conv2dGeometry,
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    weight = _grouped_weight(w, g)
    out = np.zeros((g.groups, g.N * g.P * g.Q, g.K // g.groups), x.dtype, like=x)
    for r, s, tap in _taps(_padded(x, g), g):
        # [groups, NPQ, C/groups] @ [groups, C/groups, K/groups]
        if weight.shape[2] == 1:  # depthwise: a product of width 1 is a multiplication
            out += _by_group(tap, g) * weight[:, :, 0, r, s][:, None, :]
        else:
            out += _by_group(tap, g) @ weight[..., r, s].transpose(0, 2, 1)
    result = out.transpose(1, 0, 2).reshape(g.N, g.P, g.Q, g.K)
    np.moveaxis(y, 1, -1)[...] = result
    _finish(g, bias, residual, y)


def _finish(g: Conv2dGeometry, bias: Array | None, residual: Array | None, y: Array) -> None:
    """y = act(y + bias + residual)."""
    slopes = None
    if bias is not None and g.activation == PRELU:
        bias, slopes = bias
    if bias is not None:
        y += bias[:, None, None]
    if residual is not None:
        y += residual
    if g.activation == PRELU:
        y[...] = np.where(y > 0, y, y * (0 if slopes is None else slopes[:, None, None]))
    else:
        activate(g, y, y)


def grad_input(g: Conv2dGeometry, gy: Array, w: Array, gx: Array, workspace: Array | None) -> None:
    weight = _grouped_weight(w, g)
    gradient = _by_group(_grouped_output(gy, g), g)  # [groups, NPQ, K/groups]
    height, width = g.H + g.pad_top + g.pad_bottom, g.W + g.pad_left + g.pad_right
    padded = np.zeros((g.N, height, width, g.groups, g.C // g.groups), gy.dtype, like=gy)
    for r, s, tap in _taps(padded, g):
        product = gradient @ weight[..., r, s]  # [groups, NPQ, C/groups]
        tap += product.transpose(1, 0, 2).reshape(tap.shape)
    inner = _inner(padded.reshape(g.N, height, width, g.C), g)
    np.moveaxis(gx, 1, -1)[...] = inner


def transposed_forward(
    g: Conv2dGeometry,
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    grad_input(g, x, w, y, None)
    _finish(g, bias, residual, y)


def grad_weight(g: Conv2dGeometry, x: Array, gy: Array, gw: Array, workspace: Array | None) -> None:
    gradient = _by_group(_grouped_output(gy, g), g).transpose(0, 2, 1)  # [groups, K/groups, NPQ]
    for r, s, tap in _taps(_padded(x, g), g):
        gw[:, :, r, s] = (gradient @ _by_group(tap, g)).reshape(g.K, g.C // g.groups)


REGISTRY.add_variant(Variant("conv2d_forward", "reference", "taps", forward))
REGISTRY.add_variant(Variant("conv_transpose2d_forward", "reference", "taps", transposed_forward))
REGISTRY.add_variant(Variant("conv2d_grad_input", "reference", "taps", grad_input))
REGISTRY.add_variant(Variant("conv2d_grad_weight", "reference", "taps", grad_weight))
