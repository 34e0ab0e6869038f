"""Batch normalisation in NumPy, on rows [M,C]. Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167"""

from __future__ import annotations

import numpy as np

from nnlite.geometry import CLAMP, NO_ACTIVATION, NormGeometry
from nnlite.kernels.reference.eltwise import activate, passes
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def _passed(g: NormGeometry, gy: Array, y: Array | None, z: Array) -> Array:
    """gy where the activation lets it pass."""
    if g.activation == NO_ACTIVATION:
        return gy
    mask = passes(g, z if y is None else y)
    if y is not None and g.activation == CLAMP:
        mask = (y > g.low) & (y < g.high)
    return np.where(mask, gy, gy.dtype.type(0))


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
    # Two passes: the one-pass formula E[x^2] - E[x]^2 cancels where |mean| is large.
    mean[...] = x.mean(0, dtype=np.float64)
    centred = x - mean
    variance = np.square(centred, dtype=np.float64).mean(0)
    inv_std[...] = 1 / np.sqrt(variance + g.epsilon)
    z = centred * (inv_std * weight) + bias
    activate(g, z if residual is None else z + residual, y)


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
    centred = x - mean
    passed = _passed(g, gy, y, centred * (inv_std * weight) + bias)
    normalised = centred * inv_std
    if gresidual is not None:
        gresidual[...] = passed
    gbias[...] = passed.sum(0, dtype=np.float64)
    gweight[...] = (passed * normalised).sum(0, dtype=np.float64)
    if gx is not None:
        gx[...] = (weight * inv_std) * (passed - gbias / g.M - normalised * (gweight / g.M))


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
    np.multiply(x if mean is None else x - mean, scale, out=y)
    y += shift
    if residual is not None:
        y += residual
    activate(g, y, y)


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
    passed = _passed(g, gy, y, x * scale + shift)
    if gresidual is not None:
        gresidual[...] = passed
    if gx is not None:
        np.multiply(passed, scale, out=gx)
    if gbias is not None:
        gbias[...] = passed.sum(0, dtype=np.float64)
    if gweight is not None:
        gweight[...] = (passed * ((x - mean) * inv_std)).sum(0, dtype=np.float64)


def channel_sum(g: NormGeometry, x: Array, total: Array, workspace: Array | None) -> None:
    total[...] = x.sum(0, dtype=np.float64)


for _kernel, _run in (
    ("batch_norm_training_forward", training_forward),
    ("batch_norm_training_backward", training_backward),
    ("batch_norm_inference_forward", inference_forward),
    ("batch_norm_inference_backward", inference_backward),
    ("channel_sum", channel_sum),
):
    REGISTRY.add_variant(Variant(_kernel, "reference", "numpy", _run))
