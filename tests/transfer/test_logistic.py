"""Logistic regression against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite.transfer import logistic

sklearn = pytest.importorskip(
    "sklearn.linear_model", reason="scikit-learn is the oracle here; install nnlite[test]"
)


def blobs(count, features, classes, seed=0, spread=2.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)])
    centres = rng.standard_normal((classes, features))
    return centres[labels] + spread * rng.standard_normal((count, features)), labels


def loss(theta, x, labels, c):
    logits = x @ theta[:, :-1].T + theta[:, -1]
    logits -= logits.max(1, keepdims=True)
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_probability[np.arange(len(labels)), labels].sum() + (theta[:, :-1] ** 2).sum() / (2 * c)


@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0, 100.0])
@pytest.mark.parametrize(("count", "features", "classes"), [(60, 4, 3), (40, 30, 5), (200, 10, 8)])
def test_the_minimum_is_scikit_learns(count, features, classes, c):
    x, labels = blobs(count, features, classes)
    theta = logistic.solve(x, labels, classes, c)
    known = sklearn.LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, labels)
    best = loss(np.column_stack([known.coef_, known.intercept_]), x, labels, c)
    assert loss(theta, x, labels, c) == pytest.approx(best, rel=1e-6)
    logits = x @ theta[:, :-1].T + theta[:, -1]
    margin = np.sort(known.predict_log_proba(x), axis=1)[:, -2:]
    clear = np.diff(margin)[:, 0] > 1e-3  # where two classes are equal, rounding decides
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(logits.argmax(1)[clear], known.predict(x)[clear])


@pytest.mark.parametrize(("count", "features"), [(60, 4), (30, 200)])
def test_centring_scaling_and_rotating_leave_the_solution(count, features):
    x, labels = blobs(count, features, 3)
    x = 7 * x + 100  # far from the origin, in another unit
    model = logistic.fit(x, labels, 3)
    assert model.c in logistic.GRID
    scale = np.sqrt(((x - x.mean(0)) ** 2).mean())
    known = sklearn.LogisticRegression(C=model.c, tol=1e-10, max_iter=10_000).fit(
        (x - x.mean(0)) / scale, labels
    )
    expected = known.decision_function((x - x.mean(0)) / scale)
    # Logits are known up to a shift per picture; the optimisers stop within 1e-5 of the first gradient.
    actual = model.logits(x)
    actual -= actual.mean(1, keepdims=True)
    np.testing.assert_allclose(
        actual, expected - expected.mean(1, keepdims=True), atol=2e-3 * np.abs(expected).max()
    )


def test_regularisation_follows_the_data():
    separable, labels = blobs(120, 5, 3, spread=0.05)
    assert (logistic.fit(separable, labels, 3).logits(separable).argmax(1) == labels).all()
    noise = np.random.default_rng(0).standard_normal((120, 50))
    assert logistic.fit(noise, labels, 3).c <= 0.1


def test_one_picture_of_a_class_and_a_class_without_any():
    x, labels = blobs(20, 4, 2)
    labels[0] = 3  # class 2 has none
    model = logistic.fit(x, labels, 4)
    assert model.c == 0.01
    assert model.logits(x).shape == (20, 4)
    assert np.isfinite(model.logits(x)).all()


def test_equal_features_answer_with_the_majority():
    labels = np.array([0, 1, 1, 1, 0, 1])
    model = logistic.fit(np.ones((6, 3)), labels, 2)
    assert (model.logits(np.ones((1, 3))).argmax(1) == 1).all()
