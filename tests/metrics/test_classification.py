from __future__ import annotations

import json
import math
from types import ModuleType

import numpy as np
import pytest

from nnlite.errors import ConfigError, DTypeError, ShapeError
from nnlite.metrics import (
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    precision_recall_f1,
    report,
    top_k_accuracy,
)

REASON = "scikit-learn is the oracle of these tests; install the 'test' extra"


@pytest.fixture
def sk() -> ModuleType:
    pytest.importorskip("sklearn", reason=REASON)
    import sklearn.metrics

    return sklearn.metrics


def draw(seed: int, N: int, C: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, C, N), rng.integers(0, C, N)


CASES = {
    "balanced": (*draw(0, 200, 4), 4),
    "many classes, few pictures": (*draw(1, 15, 9), 9),
    "absent from labels": (np.array([0, 0, 2, 2]), np.array([0, 1, 2, 1]), 3),
    "absent from predictions": (np.array([0, 1, 2, 1]), np.array([0, 0, 2, 2]), 3),
    "absent from both": (np.array([0, 2, 2]), np.array([0, 2, 0]), 5),
    "all wrong": (np.array([0, 1]), np.array([1, 0]), 2),
    "all right": (np.array([0, 1, 1]), np.array([0, 1, 1]), 2),
    "one picture": (np.array([1]), np.array([0]), 2),
    "one class": (np.array([0, 0]), np.array([0, 0]), 1),
}
cases = pytest.mark.parametrize("case", CASES)


# ---------------------------------------------------------------------------------- by hand


def test_confusion_by_hand() -> None:
    m = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 2, 2], 4)
    assert m.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    assert m.dtype == np.int64


def test_rates_by_hand() -> None:
    scores = precision_recall_f1([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(scores.precision, [1 / 2, 1 / 2, 1, 0])
    np.testing.assert_allclose(scores.recall, [1 / 2, 1, 2 / 3, 0])
    np.testing.assert_allclose(scores.f1, [1 / 2, 2 / 3, 4 / 5, 0])
    assert scores.support.tolist() == [2, 1, 3, 0]
    assert scores.macro.precision == pytest.approx(2 / 4)
    assert scores.macro.recall == pytest.approx((1 / 2 + 1 + 2 / 3) / 4)
    assert scores.weighted.f1 == pytest.approx((2 * 1 / 2 + 1 * 2 / 3 + 3 * 4 / 5) / 6)
    assert scores.micro.precision == scores.micro.recall == scores.micro.f1 == pytest.approx(4 / 6)


def test_top_k_by_hand() -> None:
    scores = [[0.1, 0.5, 0.4], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]
    assert top_k_accuracy([2, 2, 0], scores, 1) == 0
    assert top_k_accuracy([2, 2, 0], scores, 2) == pytest.approx(2 / 3)
    assert top_k_accuracy([2, 2, 0], scores, 3) == 1


def test_ties_go_to_the_lower_index() -> None:
    tied = [[1.0, 1.0, 1.0]] * 3
    assert [top_k_accuracy([0, 1, 2], tied, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (300, 6))  # ties everywhere
    labels = rng.integers(0, 6, 300)
    assert top_k_accuracy(labels, scores, 1) == accuracy(labels, scores.argmax(axis=1))


def test_infinite_scores_are_scores() -> None:
    assert top_k_accuracy([0, 1], [[-math.inf, 0.0], [0.0, math.inf]], 1) == 0.5


def test_log_loss_by_hand() -> None:
    expected = -(math.log(0.5) + math.log(0.25)) / 2
    assert log_loss([0, 1], [[0.5, 0.5, 0.0], [0.75, 0.25, 0.0]]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("dtype", "eps"), [(np.float64, 2**-52), (np.float32, 2**-23)])
def test_certain_and_wrong_is_finite(dtype: type, eps: float) -> None:
    assert log_loss([0], np.array([[0, 1]], dtype)) == pytest.approx(-math.log(eps), rel=1e-6)


# ---------------------------------------------------------------------------------- scikit-learn


@pytest.mark.filterwarnings("ignore:A single label was found")
@cases
def test_confusion_is_scikit_learns(sk: ModuleType, case: str) -> None:
    labels, predictions, C = CASES[case]
    expected = sk.confusion_matrix(labels, predictions, labels=range(C))
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, C), expected)
    assert accuracy(labels, predictions) == pytest.approx(sk.accuracy_score(labels, predictions), abs=0)


@cases
def test_rates_are_scikit_learns(sk: ModuleType, case: str) -> None:
    labels, predictions, C = CASES[case]
    scores = precision_recall_f1(confusion_matrix(labels, predictions, C))

    def oracle(average: str | None) -> tuple[np.ndarray, ...]:
        result = sk.precision_recall_fscore_support(
            labels, predictions, labels=range(C), average=average, zero_division=0
        )
        return tuple(result)

    precision, recall, f1, support = oracle(None)
    np.testing.assert_allclose(scores.precision, precision, rtol=1e-14)
    np.testing.assert_allclose(scores.recall, recall, rtol=1e-14)
    np.testing.assert_allclose(scores.f1, f1, rtol=1e-14)
    np.testing.assert_array_equal(scores.support, support)
    for average, ours in (("macro", scores.macro), ("micro", scores.micro), ("weighted", scores.weighted)):
        np.testing.assert_allclose((ours.precision, ours.recall, ours.f1), oracle(average)[:3], rtol=1e-13)


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_top_k_is_scikit_learns(sk: ModuleType, k: int) -> None:
    rng = np.random.default_rng(k)
    scores, labels = rng.normal(size=(100, 8)), rng.integers(0, 8, 100)
    expected = sk.top_k_accuracy_score(labels, scores, k=k, labels=range(8))
    assert top_k_accuracy(labels, scores, k) == pytest.approx(expected, abs=1e-15)
    assert top_k_accuracy(labels, scores.astype(np.float32), k) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_is_scikit_learns(sk: ModuleType, dtype: type) -> None:
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(6), 50)
    p[0] = np.eye(6)[2]  # certain
    labels = rng.integers(0, 5, 50)  # class 5 is absent
    labels[0] = 1
    expected = sk.log_loss(labels, p.astype(dtype), labels=range(6))
    assert log_loss(labels, p.astype(dtype)) == pytest.approx(
        expected, rel=1e-6 if dtype is np.float32 else 1e-14
    )


# ---------------------------------------------------------------------------------- report


def test_report_is_json_and_consistent() -> None:
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.ones(3), 40).astype(np.float32)
    labels = rng.integers(0, 3, 40)
    result = report(labels, p, ["ant", "bee", "cat"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    predictions = p.argmax(axis=1)
    assert result["pictures"] == 40
    assert result["accuracy"] == accuracy(labels, predictions) == result["micro"]["f1"]
    assert result["top_k"] == {"k": 3, "accuracy": 1.0}
    assert result["log_loss"] == log_loss(labels, p)
    assert result["ece"] == expected_calibration_error(labels, p)
    assert result["confusion"] == confusion_matrix(labels, predictions, 3).tolist()
    assert [row["name"] for row in result["classes"]] == ["ant", "bee", "cat"]
    assert sum(row["support"] for row in result["classes"]) == 40
    assert result["macro"]["recall"] == pytest.approx(np.mean([row["recall"] for row in result["classes"]]))
    assert report(labels, p, ["a", "b", "c"], k=2)["top_k"] == {
        "k": 2,
        "accuracy": top_k_accuracy(labels, p, 2),
    }


# ---------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: confusion_matrix([0, 3], [0, 0], 3),
            ConfigError,
            r"labels holds 3, which is not in 0 \.\. 2",
        ),
        (lambda: confusion_matrix([0, 1], [0, -1], 3), ConfigError, r"predictions holds -1, which is not in"),
        (lambda: confusion_matrix([0], [0], 0), ConfigError, "classes=0 must be at least 1"),
        (lambda: confusion_matrix([0, 1], [0], 2), ShapeError, "2 labels for 1 predictions"),
        (lambda: confusion_matrix([], [], 2), ShapeError, r"labels has shape \[0\] but must be \[N\]"),
        (lambda: accuracy([0, 1], [[0, 1]]), ShapeError, r"predictions has shape \[1, 2\] but must be \[N\]"),
        (
            lambda: accuracy([0, 1], [0.5, 1.0]),
            DTypeError,
            r"predictions is float64 .* scores\.argmax\(1\)\?",
        ),
        (lambda: accuracy([True], [True]), DTypeError, "labels is bool but must be integers"),
        (lambda: top_k_accuracy([0], [[0.5, 0.5]], 0), ConfigError, r"k=0 must be in 1 \.\. 2"),
        (lambda: top_k_accuracy([0], [[0.5, 0.5]], 3), ConfigError, r"k=3 must be in 1 \.\. 2"),
        (
            lambda: top_k_accuracy([2], [[0.5, 0.5]], 1),
            ConfigError,
            r"labels holds 2, which is not in 0 \.\. 1",
        ),
        (
            lambda: top_k_accuracy([0], [[0.5, math.nan]], 1),
            ConfigError,
            "scores holds NaN; the model has div",
        ),
        (
            lambda: top_k_accuracy([0], [0.5, 0.5], 1),
            ShapeError,
            r"scores has shape \[2\] but must be \[N,C\]",
        ),
        (
            lambda: log_loss([0], [[2.0, -1.0]]),
            ConfigError,
            "must be within 0 .. 1 and sum to 1; apply softmax",
        ),
        (lambda: log_loss([0], [[0.2, 0.2]]), ConfigError, "sum to 1; apply softmax"),
        (lambda: log_loss([0, 1], [[0.5, 0.5]]), ShapeError, "2 labels for 1 predictions"),
        (
            lambda: precision_recall_f1([[1, 2]]),
            ShapeError,
            r"confusion has shape \[1, 2\] but must be \[C,C\]",
        ),
        (lambda: precision_recall_f1([[0, 0], [0, 0]]), ConfigError, "counts of at least one picture"),
        (lambda: precision_recall_f1([[2, 0], [-1, 0]]), ConfigError, "counts of at least one picture"),
        (lambda: report([0], [[1.0, 0.0]], ["a"]), ShapeError, "2 columns for 1 class names"),
    ],
)
def test_errors(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
