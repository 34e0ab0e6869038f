"""Elementwise kernels and steps of optimisers on CuPy's arrays: one pass over memory each, compiled by CuPy.

The expressions are C++; ``T`` is the arrays' type. Each says what its spec's formula says, NaN included: a
comparison with one is false.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import pi, sqrt
from typing import Any

import numpy as np

from nnlite.geometry import CLAMP, FUNCTIONS, NO_ACTIVATION, RELU, EltwiseGeometry, FunctionGeometry
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array

_ACTIVATE = {
    NO_ACTIVATION: "z",
    RELU: "z < low ? low : z",
    CLAMP: "z < low ? low : (z > high ? high : z)",
}
_PASSES = {NO_ACTIVATION: "true", RELU: "!(z <= T(0))", CLAMP: "z >= low && z <= high"}

_SIGMOID = "T e = exp(-fabs(x)); T s = (x >= T(0) ? T(1) : e) / (T(1) + e);"
_RAMP = "T r = x * a + b; r = r < T(0) ? T(0) : (r > T(1) ? T(1) : r);"
_CURVE = f"T t = tanh(T({sqrt(2 / pi)!r}) * (x + T(0.044715) * x * x * x));"
_NORMAL = f"T(0.5) * (T(1) + erf(x * T({sqrt(0.5)!r})))"
_FORWARD = {
    "sigmoid": f"{_SIGMOID} y = s",
    "tanh": "y = tanh(x)",
    "silu": f"{_SIGMOID} y = x * s",
    "hardsigmoid": f"{_RAMP} y = r",
    "hardswish": f"{_RAMP} y = x * r",
    "leaky_relu": "y = x > T(0) ? x : x * a",
    "gelu": f"y = x * ({_NORMAL})",
    "gelu_tanh": f"{_CURVE} y = T(0.5) * x * (T(1) + t)",
    "erf": "y = erf(x)",
}
_SLOPE = {
    "sigmoid": "y = gy * (x * (T(1) - x))",  # x is the function's output here, and below
    "tanh": "y = gy * (T(1) - x * x)",
    "silu": f"{_SIGMOID} y = gy * (s * (T(1) + x * (T(1) - s)))",
    "hardsigmoid": f"{_RAMP} y = gy * (r <= T(0) || r >= T(1) ? T(0) : a)",
    "hardswish": f"{_RAMP} y = gy * (r <= T(0) ? T(0) : (r >= T(1) ? T(1) : r + x * a))",
    "leaky_relu": "y = gy * (x > T(0) ? T(1) : a)",
    "gelu": f"y = gy * ({_NORMAL} + x * exp(T(-0.5) * x * x) * T({1 / sqrt(2 * pi)!r}))",
    "gelu_tanh": f"{_CURVE} T inner = T({sqrt(2 / pi)!r}) * (T(1) + T({3 * 0.044715!r}) * x * x);"
    " y = gy * (T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * inner)",
    "erf": f"y = gy * (exp(-x * x) * T({2 / sqrt(pi)!r}))",
}


@cache
def _compiled(name: str, inputs: str, outputs: str, body: str) -> Callable[..., Any]:
    import cupy

    inputs, outputs = (", ".join(f"T {one}" for one in names.split()) for names in (inputs, outputs))
    kernel: Callable[..., Any] = cupy.ElementwiseKernel(inputs, outputs, body, f"nnlite_{name}")
    return kernel


def combine(g: EltwiseGeometry, a: Array, b: Array | None, y: Array, workspace: Array | None) -> None:
    """The spec's formula."""
    kind, more = a.dtype.type, "" if b is None else " + beta * b"
    body = f"T z = alpha * a{more}; y = {_ACTIVATE[g.activation]}"
    kernel = _compiled("combine", "a alpha low high" + ("" if b is None else " b beta"), "y", body)
    operands = () if b is None else (b, kind(g.beta))
    kernel(a, kind(g.alpha), kind(g.low), kind(g.high), *operands, y)


def activation_backward(g: EltwiseGeometry, gy: Array, z: Array, gx: Array, workspace: Array | None) -> None:
    """The spec's formula."""
    kind = z.dtype.type
    body = f"gx = ({_PASSES[g.activation]}) ? gy : T(0)"
    _compiled("activation_backward", "gy z low high", "gx", body)(gy, z, kind(g.low), kind(g.high), gx)


def function_forward(g: FunctionGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    """The spec's formula."""
    name, kind = FUNCTIONS[g.function], x.dtype.type
    _compiled(name, "x a b", "y", _FORWARD[name])(x, kind(g.a), kind(g.b), y)


def function_backward(g: FunctionGeometry, gy: Array, z: Array, gx: Array, workspace: Array | None) -> None:
    """The spec's formula."""
    name, kind = FUNCTIONS[g.function], z.dtype.type
    _compiled(f"{name}_backward", "gy x a b", "y", _SLOPE[name])(gy, z, kind(g.a), kind(g.b), gx)


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
    """The spec's formula."""
    lr, decay, momentum, keep, nesterov = options
    # Without decay an infinite weight must not make a NaN of the gradient.
    body = "T slope = g + decay * w;" if decay else "T slope = g;"
    body += " T step = slope;" if velocity is None else " T step = momentum * v + keep * slope;"
    body += "" if new_velocity is None else " new_v = step;"
    body += (" step = slope + momentum * step;" if nesterov else "") + " new_w = w - lr * step"
    inputs = "w g lr decay momentum keep" + ("" if velocity is None else " v")
    kernel = _compiled("sgd_step", inputs, "new_w" + ("" if new_velocity is None else " new_v"), body)
    operands = [array for array in (velocity, new_weight, new_velocity) if array is not None]
    kernel(weight, gradient, lr, decay, momentum, keep, *operands)


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
    """The spec's formula."""
    body = (
        f"T p = {'w' if options[0] == 1 else 'shrink * w'}; T s = {'g + decay * p' if options[1] else 'g'};"
    )
    body += " T m = b1 * mean + rest1 * s; T q = b2 * square + rest2 * (s * s); new_mean = m; new_square = q;"
    body += " new_w = p - rate * m / (root_scale * sqrt(q) + epsilon)"
    inputs = "w g mean square shrink decay b1 rest1 b2 rest2 root_scale epsilon rate"
    kernel = _compiled("adam_step", inputs, "new_w new_mean new_square", body)
    kernel(weight, gradient, mean, square, *options, new_weight, new_mean, new_square)


def _floats(g: Any, dtype: DType) -> str | None:
    return None if dtype in (np.float32, np.float64) else "float32 and float64 only"


for _run in (combine, activation_backward, function_forward, function_backward, sgd_step, adam_step):
    REGISTRY.add_variant(Variant(_run.__name__, "cupy", "one pass", _run, _floats))
