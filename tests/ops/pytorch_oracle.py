"""Comparing a function of nnlite with PyTorch's, values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_samples import assert_close

import nnlite as nl

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
T = torch.nn.functional


def arrays(*shapes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [None if shape is None else rng.standard_normal(shape).astype(dtype) for shape in shapes]


def compare(ours: Any, theirs: Any, operands: list[np.ndarray | None], tolerance: float = 1e-11) -> None:
    """Values of ``ours(*tensors)`` and ``theirs(*tensors)``, and the gradients of all floating operands."""
    floats = [a is not None and a.dtype.kind == "f" for a in operands]
    pairs = list(zip(operands, floats, strict=True))
    mine = [None if a is None else nl.tensor(a, requires_grad=f) for a, f in pairs]
    other = [None if a is None else torch.tensor(a, requires_grad=f) for a, f in pairs]
    y, expected = ours(*mine), theirs(*other)
    assert_close(y.numpy(), expected.detach().numpy(), tolerance)
    gy = np.random.default_rng(99).standard_normal(y.shape).astype(y.dtype)
    y.backward(gy)
    expected.backward(torch.tensor(gy))
    for a, b in zip(mine, other, strict=True):
        if b is not None and b.requires_grad:
            assert_close(a.grad.numpy(), b.grad.numpy(), tolerance)
