"""Multinomial logistic regression, solved exactly: the honest baseline on frozen features.

    minimise  Σ_n -ln softmax(W x_n + b)[y_n] + |W|² / (2 C)

by L-BFGS (Liu and Nocedal 1989, doi:10.1007/BF01589116) in float64, C chosen by cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnlite.layout import Array

GRID = tuple(10.0**e for e in (-4, -3, -2, -1, 0, 1, 2))
FOLDS = 5
MEMORY = 10
SEARCH_TOLERANCE = 1e-5
"""Enough to compare values of C; the solution that is reported is exact to 1e-8."""


@dataclass(frozen=True)
class LogisticRegression:
    """Weights [classes, features], bias [classes] and the regularisation that was chosen."""

    weight: Array
    bias: Array
    c: float

    def logits(self, x: Array) -> Array:
        """x Wᵀ + b for features [N, features]."""
        result: Array = x @ self.weight.T + self.bias
        return result


def minimise(
    function: Callable[[Array], tuple[float, Array]], x: Array, limit: float, iterations: int = 1000
) -> Array:
    """L-BFGS with backtracking; ``function`` returns value and gradient.

    Stops when no element of the gradient exceeds ``limit``, or when rounding hides any further gain.
    """
    value, gradient = function(x)
    steps: list[tuple[Array, Array, float]] = []
    for _ in range(iterations):
        if np.abs(gradient).max() <= limit:
            break
        direction = -_inverse_hessian_times(gradient, steps)
        slope = float(gradient @ direction)
        rate = 1.0 if steps else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        while True:  # Armijo: a step must gain at least a ten-thousandth of what the slope promises
            candidate = x + rate * direction
            new_value, new_gradient = function(candidate)
            if new_value <= value + 1e-4 * rate * slope or rate < 1e-12:
                break
            rate /= 2
        s, y = candidate - x, new_gradient - gradient
        if (curvature := float(s @ y)) > 1e-12:
            steps = [*steps[-(MEMORY - 1) :], (s, y, 1 / curvature)]
        stuck = rate < 1e-12 or new_value >= value
        if new_value <= value:
            x, value, gradient = candidate, new_value, new_gradient
        if stuck:
            break
    return x


def _inverse_hessian_times(gradient: Array, steps: list[tuple[Array, Array, float]]) -> Array:
    """The two-loop recursion."""
    q = gradient.copy()
    alphas = []
    for s, y, rho in reversed(steps):
        alphas.append(rho * float(s @ q))
        q -= alphas[-1] * y
    if steps:
        s, y, rho = steps[-1]
        q /= rho * float(y @ y)
    for (s, y, rho), alpha in zip(steps, reversed(alphas), strict=True):
        q += (alpha - rho * float(y @ q)) * s
    result: Array = q
    return result


def solve(
    x: Array, labels: Array, classes: int, c: float, start: Array | None = None, tolerance: float = 1e-8
) -> Array:
    """Parameters [classes, features + 1] (bias last) for one C.

    Exact to where the gradient is ``tolerance`` times that of zero parameters.
    """
    count, features = x.shape
    onehot = np.eye(classes)[labels]

    def function(flat: Array) -> tuple[float, Array]:
        theta = flat.reshape(classes, features + 1)
        logits = x @ theta[:, :-1].T + theta[:, -1]
        logits -= logits.max(1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
        loss = -float((onehot * (logits - log_sum)).sum())
        error = np.exp(logits - log_sum) - onehot
        gradient = np.concatenate([error.T @ x + theta[:, :-1] / c, error.sum(0)[:, None]], 1)
        penalty = float((theta[:, :-1] ** 2).sum()) / (2 * c)
        # Divided by the count so that the stopping rule means the same for any number of pictures.
        return (loss + penalty) / count, gradient.ravel() / count

    initial = np.zeros(classes * (features + 1)) if start is None else start.ravel()
    # Measured at zero, not at ``start``: a start that is nearly the solution has nearly no gradient.
    scale = float(np.abs(function(np.zeros_like(initial))[1]).max())
    return minimise(function, initial, tolerance * max(scale, 1e-12)).reshape(classes, features + 1)


def fit(features: Array, labels: Array, classes: int, seed: int = 0) -> LogisticRegression:
    """Fit on features [N,D] and labels [N]; C from ``GRID`` by stratified cross-validation.

    Features are centred and divided by one common scale. Where D > N they are first rotated into the
    at most N directions that they span, which leaves the solution exactly as it is.
    """
    mean = features.astype(np.float64).mean(0)
    x, scale, rotation = _standardised(features)
    c = _choose(x, labels, classes, seed)
    theta = solve(x, labels, classes, c)
    weight = theta[:, :-1] / scale
    if rotation is not None:
        weight = weight @ rotation
    return LogisticRegression(weight, theta[:, -1] - weight @ mean, c)


def cross_validated_accuracy(features: Array, labels: Array, classes: int, seed: int = 0) -> float | None:
    """The part of held-out pictures that is right, at the best C; None with one picture of a class."""
    right = _right(_standardised(features)[0], labels, classes, seed)
    return None if right is None else float(right.max() / len(labels))


def _standardised(features: Array) -> tuple[Array, float, Array | None]:
    x = features.astype(np.float64)
    x = x - x.mean(0)
    scale = float(np.sqrt((x**2).mean())) or 1.0
    rotation: Array | None = None
    if x.shape[1] > x.shape[0]:
        _, _, rotation = np.linalg.svd(x, full_matrices=False)
        x = x @ rotation.T
    return x / scale, scale, rotation


def _choose(x: Array, labels: Array, classes: int, seed: int) -> float:
    right = _right(x, labels, classes, seed)
    if right is None:
        return 0.01  # nothing to validate on
    return GRID[int(right.argmax())]  # the first of equals: the strongest regularisation


def _right(x: Array, labels: Array, classes: int, seed: int) -> Array | None:
    """How many held-out pictures each C of ``GRID`` has right; None with one picture of a class."""
    smallest = int(np.bincount(labels, minlength=classes)[np.unique(labels)].min())
    folds = min(FOLDS, smallest)
    if folds < 2:
        return None
    fold = np.empty(len(labels), int)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        at = rng.permutation(np.flatnonzero(labels == label))
        fold[at] = np.arange(len(at)) % folds
    right = np.zeros(len(GRID))
    for k in range(folds):
        train, held = fold != k, fold == k
        theta: Array | None = None
        for i, c in enumerate(GRID):  # from strong to weak: each solution starts the next
            theta = solve(x[train], labels[train], classes, c, theta, SEARCH_TOLERANCE)
            logits = x[held] @ theta[:, :-1].T + theta[:, -1]
            right[i] += (logits.argmax(1) == labels[held]).sum()
    return right
