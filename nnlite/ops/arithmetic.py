"""More elementwise mathematics: trigonometry, rounding, erf, remainder. All are rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sqrt
from typing import Any

import numpy as np

from nnlite.kernels.reference.erf import erf
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.elementwise import Derivative, Row, register_row
from nnlite.ops.record import OnnxNode, OnnxWriter, Sample
from nnlite.ops.runs import named

D = Derivative


def _zero(gy: Array) -> Array:
    return np.zeros_like(gy)


_ERF = named("erf")
_INTEGERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
_STEP = (D("0: a step function has no other derivative", (), _zero),)

ROWS = (
    Row("erf", "2/√π · ∫₀ˣ e^(-t²) dt", erf,
        (D("gy · 2/√π · e^(-x²)", ("x",), lambda gy, x: gy * np.exp(-x * x) * (2 / sqrt(pi)), _ERF[1]),),
        "Erf", kernel=_ERF[0]),
    Row("reciprocal", "1 / x", np.reciprocal, (D("-gy · y²", ("y",), lambda gy, y: -gy * y * y),),
        "Reciprocal", low=0.3),
    Row("sin", "sin x", np.sin, (D("gy · cos x", ("x",), lambda gy, x: gy * np.cos(x)),), "Sin"),
    Row("cos", "cos x", np.cos, (D("-gy · sin x", ("x",), lambda gy, x: -gy * np.sin(x)),), "Cos"),
    Row("tan", "tan x", np.tan, (D("gy · (1 + y²)", ("y",), lambda gy, y: gy * (1 + y * y)),), "Tan",
        low=-1.2, high=1.2),
    Row("asin", "arcsin x", np.arcsin,
        (D("gy / √(1 - x²)", ("x",), lambda gy, x: gy / np.sqrt(1 - x * x)),), "Asin", low=-0.9, high=0.9),
    Row("acos", "arccos x", np.arccos,
        (D("-gy / √(1 - x²)", ("x",), lambda gy, x: -gy / np.sqrt(1 - x * x)),), "Acos", low=-0.9, high=0.9),
    Row("atan", "arctan x", np.arctan, (D("gy / (1 + x²)", ("x",), lambda gy, x: gy / (1 + x * x)),),
        "Atan"),
    Row("sinh", "sinh x", np.sinh, (D("gy · cosh x", ("x",), lambda gy, x: gy * np.cosh(x)),), "Sinh"),
    Row("cosh", "cosh x", np.cosh, (D("gy · sinh x", ("x",), lambda gy, x: gy * np.sinh(x)),), "Cosh"),
    Row("asinh", "arsinh x", np.arcsinh,
        (D("gy / √(x² + 1)", ("x",), lambda gy, x: gy / np.sqrt(x * x + 1)),), "Asinh"),
    Row("acosh", "arcosh x", np.arccosh,
        (D("gy / √(x² - 1)", ("x",), lambda gy, x: gy / np.sqrt(x * x - 1)),), "Acosh", low=1.3, high=3),
    Row("atanh", "artanh x", np.arctanh, (D("gy / (1 - x²)", ("x",), lambda gy, x: gy / (1 - x * x)),),
        "Atanh", low=-0.8, high=0.8),
    Row("floor", "⌊x⌋", np.floor, _STEP, "Floor", kinks=_INTEGERS),
    Row("ceil", "⌈x⌉", np.ceil, _STEP, "Ceil", kinks=_INTEGERS),
    Row("round", "x rounded to an integer, halves to the even one", np.rint, _STEP, "Round",
        kinks=(-1.5, -0.5, 0.5, 1.5)),
    Row("sign", "1 where x > 0, -1 where x < 0, else 0", np.sign, _STEP, "Sign", kinks=(0.0,), integers=True),
)  # fmt: skip
for _row in ROWS:
    register_row(_row)

# ------------------------------------------------------------------------------------- remainder


def remainder_samples() -> Iterator[Sample]:
    yield Sample(np.array([[3.7, -3.7, 5.2], [0.4, -6.1, 2.9]]), np.array([1.5, 2.5, -2.2]))
    yield Sample(np.array([7, -7, 5]), np.array([3, 3, -3]), gradcheck=False)


def _write_remainder(w: OnnxWriter, node: Node) -> str:
    a, b = node.inputs
    known = a.type if a is not None else None
    if known is not None and known.dtype.kind == "f":  # ONNX's Mod of floats has the dividend's sign
        whole = w.add("Floor", [w.add("Div", [a, b])])
        return w.add("Sub", [a, w.add("Mul", [whole, b])])
    return w.add("Mod", [a, b])


def _read_mod(n: OnnxNode) -> Any:
    return n.emit("fmod" if n.attribute("fmod", 0) else "remainder", *n.inputs)


register_row(
    Row("remainder", "a - ⌊a / b⌋ · b: the remainder with b's sign", np.remainder,
        (D("gy", (), lambda gy: gy),
         D("-gy · ⌊a / b⌋", ("a", "b"), lambda gy, a, b: -gy * np.floor_divide(a, b))),
        "Mod", integers=True),
    samples=remainder_samples,
    source="ONNX Mod-13 (fmod 0); torch.remainder",
    reads={"Mod": _read_mod},
    writes=_write_remainder,
)  # fmt: skip
register_row(
    Row("fmod", "a - trunc(a / b) · b: the remainder with a's sign", np.fmod,
        (D("gy", (), lambda gy: gy),
         D("-gy · trunc(a / b)", ("a", "b"), lambda gy, a, b: -gy * np.trunc(a / b))),
        "Mod", integers=True),
    samples=remainder_samples,
    source="ONNX Mod-13 (fmod 1); torch.fmod",
    reads={},
    writes=lambda w, node: w.add("Mod", node.inputs, fmod=1),
)  # fmt: skip
