"""The op registry as test cases, and running one of them with chosen gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnlite import layout
from nnlite.ops import OPS, Context, Op, Sample
from nnlite.tensors import Tensor, apply_many

CASES = [
    pytest.param(op, sample, id=f"{name}-{i}")
    for name, op in OPS.items()
    for i, sample in enumerate(op.samples())
]
DIFFERENTIABLE = [case for case in CASES if case.values[0].backward is not None and case.values[1].gradcheck]
ERRORS = [
    pytest.param(op, error, id=f"{name}-{i}")
    for name, op in OPS.items()
    for i, error in enumerate(op.errors())
]

# What the records declare not to be differentiated: measured statistics, given class weights.
CONSTANT_INPUTS = {"batch_norm": (3, 4), "roi_align": (1,), "nll_loss": (2,), "cross_entropy": (2,)}
OUTPUTS = {"batch_norm_training": 1}


def run(op: Op, operands: list[Any], params: Any) -> tuple[Tensor, ...]:
    """All outputs that are differentiated (all, for nearly every op)."""
    tensors = [a if a is None or isinstance(a, Tensor) else Tensor(a) for a in operands]
    return apply_many(op, *tensors, **params)[: OUTPUTS.get(op.name)]


def differentiable(op: Op, arrays: list[np.ndarray | None]) -> list[int]:
    """Numbers of the inputs that have a gradient."""
    constant = CONSTANT_INPUTS.get(op.name, ())
    return [i for i, a in enumerate(arrays) if a is not None and a.dtype.kind == "f" and i not in constant]


def output_gradient(op: Op, sample: Sample, dtype: Any = np.float64) -> np.ndarray:
    """A random gradient of the first output."""
    shape = run(op, sample.arrays(dtype=dtype), sample.params)[0].shape
    return np.asarray(np.random.default_rng(7).standard_normal(shape), dtype)


def gradients(
    op: Op, arrays: list[np.ndarray | None], params: Any, gy: np.ndarray, wanted: set[int]
) -> list[Any]:
    """What ``op`` itself returns from forward and backward when the inputs ``wanted`` need gradients."""
    order = {"any": lambda a: a, "C": layout.contiguous, "channels_last": layout.channels_last}[op.layout]
    needs = tuple(i in wanted for i in range(len(arrays)))
    context = Context(params, needs)
    result = op.forward(context, *(None if a is None else order(a) for a in arrays), **params)
    arriving = (order(gy), *[None] * (len(result) - 1)) if isinstance(result, tuple) else order(gy)
    return list(op.backward(context, arriving, needs))


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """Equal within ``tolerance`` of the largest magnitude (at least 1), shapes included."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)
