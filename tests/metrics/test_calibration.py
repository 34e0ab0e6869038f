"""Reliability and ECE against sums made by hand and a loop over the definition."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite.errors import ConfigError, ShapeError
from nnlite.metrics import expected_calibration_error, reliability


def test_a_diagram_made_by_hand():
    # Two bins: 0.3, 0.5 (one of two right) and 0.6, 0.8, 1.0 (all right).
    found = reliability([0.3, 0.5, 0.6, 0.8, 1.0], [True, False, True, True, True], bins=2)
    low, high = found.bins
    assert (low.low, low.high, low.count, low.accuracy) == (0, 0.5, 2, 0.5)
    assert low.confidence == pytest.approx(0.4)
    assert (high.low, high.high, high.count, high.accuracy) == (0.5, 1, 3, 1)
    assert high.confidence == pytest.approx(0.8)
    assert found.ece == pytest.approx(2 / 5 * 0.1 + 3 / 5 * 0.2)
    assert found.mce == pytest.approx(0.2)


def test_bins_are_closed_at_their_upper_end_and_empty_ones_count_nothing():
    found = reliability([0.0, 0.2, 0.4, 0.6], [True] * 4, bins=5)
    assert [one.count for one in found.bins] == [2, 1, 1, 0, 0]  # 0 belongs to the first
    assert found.bins[4].accuracy == found.bins[4].confidence == 0
    assert found.mce == pytest.approx(0.9)  # of the first bin: all right, 0.1 sure
    assert found.to_dict()["bins"][0]["count"] == 2


def test_many_pictures_against_the_definition(normal):
    rng = np.random.default_rng(0)
    scores = np.exp(2 * normal(400, 6).astype(np.float64))
    p = scores / scores.sum(1, keepdims=True)
    labels = rng.integers(0, 6, 400)
    expected = 0.0
    for m in range(1, 11):
        members = [n for n in range(400) if (m - 1) / 10 < p[n].max() <= m / 10]
        if members:
            accuracy = sum(p[n].argmax() == labels[n] for n in members) / len(members)
            expected += len(members) / 400 * abs(accuracy - sum(p[n].max() for n in members) / len(members))
    assert expected_calibration_error(labels, p, bins=10) == pytest.approx(expected, abs=1e-12)


def test_a_sure_and_right_classifier_has_no_error():
    assert expected_calibration_error([0, 1], np.eye(2)) == 0
    assert expected_calibration_error([1, 0], np.eye(2)) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([0.5], [True, False]), ShapeError, r"\[1\] and correct \[2\]"),
        (([], []), ShapeError, "N >= 1"),
        (([1.5], [True]), ConfigError, "apply softmax"),
        (([float("nan")], [True]), ConfigError, "apply softmax"),
        (([0.5], [True], 0), ConfigError, "bins=0"),
    ],
)
def test_what_cannot_be_binned(arguments, error, match):
    with pytest.raises(error, match=match):
        reliability(*arguments)


def test_labels_and_probabilities_must_fit():
    with pytest.raises(ShapeError, match=r"\[3\] and probabilities \[2, 2\]"):
        expected_calibration_error([0, 1, 1], np.eye(2))
