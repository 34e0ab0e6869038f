"""The rows of softmax, cross-entropy and layer normalisation, which see rows x [M,C] one by one; resizing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnlite.geometry import NormGeometry, ResizeGeometry
from nnlite.kernels.catalog import FLOAT32_EPSILON, sum_tolerance
from nnlite.kernels.samples import line_samples, resize_samples
from nnlite.kernels.spec import REGISTRY, DType, KernelSpec, Types
from nnlite.layout import Array


def _line_types(g: NormGeometry, dtype: DType) -> Types:
    rows = ((g.M, g.C), dtype)
    return dict.fromkeys(("x", "y", "gy", "gx", "logits", "gradient"), rows) | {
        **dict.fromkeys(("weight", "bias", "gweight", "gbias"), ((g.C,), dtype)),
        **dict.fromkeys(("mean", "inv_std", "losses"), ((g.M,), dtype)),
        "labels": ((g.M,), np.dtype(np.int64)),
        "options": ((2,), dtype),
    }


# --------------------------------------------------------------------------------------- softmax


def _softmax_inputs(g: NormGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    if "x" in inputs:
        inputs["x"] *= 10
    if "y" in inputs:
        e = np.exp(inputs["y"])
        inputs["y"] = e / e.sum(1, keepdims=True)
    return inputs


def _log_softmax_inputs(g: NormGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = _softmax_inputs(g, types, rng)
    return inputs | {"y": np.log(inputs["y"])} if "y" in inputs else inputs


for _name, _formula in (("softmax", "e^x / sum_c e^x"), ("log_softmax", "x - ln sum_c e^x")):
    _log = _name == "log_softmax"
    REGISTRY.add_spec(
        KernelSpec(
            name=f"{_name}_forward",
            formula=f"y = {_formula} of each row",
            inputs=("x",),
            outputs=("y",),
            types=_line_types,
            flops=lambda g: 20 * g.M * g.C,
            tolerance=lambda g: 8 * FLOAT32_EPSILON + sum_tolerance(g.C),
            samples=line_samples,
            make_inputs=_softmax_inputs,
        )
    )
    REGISTRY.add_spec(
        KernelSpec(
            name=f"{_name}_backward",
            formula="gx = gy - e^y sum_c gy of each row" if _log else "gx = y (gy - sum_c gy y) of each row",
            inputs=("gy", "y"),
            outputs=("gx",),
            types=_line_types,
            flops=lambda g: 5 * g.M * g.C,
            tolerance=lambda g: 8 * FLOAT32_EPSILON + 2 * sum_tolerance(g.C),
            samples=line_samples,
            make_inputs=_log_softmax_inputs if _log else _softmax_inputs,
            scale=lambda name, inputs, expected: _of_operands(inputs, expected, "gy"),
        )
    )


def _of_operands(inputs: Mapping[str, Array | None], expected: Array, *names: str) -> float:
    """The larger of the result and of the product of the largest elements of the named operands."""
    product = 1.0
    for name in names:
        operand = inputs[name]
        product *= 1.0 if operand is None else float(np.abs(operand).max(initial=0))
    return max(product, float(np.abs(expected).max(initial=0)))


# --------------------------------------------------------------------------------- cross-entropy


def _cross_entropy_inputs(g: NormGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    inputs["labels"] = rng.integers(-1, g.C, g.M)  # -1: a row that does not count
    inputs["weight"] = np.abs(inputs["weight"])
    inputs["options"][...] = (0.125 * (g.C % 2), 0.25)
    return inputs


REGISTRY.add_spec(
    KernelSpec(
        name="cross_entropy",
        formula="options = smoothing, scale; l = -ln softmax(logits) of each row; losses[m] = (1 - smoothing)"
        " weight[label] l[label] + smoothing / C sum_c weight[c] l[c], 0 where the label is negative;"
        " gradient = scale d losses / d logits; without weight all are 1",
        inputs=("logits", "labels", "weight", "options"),
        outputs=("losses", "gradient"),
        optional=frozenset({"weight", "gradient"}),
        types=_line_types,
        flops=lambda g: 24 * g.M * g.C,
        tolerance=lambda g: 8 * FLOAT32_EPSILON + 4 * sum_tolerance(g.C),
        samples=line_samples,
        host=frozenset({"options"}),
        make_inputs=_cross_entropy_inputs,
        scale=lambda name, inputs, expected: _of_operands(inputs, expected, "weight", "options"),
    )
)

# ----------------------------------------------------------------------------- layer normalisation


def _layer_norm_inputs(g: NormGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    x, dtype = inputs["x"].astype(np.float64), inputs["x"].dtype
    inputs["mean"] = x.mean(1).astype(dtype)
    inputs["inv_std"] = (1 / np.sqrt(x.var(1) + g.epsilon)).astype(dtype)
    return inputs


def _layer_norm_scale(name: str, inputs: Mapping[str, Array | None], expected: Array) -> float:
    # What is subtracted may be far larger than the difference: rows of few elements lie close together.
    x = inputs["x"]
    assert x is not None
    inv_std = 1 / np.sqrt(x.astype(np.float64).var(1).min(initial=np.inf) + 1e-5) if x.size else 1.0
    powers = {"mean": 0, "y": 1, "inv_std": 2}
    size = float(np.abs(x).max(initial=0) * max(inv_std, 1.0) ** powers[name])
    return max(size, float(np.abs(expected).max(initial=0)))


REGISTRY.add_spec(
    KernelSpec(
        name="layer_norm_forward",
        formula="mean[m] = sum_c x / C; inv_std[m] = 1 / sqrt(sum_c (x - mean)^2 / C + epsilon);"
        " y = (x - mean) inv_std weight[c] + bias[c]",
        inputs=("x", "weight", "bias"),
        outputs=("y", "mean", "inv_std"),
        optional=frozenset({"weight", "bias"}),
        types=_line_types,
        flops=lambda g: 8 * g.M * g.C,
        tolerance=lambda g: 4 * sum_tolerance(g.C),
        samples=line_samples,
        scale=_layer_norm_scale,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="layer_norm_backward",
        formula="xhat = (x - mean) inv_std; g = gy weight;"
        " gx = inv_std (g - sum_c g / C - xhat sum_c g xhat / C); gweight = sum_m gy xhat; gbias = sum_m gy",
        inputs=("x", "gy", "weight", "mean", "inv_std"),
        outputs=("gx", "gweight", "gbias"),
        optional=frozenset({"weight", "gx", "gweight", "gbias"}),
        types=_line_types,
        flops=lambda g: 14 * g.M * g.C,
        tolerance=lambda g: 8 * sum_tolerance(max(g.M, g.C)),
        samples=line_samples,
        make_inputs=_layer_norm_inputs,
        scale=lambda name, inputs, expected: _of_operands(
            inputs, expected, *(("gy", "weight", "inv_std") if name == "gx" else ())
        ),
    )
)

# ---------------------------------------------------------------------------------------- resizing

_INT32 = np.dtype(np.int32)


def _resize_types(g: ResizeGeometry, dtype: DType) -> Types:
    return {
        "x": (g.x_shape, dtype),
        "row_start": ((g.P + 1,), _INT32),
        "row": ((g.row_taps,), _INT32),
        "row_weight": ((g.row_taps,), dtype),
        "column_start": ((g.Q + 1,), _INT32),
        "column": ((g.column_taps,), _INT32),
        "column_weight": ((g.column_taps,), dtype),
        "y": (g.y_shape, dtype),
    }


def _resize_inputs(g: ResizeGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    inputs = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in types.items()}
    for axis, out, size, taps in (("row", g.P, g.H, g.row_taps), ("column", g.Q, g.W, g.column_taps)):
        inner = np.sort(rng.integers(0, taps + 1, out - 1))  # some made of nothing
        inputs[f"{axis}_start"] = np.concatenate([[0], inner, [taps]]).astype(np.int32)
        inputs[axis] = rng.integers(0, size, taps).astype(np.int32)
    return inputs


REGISTRY.add_spec(
    KernelSpec(
        name="resize",
        formula="y[n,c,p,q] = sum of row_weight[a] column_weight[b] x[n, c, row[a], column[b]] over"
        " row_start[p] <= a < row_start[p+1] and column_start[q] <= b < column_start[q+1]",
        inputs=("x", "row_start", "row", "row_weight", "column_start", "column", "column_weight"),
        outputs=("y",),
        types=_resize_types,
        flops=lambda g: 2 * g.N * g.C * g.row_taps * g.column_taps,
        tolerance=lambda g: 2 * sum_tolerance(g.row_taps * g.column_taps // (g.P * g.Q) + 4),
        samples=resize_samples,
        make_inputs=_resize_inputs,
    )
)
