"""How good predictions of several labels per picture are, equal to scikit-learn's.

Letters: N pictures, K labels. Labels are 0 or 1 of shape [N,K], scores rank pictures, [N,K].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.errors import ConfigError, ShapeError
from nnlite.layout import Array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Σ_i (R_i - R_{i-1}) · P_i over the thresholds, of labels 0 or 1 [N] and scores [N].

    P and R are precision and recall where everything that scores at least the i-th highest distinct
    score counts as found. 0 where no label is 1. Source: scikit-learn ``average_precision_score``.
    """
    y, s = _pair("average_precision", labels, scores)
    positives = y.sum()
    if positives == 0:
        return 0.0
    order = np.argsort(-s, kind="stable")
    y, s = y[order], s[order]
    ends = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # the last picture of each distinct score
    found = np.cumsum(y)[ends]
    precision, recall = found / (ends + 1), found / positives
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def multilabel_report(labels: ArrayLike, probabilities: ArrayLike, names: Sequence[str]) -> dict[str, Any]:
    """Figures of predicted ``probabilities`` [N,K], as plain JSON types; 0.5 and above is a yes.

    Keys: pictures, mean_average_precision (over the labels that occur), exact (share of pictures with
    every label right), macro and micro {precision, recall, f1}, labels [{name, average_precision,
    precision, recall, f1, support}]. 0/0 is 0. Raises ShapeError where shapes do not fit.
    """
    y, p = _pair("multilabel_report", labels, probabilities)
    if y.ndim != 2 or y.shape[1] != len(names):
        raise ShapeError(f"multilabel_report: labels {list(y.shape)} must be [N,K] for {len(names)} names")
    yes = p >= 0.5
    hits, predicted, support = (yes & (y > 0)).sum(0), yes.sum(0), (y > 0).sum(0)
    rates = _rates(hits, predicted, support)
    entries: list[dict[str, Any]] = [
        {
            "name": name, "average_precision": average_precision(y[:, k], p[:, k]),
            "precision": float(rates[0][k]), "recall": float(rates[1][k]), "f1": float(rates[2][k]),
            "support": int(support[k]),
        }
        for k, name in enumerate(names)
    ]  # fmt: skip
    micro = _rates(*(np.array([part.sum()]) for part in (hits, predicted, support)))
    keys = ("precision", "recall", "f1")
    occurring = [entry["average_precision"] for entry in entries if entry["support"]]
    return {
        "pictures": len(y),
        "mean_average_precision": float(np.mean(occurring)) if occurring else 0.0,
        "exact": float((yes == (y > 0)).all(1).mean()),
        "macro": {key: float(rate.mean()) for key, rate in zip(keys, rates, strict=True)},
        "micro": {key: float(rate[0]) for key, rate in zip(keys, micro, strict=True)},
        "labels": entries,
    }


def _rates(hits: Array, predicted: Array, support: Array) -> tuple[Array, Array, Array]:
    def ratio(part: Array, whole: Array) -> Array:
        return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

    return ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, predicted + support)


def _pair(op: str, labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    y, s = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if y.shape != s.shape or y.size == 0:
        raise ShapeError(f"{op}: labels {list(y.shape)} and scores {list(s.shape)} must be alike, not empty")
    if not np.isin(y, (0, 1)).all():
        raise ConfigError(f"{op}: labels must be 0 or 1")
    return y, s
