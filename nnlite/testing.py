"""Checks that users can run on their own functions: gradcheck and the adjoint identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnlite.layout import Array
from nnlite.tensors import Tensor, grad


def _outputs(result: Tensor | Sequence[Tensor]) -> list[Tensor]:
    listed = [result] if isinstance(result, Tensor) else list(result)
    return [t for t in listed if t.dtype.kind == "f"]


def gradcheck(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    *,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> None:
    """Compare backward with central differences in float64; AssertionError names the worst element.

    For random weights v of the outputs, every element of d(Σ v·f)/dx must agree with
    (f(x + step) - f(x - step)) / (2·step) within ``tolerance`` of the largest gradient (at least 1).
    Inputs that require gradients must be float64. The function must be differentiable around the
    inputs: keep away from kinks (relu at 0) and ties (max).
    """
    checked = [t for t in inputs if t.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires gradients")
    if any(t.dtype != np.float64 for t in checked):
        raise ValueError("gradcheck: inputs that require gradients must be float64")
    rng = np.random.default_rng(seed)
    outputs = [t for t in _outputs(function(*inputs)) if t.requires_grad]
    weights = [rng.standard_normal(t.shape) for t in outputs]
    analytic = grad(outputs, checked, weights, allow_unused=True)

    def value() -> float:
        # The same outputs as above: those that carry gradients come in the same order.
        again = [t for t in _outputs(function(*inputs)) if t.requires_grad]
        return float(sum((t._array * v).sum() for t, v in zip(again, weights, strict=True)))

    for number, (tensor, found) in enumerate(zip(checked, analytic, strict=True)):
        numeric = np.zeros(tensor.shape)
        array = tensor._array
        for index in np.ndindex(tensor.shape):
            kept = array[index]
            array[index] = kept + step
            above = value()
            array[index] = kept - step
            numeric[index] = (above - value()) / (2 * step)
            array[index] = kept
        actual = np.zeros(tensor.shape) if found is None else found.numpy()
        if actual.shape != tensor.shape:
            raise AssertionError(f"gradient {number} has shape {actual.shape}, its input {tensor.shape}")
        error = np.abs(actual - numeric)
        scale = max(1.0, float(np.abs(numeric).max(initial=0)))
        if error.size and not float(error.max()) <= tolerance * scale:
            worst = np.unravel_index(int(error.argmax()), error.shape)
            raise AssertionError(
                f"gradient of input {number} at {tuple(map(int, worst))}: backward says "
                f"{actual[worst]:.10g}, differences say {numeric[worst]:.10g}"
            )


def adjoint_check(
    forward: Callable[[Array], Array],
    backward: Callable[[Array], Array],
    x: Array,
    gy: Array,
    tolerance: float = 1e-10,
) -> None:
    """Check <forward(x), gy> = <x, backward(gy)>, which holds exactly for a linear map and its adjoint.

    AssertionError states both sides when they differ by more than ``tolerance`` of |forward(x)|·|gy|.
    """
    y, gx = forward(x), backward(gy)
    left, right = float(np.vdot(y, gy)), float(np.vdot(x, gx))
    scale = float(np.linalg.norm(y) * np.linalg.norm(gy)) or 1.0
    if not abs(left - right) <= tolerance * scale:
        raise AssertionError(f"<forward(x), gy> = {left:.15g} but <x, backward(gy)> = {right:.15g}")
