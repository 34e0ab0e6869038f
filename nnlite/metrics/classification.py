"""How good a classifier is: counts, rates and losses, equal to scikit-learn's.

Letters: N pictures, C classes. Labels and predictions are integers 0 .. C-1 of shape [N]. Counting is
exact in int64 and everything else float64. An empty set of pictures has no rate and raises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.errors import ConfigError, DTypeError, ShapeError
from nnlite.layout import Array
from nnlite.metrics.calibration import expected_calibration_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Average:
    """Precision, recall and F1, averaged over the classes in one way."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 per class, float64 [C], their support int64 [C], and three averages."""

    precision: Array
    recall: Array
    f1: Array
    support: Array
    macro: Average
    micro: Average
    weighted: Average


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> Array:
    """M int64 [C,C], M[i,j] = how many pictures of class i were predicted as j.

    Raises ShapeError when the two differ in shape or are empty, DTypeError unless they are integers,
    ConfigError when a value is not in 0 .. ``classes`` - 1. Source: scikit-learn ``confusion_matrix``.
    """
    if classes < 1:
        raise ConfigError(f"confusion_matrix: classes={classes} must be at least 1")
    y = _classes("confusion_matrix", "labels", labels, classes)
    p = _classes("confusion_matrix", "predictions", predictions, classes)
    _same_length("confusion_matrix", y, p)
    return np.bincount(y * classes + p, minlength=classes * classes).reshape(classes, classes)


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The share of pictures whose prediction is their label, 0 .. 1.

    Raises ShapeError or DTypeError as :func:`confusion_matrix` does.
    """
    y = _classes("accuracy", "labels", labels)
    p = _classes("accuracy", "predictions", predictions)
    _same_length("accuracy", y, p)
    return float(np.mean(y == p))


def top_k_accuracy(labels: ArrayLike, scores: ArrayLike, k: int = 5) -> float:
    """The share of pictures whose label is among the ``k`` classes of highest score, 0 .. 1.

    ``scores`` [N,C] may be logits or probabilities. Among equal scores the lower class index counts as
    the higher, as ``argmax`` has it, so that k = 1 is the accuracy of ``scores.argmax(1)``
    (scikit-learn prefers the higher index; without ties the two agree).

    Raises ShapeError for shapes that do not fit, ConfigError for a label without a column, a ``k``
    that is not in 1 .. C, or a score that is NaN.
    """
    s = _matrix("top_k_accuracy", "scores", scores)
    N, C = s.shape
    y = _classes("top_k_accuracy", "labels", labels, C)
    _same_length("top_k_accuracy", y, s)
    if not 1 <= k <= C:
        raise ConfigError(f"top_k_accuracy: k={k} must be in 1 .. {C}, the number of classes")
    own = s[np.arange(N), y][:, np.newaxis]
    ahead = (s > own) | ((s == own) & (np.arange(C) < y[:, np.newaxis]))  # [N,C]
    return float(np.mean(ahead.sum(axis=1) < k))


def precision_recall_f1(confusion: ArrayLike) -> ClassScores:
    """The rates of every class of a confusion matrix [C,C] (rows: labels, columns: predictions).

    With TP = M[c,c], FP and FN the rest of column c and of row c, 0/0 being 0:

        precision = TP / (TP + FP)    recall = TP / (TP + FN)    F1 = 2·TP / (2·TP + FP + FN)

    macro is the mean over all C classes, absent ones counting as 0; weighted is weighted by support
    TP + FN; micro takes the sums of TP, FP and FN, so that all three are the accuracy.

    Raises ShapeError unless the matrix is square and not empty, ConfigError when it holds no picture
    or a negative count. Source: scikit-learn ``precision_recall_fscore_support`` with all labels given
    and ``zero_division=0``.
    """
    m = np.asarray(confusion)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or m.size == 0:
        raise ShapeError(f"precision_recall_f1: confusion has shape {list(m.shape)} but must be [C,C]")
    if m.min() < 0 or m.sum() == 0:
        raise ConfigError("precision_recall_f1: confusion must hold counts of at least one picture")
    hits, support, predicted = np.diagonal(m), m.sum(axis=1), m.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    f1 = _ratio(2 * hits, support + predicted)
    rates = (precision, recall, f1)
    overall = float(hits.sum() / m.sum())
    return ClassScores(
        *rates,
        support=support,
        macro=Average(*(float(rate.mean()) for rate in rates)),
        micro=Average(overall, overall, overall),
        weighted=Average(*(float((rate * support).sum() / support.sum()) for rate in rates)),
    )


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """-mean(log p[n, label n]) in nats, the cross-entropy of ``probabilities`` [N,C].

    Each p is clipped to [eps, 1 - eps], eps being the resolution of its float type (2.2e-16 or
    1.2e-7), so a certain and wrong prediction costs much but not infinity.

    Raises ShapeError for shapes that do not fit, ConfigError for a label without a column or for rows
    that are not probabilities (0 .. 1, sum 1 within 0.001). Source: scikit-learn ``log_loss``.
    """
    p = _matrix("log_loss", "probabilities", probabilities)
    y = _classes("log_loss", "labels", labels, p.shape[1])
    _same_length("log_loss", y, p)
    sums = p.sum(axis=1, dtype=np.float64)
    if p.min() < 0 or p.max() > 1 + 1e-3 or np.abs(sums - 1).max() > 1e-3:
        raise ConfigError(
            "log_loss: each row of probabilities must be within 0 .. 1 and sum to 1; apply softmax"
        )
    eps = np.finfo(p.dtype).eps
    own = np.clip(p[np.arange(len(y)), y], eps, 1 - eps)
    return float(-np.mean(np.log(own, dtype=np.float64)))


def report(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str], k: int = 5) -> dict[str, Any]:
    """All of the above as plain JSON types.

    ``probabilities`` [N,C] with one column per name in ``classes``; predictions are its argmax.
    Keys: pictures, accuracy, top_k {k, accuracy} (k at most C), log_loss, ece (15 bins), macro, micro,
    weighted {precision, recall, f1}, classes [{name, precision, recall, f1, support}], confusion [C][C].

    Raises what the single metrics raise, and ShapeError when names and columns differ in number.
    """
    p = _matrix("report", "probabilities", probabilities)
    C = len(classes)
    if p.shape[1] != C:
        raise ShapeError(f"report: probabilities has {p.shape[1]} columns for {C} class names")
    predictions = p.argmax(axis=1)
    confusion = confusion_matrix(labels, predictions, C)
    scores = precision_recall_f1(confusion)
    k = min(k, C)
    return {
        "pictures": len(p),
        "accuracy": accuracy(labels, predictions),
        "top_k": {"k": k, "accuracy": top_k_accuracy(labels, p, k)},
        "log_loss": log_loss(labels, p),
        "ece": expected_calibration_error(labels, p),
        "macro": asdict(scores.macro),
        "micro": asdict(scores.micro),
        "weighted": asdict(scores.weighted),
        "classes": [
            {
                "name": name,
                "precision": float(scores.precision[c]),
                "recall": float(scores.recall[c]),
                "f1": float(scores.f1[c]),
                "support": int(scores.support[c]),
            }
            for c, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


# ---------------------------------------------------------------------------------- checks


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _classes(op: str, name: str, values: ArrayLike, classes: float = math.inf) -> Array:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ShapeError(f"{op}: {name} has shape {list(array.shape)} but must be [N] with N of at least 1")
    if not np.issubdtype(array.dtype, np.integer):
        raise DTypeError(
            f"{op}: {name} is {array.dtype} but must be integers; did you mean scores.argmax(1)?"
        )
    if array.min() < 0 or array.max() >= classes:
        wrong = array[(array < 0) | (array >= classes)][0]
        raise ConfigError(f"{op}: {name} holds {wrong}, which is not in 0 .. {classes - 1:g}")
    return array.astype(np.int64, copy=False)


def _matrix(op: str, name: str, values: ArrayLike) -> Array:
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ShapeError(f"{op}: {name} has shape {list(array.shape)} but must be [N,C], not empty")
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if np.isnan(array).any():
        raise ConfigError(f"{op}: {name} holds NaN; the model has diverged or its input was not finite")
    return array


def _same_length(op: str, labels: Array, other: Array) -> None:
    if len(labels) != len(other):
        raise ShapeError(f"{op}: {len(labels)} labels for {len(other)} predictions; there must be one each")
