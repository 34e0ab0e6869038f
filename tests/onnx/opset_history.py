"""A table of the forms that ONNX's most used operators ever had: operator -> forms.

Each has the operator set in which it came and the last that knows it, and says with NumPy, from ONNX's
text, what it computes. The rows stand in opset_windows and opset_forms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NEWEST = 10_000
OPERATORS = [
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LRN",
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Clip",
    "Elu",
    "Softmax",
    "LogSoftmax",
    "Erf",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Sum",
    "Neg",
    "Sqrt",
    "Pow",
    "Exp",
    "Abs",
    "Ceil",
    "Mod",
    "Max",
    "Min",
    "Where",
    "Equal",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Split",
    "Slice",
    "Gather",
    "Pad",
    "Resize",
    "Upsample",
    "Expand",
    "DepthToSpace",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "Dropout",
    "Identity",
    "Constant",
    "ConstantOfShape",
    "Shape",
    "Cast",
]
"""With these alone nine of ten models open."""


@dataclass
class Form:
    """A node: operands, attributes, how many outputs, and what comes out."""

    first: int
    last: int
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    expected: Callable[..., Any]
    outputs: int = 1
    note: str = ""
    """Why ONNX Runtime is not asked, where it is not."""


FORMS: dict[str, list[Form]] = defaultdict(list)


def form(
    operators: str, first: int, last: int | None, inputs: Any, expected: Any, *, outputs: int = 1,
    note: str = "",
    **attributes: Any,
) -> None:  # fmt: skip
    """Enter a form of one or more operators."""
    for operator in operators.split():
        FORMS[operator].append(
            Form(first, last or NEWEST, tuple(inputs), attributes, expected, outputs, note)
        )


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return np.abs(normal(*shape, seed=seed)) + np.float32(0.5)


def ints(*shape: int, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9, shape).astype(dtype)


def i64(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.int64)


def f32(*numbers: float) -> np.ndarray:
    return np.asarray(numbers, np.float32)


X = normal(2, 3, 5, 4)
A2, B2, C2 = normal(2, 3), normal(3, 4, seed=1), normal(2, 4, seed=2)
