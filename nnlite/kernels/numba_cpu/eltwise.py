"""Elementwise kernels and optimisers' steps: operands handed to ``jit/rows.py``."""

from __future__ import annotations

import numpy as np

from nnlite.geometry import EltwiseGeometry, FunctionGeometry
from nnlite.kernels.numba_cpu.launch import compiled, floating, session
from nnlite.kernels.numba_cpu.norm import bounds, gate
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array


def _or_empty(array: Array | None, like: Array) -> Array:
    return np.empty(0, like.dtype) if array is None else array


def combine(g: EltwiseGeometry, a: Array, b: Array | None, y: Array, workspace: Array | None) -> None:
    factors = (a.dtype.type(g.alpha), a.dtype.type(g.beta))
    with session():
        compiled("rows").combine(a, _or_empty(b, a), y, *factors, *bounds(g, a.dtype))


def multiply(g: EltwiseGeometry, a: Array, b: Array, y: Array, workspace: Array | None) -> None:
    with session():
        compiled("rows").multiply(a, b, y)


def activation_backward(g: EltwiseGeometry, gy: Array, z: Array, gx: Array, workspace: Array | None) -> None:
    with session():
        compiled("rows").gate(gy, z, gx, gate(g, seen_from_y=False), *bounds(g, z.dtype))


def function_forward(g: FunctionGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    with session():
        compiled("rows").function(x, y, g.function, x.dtype.type(g.a), x.dtype.type(g.b))


def function_backward(g: FunctionGeometry, gy: Array, z: Array, gx: Array, workspace: Array | None) -> None:
    with session():
        compiled("rows").function_gradient(gy, z, gx, g.function, z.dtype.type(g.a), z.dtype.type(g.b))


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
    before, after = _or_empty(velocity, weight), _or_empty(new_velocity, weight)
    with session():
        compiled("rows").sgd(weight, gradient, before, options, new_weight, after)


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
    with session():
        compiled("rows").adam(weight, gradient, mean, square, options, new_weight, new_mean, new_square)


def _serves(g: EltwiseGeometry | FunctionGeometry, dtype: DType) -> str | None:
    return floating(dtype)


for _name, _run in (
    ("combine", combine),
    ("multiply", multiply),
    ("activation_backward", activation_backward),
    ("function_forward", function_forward),
    ("function_backward", function_backward),
    ("sgd_step", sgd_step),
    ("adam_step", adam_step),
):
    REGISTRY.add_variant(Variant(_name, "numba", "run", _run, _serves))
