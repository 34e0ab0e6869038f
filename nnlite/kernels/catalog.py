"""The rows of convolution and pooling: what a kernel computes, its operands, cost, tolerance, samples.

Arrays are channels-last (``nnlite.layout``). Operands that may be None are listed as optional. The
rows of everything that sees its arrays as rows [M,C] or as runs of numbers stand in ``catalog_rows``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnlite.geometry import PRELU, Conv2dGeometry, Pool2dGeometry, Shape
from nnlite.kernels.samples import (
    conv2d_forward_samples,
    conv2d_samples,
    conv_transpose2d_samples,
    pool2d_samples,
)
from nnlite.kernels.spec import REGISTRY, DType, KernelSpec, Types
from nnlite.layout import Array

FLOAT32_EPSILON = 2.0**-24


def sum_tolerance(length: int) -> float:
    """The error of a sum of ``length`` products in float32, relative to the result."""
    # Rounding errors of a sum of n products grow like sqrt(n) in practice; 8 leaves room for tails.
    return 8 * FLOAT32_EPSILON * float(np.sqrt(max(length, 1)))


# --------------------------------------------------------------------------------- convolution


def _bias_shape(g: Conv2dGeometry, channels: int) -> Shape:
    return (2, channels) if g.activation == PRELU else (channels,)


def _conv2d_types(g: Conv2dGeometry, dtype: DType) -> Types:
    return {
        "x": (g.x_shape, dtype),
        "w": (g.w_shape, dtype),
        "bias": (_bias_shape(g, g.K), dtype),
        "residual": (g.y_shape, dtype),
        "y": (g.y_shape, dtype),
        "gy": (g.y_shape, dtype),
        "gx": (g.x_shape, dtype),
        "gw": (g.w_shape, dtype),
    }


def _transposed_types(g: Conv2dGeometry, dtype: DType) -> Types:
    return {
        "x": (g.y_shape, dtype),
        "w": (g.w_shape, dtype),
        "bias": (_bias_shape(g, g.C), dtype),
        "residual": (g.x_shape, dtype),
        "y": (g.x_shape, dtype),
    }


def _sum_scale(name: str, inputs: Mapping[str, Array | None], expected: Array) -> float:
    # An activation hides how large the sums were that were rounded: three deviations, as far as is known.
    x, w = inputs["x"], inputs["w"]
    assert x is not None and w is not None
    sums = 3 * float(np.sqrt(np.mean(np.square(x)) * np.mean(np.square(w)) * w[0].size)) if x.size else 0.0
    return max(sums, float(np.abs(expected).max(initial=0)))


REGISTRY.add_spec(
    KernelSpec(
        name="conv2d_forward",
        formula="y[n,k,p,q] = act(bias[k] + sum_crs w[k,c,r,s] x[n, c, p·stride_h + r·dilation_h - pad_top,"
        " q·stride_w + s·dilation_w - pad_left] + residual[n,k,p,q]), c over the C/groups channels of k's"
        " group; behind PReLU bias is [2,K], its second row the slopes below 0",
        inputs=("x", "w", "bias", "residual"),
        outputs=("y",),
        optional=frozenset({"bias", "residual"}),
        types=_conv2d_types,
        flops=lambda g: 2 * g.macs,
        tolerance=lambda g: sum_tolerance(g.C // g.groups * g.R * g.S + 1),
        samples=conv2d_forward_samples,
        scale=_sum_scale,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="conv2d_grad_input",
        formula="gx[n,c,h,w] = sum over k,r,s,p,q with h = p·stride_h + r·dilation_h - pad_top and"
        " w = q·stride_w + s·dilation_w - pad_left of w[k,c,r,s] gy[n,k,p,q]",
        inputs=("gy", "w"),
        outputs=("gx",),
        types=_conv2d_types,
        flops=lambda g: 2 * g.macs,
        tolerance=lambda g: sum_tolerance(g.K // g.groups * g.R * g.S),
        samples=conv2d_samples,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="conv_transpose2d_forward",
        formula="y = act(gx + bias[c] + residual[n,c,h,w]), where gx is conv2d_grad_input's with x as gy;"
        " behind PReLU bias is [2,C], its second row the slopes below 0",
        inputs=("x", "w", "bias", "residual"),
        outputs=("y",),
        optional=frozenset({"bias", "residual"}),
        types=_transposed_types,
        flops=lambda g: 2 * g.macs,
        tolerance=lambda g: sum_tolerance(g.K // g.groups * g.R * g.S + 1),
        samples=conv_transpose2d_samples,
        scale=_sum_scale,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="conv2d_grad_weight",
        formula="gw[k,c,r,s] = sum_npq gy[n,k,p,q] x[n, c, p·stride_h + r·dilation_h - pad_top,"
        " q·stride_w + s·dilation_w - pad_left]",
        inputs=("x", "gy"),
        outputs=("gw",),
        types=_conv2d_types,
        flops=lambda g: 2 * g.macs,
        tolerance=lambda g: sum_tolerance(g.N * g.P * g.Q),
        samples=conv2d_samples,
    )
)

# ------------------------------------------------------------------------------------- pooling


def _pool2d_types(g: Pool2dGeometry, dtype: DType) -> Types:
    return {
        "x": (g.x_shape, dtype),
        "y": (g.y_shape, dtype),
        "indices": (g.y_shape, np.dtype(np.int32)),
        "gy": (g.y_shape, dtype),
        "gx": (g.x_shape, dtype),
    }


def _max_pool_backward_inputs(g: Pool2dGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # One random position of each window that lies inside the input.
    def positions(out: int, stride: int, before: int, kernel: int, dilation: int, size: int) -> Array:
        at = np.arange(out)[:, None] * stride - before + np.arange(kernel) * dilation
        inside = (at >= 0) & (at < size)
        shape = (g.N, g.C, out)
        choice = np.argmax(rng.random((*shape, kernel)) * inside, axis=-1)
        chosen: Array = np.take_along_axis(np.broadcast_to(at, (*shape, kernel)), choice[..., None], -1)
        return chosen[..., 0]

    rows = positions(g.P, g.stride_h, g.pad_top, g.R, g.dilation_h, g.H)
    columns = positions(g.Q, g.stride_w, g.pad_left, g.S, g.dilation_w, g.W)
    indices = rows[:, :, :, None] * g.W + columns[:, :, None, :]
    shape, dtype = types["gy"]
    return {"gy": rng.standard_normal(shape).astype(dtype), "indices": indices.astype(np.int32)}


REGISTRY.add_spec(
    KernelSpec(
        name="max_pool2d_forward",
        formula="y[n,c,p,q] = max_rs x[n, c, p·stride_h + r·dilation_h - pad_top, ...]; indices holds"
        " h·W + w of the first maximum in row-major order of the window; a NaN wins, padding never",
        inputs=("x",),
        outputs=("y", "indices"),
        optional=frozenset({"indices"}),
        types=_pool2d_types,
        flops=lambda g: g.N * g.C * g.P * g.Q * g.R * g.S,
        tolerance=lambda g: 0.0,
        samples=lambda: pool2d_samples(average=False),
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="max_pool2d_backward",
        formula="gx[n,c,h,w] = sum of gy[n,c,p,q] over the p,q whose indices[n,c,p,q] = h·W + w",
        inputs=("gy", "indices"),
        outputs=("gx",),
        types=_pool2d_types,
        flops=lambda g: g.N * g.C * g.P * g.Q,
        tolerance=lambda g: sum_tolerance(g.R * g.S),
        samples=lambda: pool2d_samples(average=False),
        make_inputs=_max_pool_backward_inputs,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="avg_pool2d_forward",
        formula="y[n,c,p,q] = (sum of x over the window) / count; count is the number of window elements"
        " inside the input, or with count_include_pad inside the padded input (overhang by ceil_mode"
        " never counts)",
        inputs=("x",),
        outputs=("y",),
        types=_pool2d_types,
        flops=lambda g: g.N * g.C * g.P * g.Q * g.R * g.S,
        tolerance=lambda g: sum_tolerance(g.R * g.S),
        samples=lambda: pool2d_samples(average=True),
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="avg_pool2d_backward",
        formula="gx[n,c,h,w] = sum of gy[n,c,p,q] / count(p,q) over the windows p,q that hold h,w",
        inputs=("gy",),
        outputs=("gx",),
        types=_pool2d_types,
        flops=lambda g: g.N * g.C * g.P * g.Q * g.R * g.S,
        tolerance=lambda g: sum_tolerance(g.R * g.S),
        samples=lambda: pool2d_samples(average=True),
    )
)
