"""Steps of optimisers in NumPy."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import EltwiseGeometry
from nnlite.kernels.spec import REGISTRY, Variant
from nnlite.layout import Array


def sgd_step(
    g: EltwiseGeometry,
    weight: Array,
    gradient: Array,
    velocity: Array | None,
    options: Array,
    new_weight: Array,
    new_velocity: Array | None,
    workspace: Array | None,
) -> None:
    lr, decay, momentum, keep, nesterov = options
    # Without decay an infinite weight must not make a NaN of the gradient.
    slope = gradient + decay * weight if decay else gradient
    step = slope if velocity is None else momentum * velocity + keep * slope
    if new_velocity is not None:
        new_velocity[...] = step
    if nesterov:
        step = slope + momentum * step
    np.subtract(weight, lr * step, out=new_weight)


def adam_step(
    g: EltwiseGeometry,
    weight: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    options: Array,
    new_weight: Array,
    new_mean: Array,
    new_square: Array,
    workspace: Array | None,
) -> None:
    shrink, decay, b1, rest1, b2, rest2, root_scale, epsilon, rate = options
    shrunk = shrink * weight if shrink != 1 else weight
    slope = gradient + decay * shrunk if decay else gradient
    new_mean[...] = b1 * mean + rest1 * slope
    new_square[...] = b2 * square + rest2 * (slope * slope)
    np.subtract(shrunk, rate * new_mean / (root_scale * np.sqrt(new_square) + epsilon), out=new_weight)


REGISTRY.add_variant(Variant("sgd_step", "reference", "numpy", sgd_step))
REGISTRY.add_variant(Variant("adam_step", "reference", "numpy", adam_step))
