"""Ridge regression, solved exactly: the honest baseline for numbers on frozen features.

    minimise  |X W + b - Y|² + λ |W|²

with λ chosen by leaving each picture out in turn, which costs nothing beyond one decomposition: with
H = U diag(s² / (s² + λ)) Uᵀ + 1/N the residual of a picture left out is its residual divided by 1 - H_ii
(Allen 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnlite.layout import Array

GRID = tuple(10.0**e for e in range(-4, 7))


@dataclass(frozen=True)
class Ridge:
    """Weights [D,K], offset [K] and the regularisation that was chosen, relative to the mean s²."""

    weight: Array
    offset: Array
    penalty: float

    def predict(self, x: Array) -> Array:
        """x W + b for features [N,D]."""
        result: Array = x.astype(np.float64) @ self.weight + self.offset
        return result


def fit(features: Array, values: Array) -> Ridge:
    """Fit on features [N,D] and values [N,K]."""
    x, y = features.astype(np.float64), values.astype(np.float64)
    mean, offset = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    scale = float((s**2).mean()) or 1.0
    along = u.T @ (y - offset)
    best: tuple[float, float] | None = None
    for penalty in reversed(GRID):  # of equals the strongest
        shrink = s**2 / (s**2 + penalty * scale)
        left = (y - offset) - u @ (shrink[:, None] * along)
        leverage = (u**2 @ shrink + 1 / len(x)).clip(max=1 - 1e-9)
        error = float(((left / (1 - leverage)[:, None]) ** 2).sum())
        if best is None or error < best[0]:
            best = error, penalty
    assert best is not None
    factor = s / (s**2 + best[1] * scale)
    weight = vt.T @ (factor[:, None] * along)
    return Ridge(weight, offset - mean @ weight, best[1])
