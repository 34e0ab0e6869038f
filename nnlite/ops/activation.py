"""Activations: rows of the elementwise table, most with a param or two.

Where ONNX has no operator of that name, or not yet in the operator set that is written, the writer
spells the formula out in operators that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import pi, sqrt
from typing import Any

import numpy as np

from nnlite.errors import OperandError
from nnlite.kernels.reference.erf import erf
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.elementwise import Derivative, Row, register_row, stable_sigmoid
from nnlite.ops.record import ErrorSample, OnnxNode, OnnxWriter, Sample
from nnlite.ops.runs import Kernel, named

D = Derivative
_SILU, _HARDSWISH = named("silu"), named("hardswish", 1 / 6, 0.5)
_GELU = {"none": named("gelu"), "tanh": named("gelu_tanh")}


def _attributes(op: str, onnx: str, **params: tuple[str, float]) -> dict[str, Any]:
    """Reader and writer of an operator whose attributes are the op's: param = (attribute, default)."""

    def read(n: OnnxNode) -> Any:
        given = {param: n.attribute(*attribute) for param, attribute in params.items()}
        return n.emit(op, n.inputs[0], **given)

    def write(w: OnnxWriter, node: Node) -> str:
        given = {attribute: float(node.params[param]) for param, (attribute, _) in params.items()}
        return w.add(onnx, node.inputs, **given)

    return {"reads": {onnx: read}, "writes": write}


def _number(w: OnnxWriter, node: Node, value: float) -> Any:
    """A constant of the type of the node's operand."""
    known = node.inputs[0].type if node.inputs[0] is not None else None
    return w.host(value, np.float32 if known is None else known.dtype)


# ------------------------------------------------------------------------------ piecewise linear


@lru_cache(maxsize=256)
def _leaky_kernels(slope: float) -> tuple[Kernel, Kernel]:
    return named("leaky_relu", slope)


def _leaky(x: Array, negative_slope: float) -> Array:
    return as_array(np.where(x > 0, x, x * negative_slope))


register_row(
    Row("leaky_relu", "x where x > 0, else negative_slope · x", _leaky,
        (D("gy where x > 0, else negative_slope · gy", ("x",),
           lambda gy, x, negative_slope: np.where(x > 0, gy, gy * negative_slope),
           lambda negative_slope: _leaky_kernels(negative_slope)[1]),),
        "LeakyRelu", kinks=(0.0,), kernel=lambda negative_slope: _leaky_kernels(negative_slope)[0]),
    settings=[{"negative_slope": 0.01}, {"negative_slope": 0.3}],
    source="Maas et al. 2013; ONNX LeakyRelu-16; torch.nn.functional.leaky_relu",
    **_attributes("leaky_relu", "LeakyRelu", negative_slope=("alpha", 0.01)),
)  # fmt: skip


def prelu_samples() -> Iterator[Sample]:
    x = np.random.default_rng(1).uniform(0.1, 2, (2, 3, 4)) * np.where(np.arange(4) % 2, 1, -1)
    for slope in [(3, 1), (1,), (2, 3, 4)]:
        yield Sample(x, slope)


register_row(
    Row("prelu", "a where a > 0, else a · b; b is the slope", _leaky,
        (D("gy where a > 0, else gy · b", ("a", "b"), lambda gy, a, b: np.where(a > 0, gy, gy * b)),
         D("0 where a > 0, else gy · a", ("a",), lambda gy, a: np.where(a > 0, 0, gy * a))),
        "PRelu", integers=True),
    samples=prelu_samples,
    source="He et al. 2015, arXiv:1502.01852; ONNX PRelu-16",
)  # fmt: skip
register_row(
    Row("threshold", "x where x > threshold, else value",
        lambda x, threshold, value: np.where(x > threshold, x, x.dtype.type(value)),
        (D("gy where x > threshold", ("x",), lambda gy, x, threshold, value: gy * (x > threshold)),),
        "ThresholdedRelu", kinks=(0.5,)),
    settings=[{"threshold": 0.5, "value": 0.0}, {"threshold": 0.5, "value": -1.5}],
    source="ONNX ThresholdedRelu-22; torch.nn.functional.threshold",
    reads={"ThresholdedRelu": lambda n: n.emit(
        "threshold", n.inputs[0], threshold=n.attribute("alpha", 1.0), value=0.0)},
    writes=lambda w, node: _write_threshold(w, node),
)  # fmt: skip


def _write_threshold(w: OnnxWriter, node: Node) -> str:
    (x,), params = node.inputs, node.params
    if params["value"] == 0:
        return w.add("ThresholdedRelu", [x], alpha=float(params["threshold"]))
    above = w.add("Greater", [x, _number(w, node, params["threshold"])])
    return w.add("Where", [above, x, _number(w, node, params["value"])])


def _shrink(x: Array, lambd: float, bias: float) -> Array:
    outside = np.where(x > lambd, x - bias, np.where(x < -lambd, x + bias, np.zeros_like(x)))
    return as_array(np.where(np.isnan(x), x, outside))


register_row(
    Row("shrink", "x - bias where x > lambd, x + bias where x < -lambd, else 0", _shrink,
        (D("gy where |x| > lambd", ("x",), lambda gy, x, lambd, bias: gy * (np.abs(x) > lambd)),),
        "Shrink", kinks=(-0.5, 0.5)),
    settings=[{"lambd": 0.5, "bias": 0.0}, {"lambd": 0.5, "bias": 0.5}],
    source="ONNX Shrink-9; torch.nn.functional.hardshrink, softshrink",
    **_attributes("shrink", "Shrink", lambd=("lambd", 0.5), bias=("bias", 0.0)),
)  # fmt: skip


def _hardsigmoid(x: Array, alpha: float, beta: float) -> Array:
    return as_array(np.clip(x * alpha + beta, 0, 1), x.dtype)


def _hardsigmoid_gradient(gy: Array, x: Array, alpha: float, beta: float) -> Array:
    y = x * alpha + beta
    return as_array(gy * ((y > 0) & (y < 1)) * alpha)


@lru_cache(maxsize=256)
def _ramp(name: str, alpha: float, beta: float) -> tuple[Kernel, Kernel]:
    return named(name, alpha, beta)


register_row(
    Row("hardsigmoid", "min(max(alpha · x + beta, 0), 1)", _hardsigmoid,
        (D("alpha · gy where 0 < alpha · x + beta < 1", ("x",), _hardsigmoid_gradient,
           lambda alpha, beta: _ramp("hardsigmoid", alpha, beta)[1]),),
        "HardSigmoid", low=-4, high=4, kinks=(-3.0, 3.0, -2.5, 2.5),
        kernel=lambda alpha, beta: _ramp("hardsigmoid", alpha, beta)[0]),
    settings=[{"alpha": 1 / 6, "beta": 0.5}, {"alpha": 0.2, "beta": 0.5}],
    source="Howard et al. 2019, arXiv:1905.02244 (alpha = 1/6); ONNX HardSigmoid-22 (alpha = 0.2)",
    **_attributes("hardsigmoid", "HardSigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5)),
)  # fmt: skip


def _hardswish_gradient(gy: Array, x: Array) -> Array:
    return as_array(np.where(x >= 3, gy, np.where(x <= -3, 0, gy * (x / 3 + 0.5))))


def _write_hardswish(w: OnnxWriter, node: Node) -> str:
    (x,) = node.inputs
    if w.version >= 14:
        return w.add("HardSwish", [x])
    return w.add("Mul", [x, w.add("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])


register_row(
    Row("hardswish", "x · min(max(x + 3, 0), 6) / 6",
        lambda x: as_array(x * (np.clip(x + 3, 0, 6) / 6), x.dtype),
        (D("0 below -3, gy above 3, gy · (2x + 3) / 6 between", ("x",), _hardswish_gradient,
           _HARDSWISH[1]),),
        "HardSwish", low=-4, high=4, kinks=(-3.0, 3.0), kernel=_HARDSWISH[0]),
    source="Howard et al. 2019, arXiv:1905.02244; ONNX HardSwish-22",
    writes=_write_hardswish,
)  # fmt: skip

# ---------------------------------------------------------------------------------- exponential


def _elu(x: Array, alpha: float) -> Array:
    return as_array(np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * alpha))


def _elu_gradient(gy: Array, x: Array, alpha: float) -> Array:
    return as_array(np.where(x > 0, gy, gy * (np.exp(np.minimum(x, 0)) * alpha)))


register_row(
    Row("elu", "x where x > 0, else alpha · (eˣ - 1)", _elu,
        (D("gy where x > 0, else gy · alpha · eˣ", ("x",), _elu_gradient),),
        "Elu", kinks=(0.0,)),
    settings=[{"alpha": 1.0}, {"alpha": 0.4}],
    source="Clevert et al. 2016, arXiv:1511.07289; ONNX Elu-22; torch.nn.functional.elu",
    **_attributes("elu", "Elu", alpha=("alpha", 1.0)),
)  # fmt: skip

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
register_row(
    Row("selu", "gamma · x where x > 0, else gamma · alpha · (eˣ - 1)",
        lambda x, alpha, gamma: _elu(x, alpha) * gamma,
        (D("gamma · gy where x > 0, else gamma · alpha · gy · eˣ", ("x",),
           lambda gy, x, alpha, gamma: _elu_gradient(gy, x, alpha) * gamma),),
        "Selu", kinks=(0.0,)),
    settings=[{"alpha": SELU_ALPHA, "gamma": SELU_GAMMA}, {"alpha": 2.0, "gamma": 0.5}],
    source="Klambauer et al. 2017, arXiv:1706.02515; ONNX Selu-22; torch.nn.functional.selu",
    **_attributes("selu", "Selu", alpha=("alpha", SELU_ALPHA), gamma=("gamma", SELU_GAMMA)),
)  # fmt: skip


def _check_celu(alpha: float) -> None:
    if alpha == 0:
        raise OperandError("celu: alpha=0 divides by zero; use relu")


register_row(
    Row("celu", "max(x, 0) + min(0, alpha · (e^(x/alpha) - 1))",
        lambda x, alpha: np.where(x > 0, x, np.expm1(np.minimum(x, 0) / alpha) * alpha),
        (D("gy where x > 0, else gy · e^(x/alpha)", ("x",),
           lambda gy, x, alpha: np.where(x > 0, gy, gy * np.exp(np.minimum(x, 0) / alpha))),),
        "Celu", kinks=(0.0,)),
    settings=[{"alpha": 1.0}, {"alpha": 0.4}],
    check=_check_celu,
    refused=[ErrorSample(OperandError, "divides by zero", (2, 3), alpha=0.0)],
    source="Barron 2017, arXiv:1704.07483; ONNX Celu-12; torch.nn.functional.celu",
    **_attributes("celu", "Celu", alpha=("alpha", 1.0)),
)  # fmt: skip


def _softplus(x: Array, beta: float = 1.0, threshold: float = np.inf) -> Array:
    z = x * beta
    soft = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta
    return as_array(np.where(z > threshold, x, soft), x.dtype)


def _check_softplus(beta: float, threshold: float) -> None:
    if not beta > 0:
        raise OperandError(f"softplus: beta={beta} must be above 0")


def _write_softplus(w: OnnxWriter, node: Node) -> str:
    (x,), beta = node.inputs, node.params["beta"]
    if node.params["threshold"] < 15:  # from 15 on float32 sees no difference
        raise OperandError(
            f"softplus: ONNX has no threshold={node.params['threshold']}; use 20, the default, to export"
        )
    if beta == 1:
        return w.add("Softplus", [x])
    number = _number(w, node, beta)
    return w.add("Div", [w.add("Softplus", [w.add("Mul", [x, number])]), number])


register_row(
    Row("softplus", "ln(1 + e^(beta·x)) / beta, x itself where beta·x > threshold", _softplus,
        (D("gy · sigmoid(beta·x), gy where beta·x > threshold", ("x",),
           lambda gy, x, beta, threshold: gy * np.where(x * beta > threshold, 1, stable_sigmoid(x * beta))),),
        "Softplus"),
    settings=[{"beta": 1.0, "threshold": 20.0}, {"beta": 2.5, "threshold": 20.0}],
    check=_check_softplus,
    refused=[ErrorSample(OperandError, "must be above 0", (2, 3), beta=0.0, threshold=20.0)],
    source="ONNX Softplus-22; torch.nn.functional.softplus",
    reads={"Softplus": lambda n: n.emit("softplus", n.inputs[0], beta=1.0, threshold=20.0)},
    writes=_write_softplus,
)  # fmt: skip
register_row(
    Row("log_sigmoid", "-ln(1 + e⁻ˣ)", lambda x: -_softplus(-x),
        (D("gy · sigmoid(-x)", ("x",), lambda gy, x: gy * stable_sigmoid(-x)),), ""),
    source="torch.nn.functional.logsigmoid",
    reads={},
    writes=lambda w, node: w.add("Neg", [w.add("Softplus", [w.add("Neg", node.inputs)])]),
)  # fmt: skip
register_row(
    Row("softsign", "x / (1 + |x|)", lambda x: x / (1 + np.abs(x)),
        (D("gy / (1 + |x|)²", ("x",), lambda gy, x: gy / np.square(1 + np.abs(x))),), "Softsign"),
    source="ONNX Softsign-22; torch.nn.functional.softsign",
)  # fmt: skip

# -------------------------------------------------------------------------------------- x times


def _silu_gradient(gy: Array, x: Array) -> Array:
    s = stable_sigmoid(x)
    return as_array(gy * (s * (1 + x * (1 - s))))


def _read_swish(n: OnnxNode) -> Any:
    (x,), alpha = n.inputs, n.attribute("alpha", 1.0)
    if alpha == 1:
        return n.emit("silu", x)
    scaled = n.emit("mul", x, n.leaf(np.asarray(alpha, np.float32)))
    return n.emit("mul", x, n.emit("sigmoid", scaled))


def _write_silu(w: OnnxWriter, node: Node) -> str:
    (x,) = node.inputs  # runtimes know the pattern; hardly one knows Swish, which is of operator set 24
    return w.add("Mul", [x, w.add("Sigmoid", [x])])


register_row(
    Row("silu", "x · sigmoid(x)", lambda x: x * stable_sigmoid(x),
        (D("gy · s · (1 + x · (1 - s)), s = sigmoid(x)", ("x",), _silu_gradient, _SILU[1]),), "",
        kernel=_SILU[0]),
    source="Elfwing et al. 2017, arXiv:1702.03118; ONNX Swish-24 (alpha 1); torch.nn.functional.silu",
    reads={"Swish": _read_swish},
    writes=_write_silu,
)  # fmt: skip


def _mish_gradient(gy: Array, x: Array) -> Array:
    t = np.tanh(_softplus(x))
    return as_array(gy * (t + x * (1 - t * t) * stable_sigmoid(x)))


def _write_mish(w: OnnxWriter, node: Node) -> str:
    (x,) = node.inputs
    if w.version >= 18:
        return w.add("Mish", [x])
    return w.add("Mul", [x, w.add("Tanh", [w.add("Softplus", [x])])])


register_row(
    Row("mish", "x · tanh(ln(1 + eˣ))", lambda x: x * np.tanh(_softplus(x)),
        (D("gy · (t + x · (1 - t²) · sigmoid(x)), t = tanh(ln(1 + eˣ))", ("x",), _mish_gradient),), "Mish"),
    source="Misra 2019, arXiv:1908.08681; ONNX Mish-22; torch.nn.functional.mish",
    writes=_write_mish,
)  # fmt: skip

_TANH_SCALE, _CUBIC = sqrt(2 / pi), 0.044715


def _gelu(x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        return as_array(0.5 * x * (1 + np.tanh(_TANH_SCALE * (x + _CUBIC * x * x * x))))
    return as_array(0.5 * x * (1 + erf(x * sqrt(0.5))))


def _gelu_gradient(gy: Array, x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        t = np.tanh(_TANH_SCALE * (x + _CUBIC * x * x * x))
        inner = _TANH_SCALE * (1 + 3 * _CUBIC * x * x)
        return as_array(gy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner))
    density = np.exp(-0.5 * x * x) * (1 / sqrt(2 * pi))
    return as_array(gy * (0.5 * (1 + erf(x * sqrt(0.5))) + x * density))


def _check_gelu(approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise OperandError(f"gelu: approximate={approximate!r} must be 'none' or 'tanh'")


def _write_gelu(w: OnnxWriter, node: Node) -> str:
    (x,), approximate = node.inputs, node.params["approximate"]
    if w.version >= 20:
        return w.add("Gelu", [x], approximate=approximate)

    def number(value: float) -> Any:
        return _number(w, node, value)

    if approximate == "tanh":
        cube = w.add("Mul", [w.add("Mul", [w.add("Mul", [x, x]), x]), number(_CUBIC)])
        curve = w.add("Tanh", [w.add("Mul", [w.add("Add", [x, cube]), number(_TANH_SCALE)])])
    else:
        curve = w.add("Erf", [w.add("Mul", [x, number(sqrt(0.5))])])
    return w.add("Mul", [w.add("Mul", [x, w.add("Add", [curve, number(1)])]), number(0.5)])


register_row(
    Row("gelu", "x · (1 + erf(x/√2)) / 2, or x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2", _gelu,
        (D("gy · (Φ(x) + x · φ(x)), Φ and φ the normal distribution and density; or the tanh "
           "formula's derivative", ("x",), _gelu_gradient,
           lambda approximate: _GELU[approximate][1]),),
        "Gelu", kernel=lambda approximate: _GELU[approximate][0]),
    settings=[{"approximate": "none"}, {"approximate": "tanh"}],
    check=_check_gelu,
    refused=[ErrorSample(OperandError, "must be 'none' or 'tanh'", (2, 3), approximate="erf")],
    source="Hendrycks and Gimpel 2016, arXiv:1606.08415; ONNX Gelu-20; torch.nn.functional.gelu",
    reads={"Gelu": lambda n: n.emit("gelu", n.inputs[0], approximate=n.attribute("approximate", "none"))},
    writes=_write_gelu,
)  # fmt: skip
