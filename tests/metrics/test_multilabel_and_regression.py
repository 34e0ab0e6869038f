from __future__ import annotations

import numpy as np
import pytest

from nnlite.errors import ConfigError, ShapeError
from nnlite.metrics import average_precision, multilabel_report, regression_report

REASON = "scikit-learn is the oracle of these tests; install the 'test' extra"


def test_average_precision_by_hand() -> None:
    # Found in the order 1, 0, 1: precision 1 at recall 1/2, 2/3 at recall 1.
    assert average_precision([1, 0, 1], [0.9, 0.8, 0.7]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([1, 0], [0.5, 0.5]) == 0.5, "equal scores are found together"
    assert average_precision([0, 0], [0.1, 0.2]) == 0


@pytest.mark.parametrize("levels", [3, 1000])
def test_multilabel_against_scikit_learn(levels: int) -> None:
    sk = pytest.importorskip("sklearn.metrics", reason=REASON)
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, (60, 4)), rng.integers(0, levels, (60, 4)) / levels
    y[:, 3] = 0
    report = multilabel_report(y, p, "abcd")
    expected = [sk.average_precision_score(y[:, k], p[:, k]) for k in range(3)]
    assert [e["average_precision"] for e in report["labels"]] == pytest.approx([*expected, 0])
    assert report["mean_average_precision"] == pytest.approx(np.mean(expected))
    yes = p >= 0.5
    assert report["exact"] == pytest.approx(sk.accuracy_score(y, yes))
    figures = sk.precision_recall_fscore_support(y, yes, zero_division=0)
    for i, key in enumerate(("precision", "recall", "f1", "support")):
        assert [e[key] for e in report["labels"]] == pytest.approx(list(figures[i]))
    for average in ("macro", "micro"):
        wanted = sk.precision_recall_fscore_support(y, yes, zero_division=0, average=average)[:3]
        assert list(report[average].values()) == pytest.approx(list(wanted))


def test_regression_by_hand() -> None:
    report = regression_report([[1.0], [3.0]], [[2.0], [3.0]], ["x"])
    assert report == {
        "pictures": 2, "mae": 0.5, "rmse": pytest.approx(np.sqrt(0.5)), "r2": pytest.approx(0.5),
        "numbers": [{"name": "x", "mae": 0.5, "rmse": pytest.approx(np.sqrt(0.5)), "r2": pytest.approx(0.5)}],
    }  # fmt: skip


def test_regression_against_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics", reason=REASON)
    rng = np.random.default_rng(0)
    y = rng.standard_normal((30, 3)) * [1, 10, 0] + [0, 100, 5]
    p = y + rng.standard_normal((30, 3))
    report = regression_report(y, p, "abc")
    assert report["mae"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert report["r2"] == pytest.approx(sk.r2_score(y, p))
    each = np.sqrt(sk.mean_squared_error(y, p, multioutput="raw_values"))
    assert [e["rmse"] for e in report["numbers"]] == pytest.approx(list(each))


def test_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="must be alike"):
        average_precision([1], [1, 2])
    with pytest.raises(ConfigError, match="labels must be 0 or 1"):
        multilabel_report([[2]], [[0.5]], "a")
    with pytest.raises(ShapeError, match=r"must be \[N,K\] for 2 names"):
        multilabel_report([[1]], [[0.5]], "ab")
    with pytest.raises(ShapeError, match=r"must be \[N,K\] for 2 names"):
        regression_report([[1]], [[0.5]], "ab")
