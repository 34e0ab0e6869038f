"""How far predicted numbers are from the true ones, equal to scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def regression_report(values: ArrayLike, predictions: ArrayLike, names: Sequence[str]) -> dict[str, Any]:
    """Figures of ``predictions`` [N,K] of ``values`` [N,K], as plain JSON types.

    With e = prediction - value, for each of the K numbers and, as plain means of those, overall:

        MAE = mean |e|    RMSE = √(mean e²)    R² = 1 - Σe² / Σ(value - mean value)²

    R² of values that are all alike is 1 where they are hit exactly and 0 otherwise. Keys: pictures, mae,
    rmse, r2, numbers [{name, mae, rmse, r2}]. Source: scikit-learn ``r2_score`` and its kin.
    """
    y, p = np.asarray(values, np.float64), np.asarray(predictions, np.float64)
    if y.shape != p.shape or y.ndim != 2 or y.size == 0 or y.shape[1] != len(names):
        raise ShapeError(
            f"regression_report: values {list(y.shape)} and predictions {list(p.shape)} must be [N,K] for "
            f"{len(names)} names"
        )
    error = p - y
    mae, mse = np.abs(error).mean(0), (error**2).mean(0)
    spread = y.var(0)
    r2 = np.where(spread > 0, 1 - mse / np.where(spread > 0, spread, 1), (mse == 0).astype(float))
    rmse = np.sqrt(mse)
    return {
        "pictures": len(y),
        "mae": float(mae.mean()),
        "rmse": float(rmse.mean()),
        "r2": float(r2.mean()),
        "numbers": [
            {"name": name, "mae": float(mae[k]), "rmse": float(rmse[k]), "r2": float(r2[k])}
            for k, name in enumerate(names)
        ],
    }
