"""One check of all gradients of a model at once."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite import optim


def take_small_step(parameters, loss, share=1e-3, rel=0.1):
    """Go against the gradient so far that ``loss()`` should fall by ``share`` of itself; see that it does.

    Parameters that ``loss`` does not depend on stay as they are.
    """
    first = loss()
    first.backward()
    moved = [p for p in parameters if p.grad is not None]
    squares = sum(float((p.grad.numpy().astype(np.float64) ** 2).sum()) for p in moved)
    expected = share * first.item()
    optim.SGD(moved, lr=expected / squares).step()
    assert first.item() - loss().item() == pytest.approx(expected, rel=rel)
