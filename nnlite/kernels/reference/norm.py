"""Batch normalisation in NumPy, on rows [M,C]. Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167"""

from __future__ import annotations

import numpy as np

from nnlite.geometry import NormGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def training_forward(
    g: NormGeometry,
    x: Array,
    weight: Array,
    bias: Array,
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
    y[...] = centred * (inv_std * weight) + bias


def training_backward(
    g: NormGeometry,
    x: Array,
    gy: Array,
    weight: Array,
    mean: Array,
    inv_std: Array,
    gx: Array | None,
    gweight: Array,
    gbias: Array,
    workspace: Array | None,
) -> None:
    normalised = (x - mean) * inv_std
    gbias[...] = gy.sum(0, dtype=np.float64)
    gweight[...] = (gy * normalised).sum(0, dtype=np.float64)
    if gx is not None:
        gx[...] = (weight * inv_std) * (gy - gbias / g.M - normalised * (gweight / g.M))


def inference_forward(
    g: NormGeometry, x: Array, scale: Array, shift: Array, y: Array, workspace: Array | None
) -> None:
    np.multiply(x, scale, out=y)
    y += shift


def inference_backward(
    g: NormGeometry,
    x: Array,
    gy: Array,
    scale: Array,
    mean: Array,
    inv_std: Array,
    gx: Array | None,
    gweight: Array | None,
    gbias: Array | None,
    workspace: Array | None,
) -> None:
    if gx is not None:
        np.multiply(gy, scale, out=gx)
    if gbias is not None:
        gbias[...] = gy.sum(0, dtype=np.float64)
    if gweight is not None:
        gweight[...] = (gy * ((x - mean) * inv_std)).sum(0, dtype=np.float64)


REGISTRY.add_variant(
    Variant("batch_norm_training_forward", "reference", "numpy", training_forward)
)
REGISTRY.add_variant(
    Variant("batch_norm_training_backward", "reference", "numpy", training_backward)
)
REGISTRY.add_variant(
    Variant("batch_norm_inference_forward", "reference", "numpy", inference_forward)
)
REGISTRY.add_variant(
    Variant("batch_norm_inference_backward", "reference", "numpy", inference_backward)
)
