"""Classes, labels and numbers: loss, scores, baselines, and a head in its own units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn
from nnlite.data import Dataset, Sample, generator
from nnlite.data.random import balanced_order
from nnlite.errors import ConfigError
from nnlite.graph import GraphModule, replace_head, trace
from nnlite.tensors import Tensor
from nnlite.transfer.targets import MultiLabel, Regression, SingleLabel, Targets, in_own_units, targets_for

TORCH = "PyTorch is the oracle of these tests; install the 'oracle' extra"
LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0]], np.float32)


def data(task: str, *known: object) -> Dataset:
    if task == "single":
        samples = [Sample(Path("a"), label) for label in known]  # type: ignore[arg-type]
    else:
        samples = [Sample(Path("a"), values=values) for values in known]  # type: ignore[arg-type]
    names = ("a", "b", "c")[: 3 if task == "single" else len(known[0])]  # type: ignore[arg-type]
    return Dataset(Path("set"), names, tuple(samples), tuple(samples), "seed", 0, task)  # type: ignore[arg-type]


def test_class_weights() -> None:
    single = targets_for(data("single", 0, 0, 0, 1, 2, 2), "auto")
    assert isinstance(single, SingleLabel)
    assert single.weights == pytest.approx((6 / 9, 2, 1)), "N / (C n)"
    multi = targets_for(data("multi", (1, 0), (0, 0), (0, 0), (1, 1)), "auto")
    assert isinstance(multi, MultiLabel)
    assert multi.weights == pytest.approx((1, 3)), "(N - n) / n"
    assert targets_for(data("single", 0, 1, 2)).weights is None  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="numbers have none"):
        targets_for(data("regression", (1.0,), (2.0,)), "auto")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_against_pytorch(smoothing: float) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    single = targets_for(data("single", 0, 0, 0, 1, 2, 2), "auto")
    labels, x = np.array([2, 0]), torch.tensor(LOGITS)
    loss = torch.nn.CrossEntropyLoss(torch.tensor(single.weights), label_smoothing=smoothing)  # type: ignore[attr-defined]
    assert single.loss(Tensor(LOGITS), labels, smoothing).item() == pytest.approx(
        loss(x, torch.tensor(labels)).item(), rel=1e-5
    )
    multi = MultiLabel(("a", "b", "c"), (1.0, 3.0, 0.5))
    y = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(multi.weights))
    assert multi.loss(Tensor(LOGITS), y, smoothing).item() == pytest.approx(
        loss(x, torch.tensor(y * (1 - smoothing) + smoothing / 2)).item(), rel=1e-5
    )
    np.testing.assert_allclose(multi.scores(LOGITS), torch.sigmoid(x.double()).numpy(), rtol=1e-12)


def test_numbers_are_learned_around_zero() -> None:
    targets = targets_for(data("regression", (10.0, 5.0), (30.0, 5.0)))
    assert targets == Regression(("a", "b"), (20.0, 5.0), (10.0, 1.0)), "what does not vary is not divided"
    logits = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    y = np.array([[30, 5], [20, 6]], np.float32)
    assert targets.scores(logits).tolist() == [[30, 5], [20, 7]]
    assert targets.loss(Tensor(logits), y).item() == pytest.approx(1 / 4)
    assert targets.right(logits, y) == pytest.approx(1 + 0.5)


@pytest.mark.parametrize(
    ("targets", "labels", "right"),
    [
        (SingleLabel(("a", "b", "c")), np.array([0, 0]), 1),
        (MultiLabel(("a", "b", "c")), np.array([[1, 0, 0], [0, 1, 0]], np.float32), 2 / 3 + 1),
    ],
)
def test_what_the_history_counts(targets: Targets, labels: np.ndarray, right: float) -> None:
    assert targets.right(LOGITS, labels) == pytest.approx(right)


def test_baselines_and_reports() -> None:
    single = SingleLabel(("a", "b"))
    assert single.baseline(np.array([1, 1, 0]), np.array([1, 0, 0, 0])) == {
        "name": "always 'b' (majority)", "quality": 0.25, "accuracy": 0.25, "class": 1
    }  # fmt: skip
    multi = MultiLabel(("a", "b"))
    held = np.array([[1, 0], [0, 0], [1, 1], [1, 0]], np.float32)
    assert multi.baseline(held, held)["quality"] == pytest.approx((3 / 4 + 1 / 4) / 2), (
        "precision at any rank"
    )
    numbers = targets_for(data("regression", (1.0,), (3.0,)))
    assert numbers.baseline(np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]])) == {
        "name": "always the mean", "quality": 0.0, "mae": 1.0
    }  # fmt: skip
    report = numbers.report(np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]]))
    assert (report["task"], report["quality"]) == ("regression", {"name": "R²", "value": 1.0})
    assert single.report(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))["quality"]["value"] == 0.5


def test_what_a_person_is_told() -> None:
    assert SingleLabel(("a", "b")).said(np.array([0.3, 0.7]), 1) == [{"class": "b", "probability": 0.7}]
    assert MultiLabel(("a", "b")).said(np.array([0.3, 0.7]), 5) == [
        {"label": "b", "probability": 0.7, "applies": True},
        {"label": "a", "probability": 0.3, "applies": False},
    ]
    assert Regression(("x",), (0.0,), (1.0,)).said(np.array([3.5]), 1) == [{"name": "x", "value": 3.5}]


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_head_is_written_in_its_own_units(kind: str) -> None:
    nl.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    pool = [nn.AdaptiveAvgPool2d(1)]
    last = [nn.Flatten(), nn.Linear(3, 7)] if kind == "linear" else [nn.Conv2d(3, 7, 1), nn.Flatten()]
    graph, _ = trace(nn.Sequential(*pool, *last), [Tensor(x)])
    module, head = replace_head(GraphModule(graph), 2)
    targets = Regression(("a", "b"), (20.0, -5.0), (10.0, 0.5))
    before = module.run([x])[0].reshape(4, 2)
    with in_own_units(targets, module, head):
        np.testing.assert_allclose(module.run([x])[0].reshape(4, 2), targets.scores(before), rtol=1e-5)
    np.testing.assert_array_equal(module.run([x])[0].reshape(4, 2), before)


def test_balanced_order() -> None:
    labels = np.array([0] * 20 + [1] * 3 + [2] * 2)
    order = balanced_order(generator(0, 0, 0), labels)
    assert len(order) == 25
    counts = np.bincount(labels[order])
    assert sorted(counts) == [8, 8, 9], "25 into three"
    each = np.bincount(order, minlength=25)
    assert each[:20].max() == 1, "a large class repeats nothing"
    assert set(each[20:23]) <= {2, 3}, "8 or 9 of 3 pictures"
    assert set(each[23:]) <= {4, 5}
    assert (order == balanced_order(generator(0, 0, 0), labels)).all()
    assert (order != balanced_order(generator(0, 1, 0), labels)).any()
