"""The rows of normalisation, elementwise work and optimisers: kernels on rows [M,C] or runs of numbers.

``act`` is what a geometry's ``activation`` says: nothing, max(z, 0), or z kept within [low, high]. Its
gradient passes where z > 0 (or is NaN), or where low ≤ z ≤ high. Seen from an output y it passes where
0 < y, or low < y < high: with ReLU that is the same, with a clamp it differs where z is exactly a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnlite.geometry import (
    CLAMP,
    FUNCTIONS,
    NO_ACTIVATION,
    RELU,
    EltwiseGeometry,
    FunctionGeometry,
    NormGeometry,
    PictureGeometry,
)
from nnlite.kernels.catalog import FLOAT32_EPSILON, sum_tolerance
from nnlite.kernels.samples import (
    eltwise_samples,
    function_samples,
    norm_samples,
    picture_samples,
    plain_norm_samples,
    run_samples,
)
from nnlite.kernels.spec import REGISTRY, DType, KernelSpec, Types
from nnlite.layout import Array

# --------------------------------------------------------------------------- batch normalisation


def _norm_types(g: NormGeometry, dtype: DType) -> Types:
    rows = ((g.M, g.C), dtype)
    channel = ((g.C,), dtype)
    wide = ("x", "y", "residual", "gy", "gx", "gresidual")
    narrow = ("weight", "bias", "mean", "inv_std", "scale", "shift", "gweight", "gbias", "total")
    return dict.fromkeys(wide, rows) | dict.fromkeys(narrow, channel)


def _kinks(g: NormGeometry | EltwiseGeometry) -> tuple[float, ...]:
    return {NO_ACTIVATION: (), RELU: (0.0,), CLAMP: (g.low, g.high)}[g.activation]


def _norm_inputs(g: NormGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    x, dtype = inputs["x"].astype(np.float64), inputs["x"].dtype
    # A deviation is positive, and mean and deviation belong to x.
    inputs["mean"] = x.mean(0).astype(dtype)
    inputs["inv_std"] = (1 / np.sqrt(x.var(0) + g.epsilon)).astype(dtype)
    # Rounding must not decide on which side of a kink a number lies: channels whose scale is tiny
    # would leave all of them near one.
    slope = inputs["scale"] if "scale" in inputs else inputs["weight"] * inputs["inv_std"]
    shift = inputs["shift"] if "shift" in inputs else inputs["bias"] - inputs["mean"] * slope
    for kink in _kinks(g):
        near = np.abs(x * slope + shift - kink) < 1e-4
        inputs["x"][near] += 1e-3 / np.broadcast_to(slope, x.shape)[near]
    return inputs


def _norm_result_scale(name: str, inputs: Mapping[str, Array | None], expected: Array) -> float:
    largest = float(np.abs(expected).max(initial=0))
    x, mean, scale = inputs["x"], inputs["mean"], inputs["scale"]
    if mean is None or x is None or scale is None:
        return largest
    # The difference is rounded before anything else is, and an activation may hide how large it was.
    return max(largest, float(np.abs((x - mean) * scale).max(initial=0)))


def _norm_gradient_scale(name: str, inputs: Mapping[str, Array | None], expected: Array) -> float:
    largest = float(np.abs(expected).max(initial=0))
    weight, inv_std, gy = inputs["weight"], inputs["inv_std"], inputs["gy"]
    assert weight is not None and inv_std is not None and gy is not None
    if name != "gx" or not gy.size:
        return largest
    # gx = weight inv_std (gy - ...): with two rows the bracket cancels to about epsilon, and no float32
    # arithmetic can be exact relative to that. It can be relative to what is subtracted.
    return max(largest, float((np.abs(weight * inv_std) * np.abs(gy).max(0)).max()))


REGISTRY.add_spec(
    KernelSpec(
        name="batch_norm_training_forward",
        formula="mean = sum_m x / M; inv_std = 1 / sqrt(sum_m (x - mean)^2 / M + epsilon);"
        " y = act((x - mean) inv_std weight + bias + residual), all but residual per channel",
        inputs=("x", "weight", "bias", "residual"),
        outputs=("y", "mean", "inv_std"),
        optional=frozenset({"residual"}),
        types=_norm_types,
        flops=lambda g: 7 * g.M * g.C,
        tolerance=lambda g: 4 * sum_tolerance(g.M),
        samples=norm_samples,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="batch_norm_training_backward",
        formula="g = gy where act passes, seen from y or, without y, from z = (x - mean) inv_std weight"
        " + bias; gresidual = g; xhat = (x - mean) inv_std; gbias = sum_m g; gweight = sum_m g xhat;"
        " gx = weight inv_std (g - gbias/M - xhat gweight/M)",
        inputs=("x", "gy", "y", "weight", "bias", "mean", "inv_std"),
        outputs=("gx", "gweight", "gbias", "gresidual"),
        optional=frozenset({"y", "gx", "gresidual"}),
        types=_norm_types,
        flops=lambda g: 10 * g.M * g.C,
        tolerance=lambda g: 8 * sum_tolerance(g.M),
        samples=norm_samples,
        make_inputs=_norm_inputs,
        scale=_norm_gradient_scale,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="batch_norm_inference_forward",
        formula="y = act((x - mean) scale + shift + residual), mean 0 where it is not given; per channel"
        " scale = weight / sqrt(running_var + epsilon), shift = bias - running_mean scale",
        inputs=("x", "mean", "scale", "shift", "residual"),
        outputs=("y",),
        optional=frozenset({"mean", "residual"}),
        types=_norm_types,
        flops=lambda g: 2 * g.M * g.C,
        tolerance=lambda g: sum_tolerance(2),
        samples=norm_samples,
        scale=_norm_result_scale,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="batch_norm_inference_backward",
        formula="g = gy where act passes, seen from y or, without y, from z = x scale + shift;"
        " gresidual = g; gx = g scale; gbias = sum_m g; gweight = sum_m g (x - mean) inv_std",
        inputs=("x", "gy", "y", "scale", "shift", "mean", "inv_std"),
        outputs=("gx", "gweight", "gbias", "gresidual"),
        optional=frozenset({"y", "gx", "gweight", "gbias", "gresidual"}),
        types=_norm_types,
        flops=lambda g: 6 * g.M * g.C,
        tolerance=lambda g: 4 * sum_tolerance(g.M),
        samples=norm_samples,
        make_inputs=_norm_inputs,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="channel_sum",
        formula="total[c] = sum_m x[m,c]: the gradient of a bias",
        inputs=("x",),
        outputs=("total",),
        types=_norm_types,
        flops=lambda g: g.M * g.C,
        tolerance=lambda g: 4 * sum_tolerance(g.M),
        samples=plain_norm_samples,
    )
)

# ------------------------------------------------------------------------------------ elementwise


def _picture_types(g: PictureGeometry, dtype: DType) -> Types:
    pictures = ((g.N, g.C, g.H, g.W), dtype)
    return {"x": pictures, "scale": ((g.N, g.C, 1, 1), dtype), "y": pictures}


def _run_types(g: EltwiseGeometry, dtype: DType) -> Types:
    names = "a b y gy z gx weight gradient velocity mean square new_weight new_velocity new_mean new_square"
    return dict.fromkeys(names.split(), ((g.size,), dtype))


def _gate_inputs(g: EltwiseGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # Bounds themselves among the numbers: which side they belong to is part of the definition.
    kinks = _kinks(g) or (0.0,)
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    at = rng.random(g.size) < 0.2
    inputs["z"][at] = rng.choice(kinks, int(at.sum()))
    return inputs


REGISTRY.add_spec(
    KernelSpec(
        name="combine",
        formula="y = act(alpha a + beta b); without b y = act(alpha a); y may be a or b",
        inputs=("a", "b"),
        outputs=("y",),
        optional=frozenset({"b"}),
        types=_run_types,
        flops=lambda g: 3 * g.size,
        tolerance=lambda g: 4 * FLOAT32_EPSILON,
        samples=eltwise_samples,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="multiply",
        formula="y = a b; y may be a or b",
        inputs=("a", "b"),
        outputs=("y",),
        types=_run_types,
        flops=lambda g: g.size,
        tolerance=lambda g: FLOAT32_EPSILON,
        samples=run_samples,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="scale_channels",
        formula="y[n,c,h,w] = x[n,c,h,w] scale[n,c,0,0]; y may be x",
        inputs=("x", "scale"),
        outputs=("y",),
        types=_picture_types,
        flops=lambda g: g.N * g.C * g.H * g.W,
        tolerance=lambda g: FLOAT32_EPSILON,
        samples=picture_samples,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="activation_backward",
        formula="gx = gy where act passes its gradient at z, else 0; gx may be gy",
        inputs=("gy", "z"),
        outputs=("gx",),
        types=_run_types,
        flops=lambda g: g.size,
        tolerance=lambda g: 0.0,
        samples=eltwise_samples,
        make_inputs=_gate_inputs,
    )
)


def _function_types(g: FunctionGeometry, dtype: DType) -> Types:
    return dict.fromkeys(("x", "y", "gy", "z", "gx"), ((g.size,), dtype))


def _function_inputs(g: FunctionGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # All of what floats can hold without overflow, and no number where rounding decides about a kink.
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    name = "x" if "x" in inputs else "z"
    values = inputs[name] * rng.choice([0.01, 1.0, 10.0], g.size).astype(inputs[name].dtype)
    kinks = {"leaky_relu": (0.0,), "hardsigmoid": (-g.b / (g.a or 1), (1 - g.b) / (g.a or 1))}
    for kink in kinks.get(FUNCTIONS[g.function].replace("hardswish", "hardsigmoid"), ()):
        values[np.abs(values - kink) < 1e-4] += 1e-3
    inputs[name] = values
    return inputs


REGISTRY.add_spec(
    KernelSpec(
        name="function_forward",
        formula="y = f(x): sigmoid 1 / (1 + e^-x); tanh; silu x sigmoid(x);"
        " hardsigmoid min(max(a x + b, 0), 1); hardswish x hardsigmoid(x);"
        " leaky_relu x where x > 0, else a x; gelu x (1 + erf(x / sqrt 2)) / 2; gelu_tanh"
        " x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2; erf; y may be x",
        inputs=("x",),
        outputs=("y",),
        types=_function_types,
        flops=lambda g: 20 * g.size,
        tolerance=lambda g: 8 * FLOAT32_EPSILON,
        samples=function_samples,
        make_inputs=_function_inputs,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="function_backward",
        formula="gx = gy f'(z), z being f's output for sigmoid and tanh, else its input; at a kink of"
        " hardsigmoid and leaky_relu the slope below it; gx may be gy",
        inputs=("gy", "z"),
        outputs=("gx",),
        types=_function_types,
        flops=lambda g: 24 * g.size,
        tolerance=lambda g: 16 * FLOAT32_EPSILON,
        samples=function_samples,
        make_inputs=_function_inputs,
    )
)

# ------------------------------------------------------------------------------------- optimisers


def _with_options(count: int) -> Any:
    def types(g: EltwiseGeometry, dtype: DType) -> Types:
        return _run_types(g, dtype) | {"options": ((count,), dtype)}

    return types


def _sgd_inputs(g: EltwiseGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    inputs["options"][...] = (0.125, 0.0625, 0.75, 0.5, g.size % 2)
    return inputs


def _adam_inputs(g: EltwiseGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    np.square(inputs["square"], out=inputs["square"])
    inputs["options"][...] = (0.75, 0.0625, 0.875, 0.125, 0.75, 0.25, 2.0, 0.125, 0.0625)
    return inputs


REGISTRY.add_spec(
    KernelSpec(
        name="sgd_step",
        formula="options = lr, weight_decay, momentum, 1 - dampening, nesterov; g = gradient +"
        " weight_decay weight; v = momentum velocity + (1 - dampening) g, without velocity v = g;"
        " new_velocity = v; new_weight = weight - lr (nesterov ? g + momentum v : v); outputs may be inputs",
        inputs=("weight", "gradient", "velocity", "options"),
        outputs=("new_weight", "new_velocity"),
        optional=frozenset({"velocity", "new_velocity"}),
        types=_with_options(5),
        flops=lambda g: 7 * g.size,
        tolerance=lambda g: 8 * FLOAT32_EPSILON,
        samples=run_samples,
        host=frozenset({"options"}),
        make_inputs=_sgd_inputs,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="adam_step",
        formula="options = shrink, weight_decay, b1, 1 - b1, b2, 1 - b2, root_scale, eps, rate;"
        " w = shrink weight; g = gradient + weight_decay w; new_mean = b1 mean + (1 - b1) g;"
        " new_square = b2 square + (1 - b2) g^2; new_weight = w - rate new_mean /"
        " (root_scale sqrt(new_square) + eps); outputs may be inputs",
        inputs=("weight", "gradient", "mean", "square", "options"),
        outputs=("new_weight", "new_mean", "new_square"),
        types=_with_options(9),
        flops=lambda g: 15 * g.size,
        tolerance=lambda g: 16 * FLOAT32_EPSILON,
        samples=run_samples,
        host=frozenset({"options"}),
        make_inputs=_adam_inputs,
    )
)
