"""The activations that recurrent operators choose from, by name, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnlite.errors import OperandError
from nnlite.layout import Array, as_array


class Gate(NamedTuple):
    """y = function(x, α, β) and dy/dx = slope(x, y, α, β)."""

    function: Callable[[Array, float, float], Array]
    slope: Callable[[Array, Array, float, float], Array]
    defaults: tuple[float | None, ...] = ()
    """Of α, or of α and β; None where runtimes disagree about what holds when a file names none."""


def _sigmoid(x: Array, a: float, b: float) -> Array:
    return as_array(0.5 * (np.tanh(0.5 * x) + 1))  # no exponential that overflows


GATES: dict[str, Gate] = {
    "Relu": Gate(lambda x, a, b: np.maximum(x, 0), lambda x, y, a, b: x > 0),
    "Tanh": Gate(lambda x, a, b: np.tanh(x), lambda x, y, a, b: 1 - y * y),
    "Sigmoid": Gate(_sigmoid, lambda x, y, a, b: y * (1 - y)),
    "Softsign": Gate(lambda x, a, b: x / (1 + np.abs(x)), lambda x, y, a, b: (1 - np.abs(y)) ** 2),
    "Softplus": Gate(lambda x, a, b: np.logaddexp(x, 0), lambda x, y, a, b: _sigmoid(x, a, b)),
    "Affine": Gate(lambda x, a, b: a * x + b, lambda x, y, a, b: np.full_like(x, a), (None, None)),
    "LeakyRelu": Gate(
        lambda x, a, b: np.where(x >= 0, x, a * x), lambda x, y, a, b: np.where(x >= 0, 1, a), (0.01,)
    ),
    "ThresholdedRelu": Gate(lambda x, a, b: np.where(x > a, x, 0), lambda x, y, a, b: x > a, (None,)),
    "ScaledTanh": Gate(
        lambda x, a, b: a * np.tanh(b * x), lambda x, y, a, b: b * (a - y * y / a), (None, None)
    ),
    "HardSigmoid": Gate(
        lambda x, a, b: np.clip(a * x + b, 0, 1), lambda x, y, a, b: a * ((y > 0) & (y < 1)), (0.2, 0.5)
    ),
    "Elu": Gate(
        lambda x, a, b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
        lambda x, y, a, b: np.where(x >= 0, 1, y + a),
        (1.0,),
    ),
}
Named = tuple[str, float, float]
"""An activation's name, α and β."""


def check_gates(op: str, named: Sequence[Named], count: int) -> None:
    """OperandError unless ``named`` are ``count`` known activations."""
    unknown = [name for name, _, _ in named if name not in GATES]
    if unknown or len(named) != count:
        raise OperandError(
            f"{op}: activations {[name for name, _, _ in named]} must be {count} of {', '.join(GATES)}"
        )


class Clipped:
    """An activation of values that were clipped to [-clip, clip] before."""

    def __init__(self, named: Named, clip: float | None) -> None:
        name, self._alpha, self._beta = named
        self._gate, self._clip = GATES[name], clip

    def _inside(self, x: Array) -> Array:
        return x if self._clip is None else np.clip(x, -self._clip, self._clip)

    def __call__(self, x: Array) -> Array:
        """y."""
        return self._gate.function(self._inside(x), self._alpha, self._beta).astype(x.dtype, copy=False)

    def slope(self, x: Array, y: Array) -> Any:
        """dy/dx, 0 where x was clipped."""
        slope = as_array(self._gate.slope(self._inside(x), y, self._alpha, self._beta), x.dtype)
        return slope if self._clip is None else slope * (np.abs(x) <= self._clip)


def gates_with_numbers(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> tuple[Named, ...]:
    """Activations as ONNX lists them: those that need α or β take the next number, if any is left.

    Raises OperandError where one is missing that has no agreed default.
    """
    by_lower = {name.lower(): name for name in GATES}
    left = list(alphas), list(betas)
    result: list[Named] = []
    for name in names:
        known = by_lower.get(name.lower(), name)
        numbers = [0.0, 0.0]
        for i, default in enumerate(GATES[known].defaults if known in GATES else ()):
            number = left[i].pop(0) if left[i] else default
            if number is None:
                raise OperandError(f"activation {known} needs its activation_{('alpha', 'beta')[i]}")
            numbers[i] = number
        result.append((known, numbers[0], numbers[1]))
    return tuple(result)
