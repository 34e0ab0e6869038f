"""Whether a classifier's confidence can be believed: of the pictures it calls 80% sure, are 80% right?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ReliabilityBin:
    """The pictures whose confidence lies in (low, high]; the first bin holds 0 as well."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence; 0 in an empty bin."""
    accuracy: float
    """Share that is right; 0 in an empty bin."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram and its two summaries."""

    bins: tuple[ReliabilityBin, ...]
    ece: float
    """Expected calibration error: the mean gap, weighted by pictures."""
    mce: float
    """Maximum calibration error: the largest gap of a bin that is not empty."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        return asdict(self)


def reliability(confidences: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Confidence against accuracy in M = ``bins`` bins of equal width over 0 .. 1.

    With B_m the n_m pictures whose confidence lies in ((m-1)/M, m/M], n of them in all:

        acc(B_m)  = share of B_m that is right          conf(B_m) = mean confidence of B_m
        ECE = Σ_m n_m/n · |acc(B_m) - conf(B_m)|        MCE = max_m |acc(B_m) - conf(B_m)|

    ``confidences`` [N] are probabilities of the predicted class, ``correct`` [N] true or false. Both
    depend on M: compare only figures of the same M, and mind that bins of few pictures are noise.

    Raises ShapeError unless both are [N] with N of at least 1, ConfigError for ``bins`` below 1 or a
    confidence outside 0 .. 1. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks",
    equations 2 to 5.
    """
    p, right = np.asarray(confidences, np.float64), np.asarray(correct)
    if p.ndim != 1 or p.size == 0 or right.shape != p.shape:
        raise ShapeError(
            f"reliability: confidences {list(p.shape)} and correct {list(right.shape)} must both be [N], "
            "N >= 1"
        )
    if bins < 1:
        raise ConfigError(f"reliability: bins={bins} must be at least 1")
    if not ((p >= 0) & (p <= 1 + 1e-3)).all():  # a softmax in float32 may give a little more than 1
        raise ConfigError("reliability: every confidence must be a probability, 0 .. 1; apply softmax")
    # float64 steps such as 3/15 are not exact; comparing with the edges themselves keeps (low, high].
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.maximum(count, 1)
    confidence = np.bincount(place, weights=p, minlength=bins) / filled
    accuracy = np.bincount(place, weights=right.astype(np.float64), minlength=bins) / filled
    gap = np.abs(accuracy - confidence)
    columns = (edges[:-1], edges[1:], count, confidence, accuracy)
    rows = tuple(ReliabilityBin(*row) for row in zip(*(column.tolist() for column in columns), strict=True))
    return Reliability(rows, float((count * gap).sum() / len(p)), float(gap.max()))


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """ECE of ``probabilities`` [N,C], the largest of each row being the prediction and its confidence.

    Raises what :func:`reliability` raises, and ShapeError unless ``probabilities`` has a row per label.
    """
    p, y = np.asarray(probabilities), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise ShapeError(
            f"expected_calibration_error: labels {list(y.shape)} and probabilities {list(p.shape)} must be "
            "[N] and [N,C]"
        )
    return reliability(p.max(axis=1), p.argmax(axis=1) == y, bins).ece
