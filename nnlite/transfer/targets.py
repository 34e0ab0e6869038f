"""What is learned: one class per picture, several labels, or numbers. Everything that differs between them.

                 single                    multi                          regression
    loss         cross entropy             binary cross entropy           squared error of (y - m) / s
    scores       softmax(logits)           sigmoid(logits)                logits · s + m
    history      accuracy                  share of labels right          R², by the training pictures' s
    quality      accuracy                  mean average precision         R²
    to beat      the most frequent class   how often each label occurs    the mean

m and s are mean and deviation of the training pictures' numbers: the network learns numbers around 0,
and the last layer of the file that is written is scaled to give them in their own units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nnlite import functional as F
from nnlite import metrics
from nnlite.data import Dataset
from nnlite.data.loader import targets_of
from nnlite.device import CPU
from nnlite.errors import ConfigError
from nnlite.graph import GraphModule
from nnlite.graph.head import Head
from nnlite.layout import Array
from nnlite.tensors import Tensor, beside
from nnlite.transfer.inference import softmax


class Targets(Protocol):
    """What a kind of target decides. Labels are as the loader gives them, logits [N,K]."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of classes, labels or numbers."""

    @property
    def task(self) -> str:
        """single, multi or regression."""

    @property
    def quality(self) -> str:
        """What the figure is called by which models are compared."""

    def loss(self, logits: Tensor, labels: Array, label_smoothing: float = 0.0) -> Tensor:
        """What training makes small: a mean over the pictures."""

    def right(self, logits: Array, labels: Array) -> float:
        """Sum over the pictures of what the history calls accuracy."""

    def judge(self, logits: Array, labels: Array) -> tuple[float, float]:
        """Loss without weights and smoothing, and what the history calls accuracy: means over pictures."""

    def scores(self, logits: Array) -> Array:
        """Probabilities, or numbers in their own units, float64 [N,K]."""

    def report(self, labels: Array, scores: Array) -> dict[str, Any]:
        """All figures, with ``task`` and ``quality`` {name, value}."""

    def baseline(self, train: Array, held: Array) -> dict[str, Any]:
        """What is right without looking at any picture: its name and quality."""

    def said(self, scores: Array, top: int) -> list[dict[str, Any]]:
        """What a person is told about one picture with ``scores`` [K]."""


def _report(task: str, quality: str, value: float, figures: dict[str, Any]) -> dict[str, Any]:
    return {"task": task, "quality": {"name": quality, "value": value}, **figures}


@dataclass(frozen=True)
class SingleLabel:
    """One class per picture; ``weights`` [K] scale the loss of each class's pictures."""

    names: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    task = "single"
    quality = "accuracy"

    def loss(self, logits: Tensor, labels: Array, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy; with weights, Σ w·loss / Σ w. Labels may be probabilities [N,K]."""
        weight = None if self.weights is None else beside(np.array(self.weights, np.float32), logits)
        return F.cross_entropy(logits, labels, weight, label_smoothing=label_smoothing)

    def right(self, logits: Array, labels: Array) -> float:
        """How many pictures are classified correctly; of mixed ones, as their larger part."""
        return float((logits.argmax(1) == (labels if labels.ndim == 1 else labels.argmax(1))).sum())

    def judge(self, logits: Array, labels: Array) -> tuple[float, float]:
        """Log loss and accuracy."""
        return metrics.log_loss(labels, softmax(logits)), self.right(logits, labels) / len(labels)

    def scores(self, logits: Array) -> Array:
        """Softmax."""
        return softmax(logits)

    def report(self, labels: Array, scores: Array) -> dict[str, Any]:
        """:func:`nnlite.metrics.report`."""
        figures = metrics.report(labels, scores, self.names)
        return _report(self.task, self.quality, figures["accuracy"], figures)

    def baseline(self, train: Array, held: Array) -> dict[str, Any]:
        """Always the most frequent class."""
        most = int(np.bincount(train).argmax())
        accuracy = float((held == most).mean())
        name = f"always {self.names[most]!r} (majority)"
        return {"name": name, "quality": accuracy, "accuracy": accuracy, "class": most}

    def said(self, scores: Array, top: int) -> list[dict[str, Any]]:
        """The ``top`` best classes with probabilities."""
        best = np.argsort(-scores, kind="stable")[:top]
        return [{"class": self.names[i], "probability": float(scores[i])} for i in best]


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels per picture; ``weights`` [K] scale the loss where a label applies."""

    names: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    task = "multi"
    quality = "mean average precision"

    def loss(self, logits: Tensor, labels: Array, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross entropy, a mean over pictures and labels; smoothed labels are y(1-ε) + ε/2."""
        weight = None if self.weights is None else beside(np.array(self.weights, np.float32), logits)
        smooth = labels * np.float32(1 - label_smoothing) + np.float32(label_smoothing / 2)
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weight)

    def right(self, logits: Array, labels: Array) -> float:
        """Sum of each picture's share of labels that are right."""
        return float(((logits > 0) == (labels > 0.5)).mean(1).sum())

    def judge(self, logits: Array, labels: Array) -> tuple[float, float]:
        """Binary cross entropy and the share of labels that are right."""
        loss = F.binary_cross_entropy_with_logits(Tensor(logits), labels)
        return float(loss.item()), self.right(logits, labels) / len(labels)

    def scores(self, logits: Array) -> Array:
        """The sigmoid of each logit."""
        values = np.exp(-np.abs(logits.astype(np.float64)))  # never overflows
        return np.where(logits >= 0, 1 / (1 + values), values / (1 + values))

    def report(self, labels: Array, scores: Array) -> dict[str, Any]:
        """:func:`nnlite.metrics.multilabel_report`."""
        figures = metrics.multilabel_report(labels, scores, self.names)
        return _report(self.task, self.quality, figures["mean_average_precision"], figures)

    def baseline(self, train: Array, held: Array) -> dict[str, Any]:
        """Each label as often as it occurs in training."""
        prior = np.broadcast_to(train.mean(0), held.shape)
        value = metrics.multilabel_report(held, prior, self.names)["mean_average_precision"]
        return {"name": "each label as often as it occurs", "quality": value}

    def said(self, scores: Array, top: int) -> list[dict[str, Any]]:
        """The ``top`` most probable labels; ``applies`` from one half on."""
        best = np.argsort(-scores, kind="stable")[:top]
        return [
            {"label": self.names[i], "probability": float(scores[i]), "applies": bool(scores[i] >= 0.5)}
            for i in best
        ]


@dataclass(frozen=True)
class Regression:
    """Numbers; ``mean`` and ``deviation`` [K] are those of the training pictures."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    task = "regression"
    quality = "R²"

    def _around_zero(self, labels: Array) -> Array:
        centred = labels.astype(np.float64) - self.mean
        scaled: Array = centred / np.array(self.deviation)
        return scaled.astype(np.float32)

    def loss(self, logits: Tensor, labels: Array, label_smoothing: float = 0.0) -> Tensor:
        """Mean of (logit - (y - mean) / deviation)²; smoothing says nothing about numbers."""
        return F.mse_loss(logits, self._around_zero(labels))

    def right(self, logits: Array, labels: Array) -> float:
        """Σ (1 - squared error): its mean is R² with the training pictures' deviation."""
        return float((1 - ((logits - self._around_zero(labels)) ** 2).mean(1)).sum())

    def judge(self, logits: Array, labels: Array) -> tuple[float, float]:
        """Mean squared error and R², both by the training pictures' deviation."""
        return float(self.loss(Tensor(logits), labels).item()), self.right(logits, labels) / len(labels)

    def scores(self, logits: Array) -> Array:
        """The numbers in their own units."""
        values: Array = logits.astype(np.float64) * np.array(self.deviation) + np.array(self.mean)
        return values

    def report(self, labels: Array, scores: Array) -> dict[str, Any]:
        """:func:`nnlite.metrics.regression_report`."""
        figures = metrics.regression_report(labels, scores, self.names)
        return _report(self.task, self.quality, figures["r2"], figures)

    def baseline(self, train: Array, held: Array) -> dict[str, Any]:
        """The mean of the training pictures."""
        constant = np.broadcast_to(train.astype(np.float64).mean(0), held.shape)
        figures = metrics.regression_report(held, constant, self.names)
        return {"name": "always the mean", "quality": figures["r2"], "mae": figures["mae"]}

    def said(self, scores: Array, top: int) -> list[dict[str, Any]]:
        """Every number with its name."""
        return [{"name": name, "value": float(v)} for name, v in zip(self.names, scores, strict=True)]


def targets_for(data: Dataset, class_weights: str = "none") -> Targets:
    """What ``data`` asks to be learned.

    ``class_weights="auto"`` gives a class with n of the N training pictures the weight N / (C · n), and
    a label that applies to n of them (N - n) / n where it applies, at most 100 and at least 0.01, so
    that rare ones count as much as frequent ones. Raises ConfigError for a regression, which has none.
    """
    known = targets_of(data.train)
    automatic = class_weights == "auto"
    if data.task == "regression":
        if automatic:
            raise ConfigError("class_weights='auto' is for classes and labels; numbers have none")
        deviation = known.astype(np.float64).std(0)
        deviation[deviation == 0] = 1.0
        return Regression(data.classes, tuple(known.astype(np.float64).mean(0)), tuple(deviation))
    if data.task == "multi":
        positive = known.sum(0)
        ratio = np.clip((len(known) - positive) / np.maximum(positive, 1), 0.01, 100.0)
        return MultiLabel(data.classes, tuple(map(float, ratio)) if automatic else None)
    counts = np.bincount(known, minlength=len(data.classes))
    weights = len(known) / (len(counts) * np.maximum(counts, 1))
    return SingleLabel(data.classes, tuple(map(float, weights)) if automatic else None)


def targets_named(task: str, names: Sequence[str]) -> Targets:
    """What a model that was tuned for ``task`` gives: its outputs are in their own units already."""
    if task == "regression":
        return Regression(tuple(names), (0.0,) * len(names), (1.0,) * len(names))
    return MultiLabel(tuple(names)) if task == "multi" else SingleLabel(tuple(names))


@contextmanager
def as_exported(
    targets: Targets, module: GraphModule, head: Head, temperature: float = 1.0
) -> Iterator[None]:
    """Within, the head has W · s and b · s + m: a regression's numbers come in their own units.

    For classes and labels s is 1 / ``temperature`` and m is 0.
    """
    if isinstance(targets, Regression):
        scale, shift = np.array(targets.deviation, np.float64), np.array(targets.mean, np.float64)
    elif temperature != 1:
        scale, shift = np.array([1 / temperature]), np.zeros(1)
    else:
        yield
        return
    before = {
        leaf: module.leaf(leaf).to(CPU).numpy().copy()
        for leaf in (head.weight, head.bias)
        if leaf is not None
    }
    shape = [1] * module.leaf(head.weight).ndim
    shape[head.out_axis] = -1
    module.leaf(head.weight).assign((before[head.weight] * scale.reshape(shape)).astype(np.float32))
    if head.bias is not None:
        bias = before[head.bias]
        along = [1] * bias.ndim
        along[int(np.argmax(bias.shape))] = -1
        module.leaf(head.bias).assign((bias * scale.reshape(along) + shift.reshape(along)).astype(np.float32))
    try:
        yield
    finally:
        for leaf, array in before.items():
            module.leaf(leaf).assign(array)
