"""Classes, labels and numbers: loss, scores, baselines, and a head in its own units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nnlite as nl
from nnlite import nn
from nnlite.data import Dataset, Sample, generator
from nnlite.data.random import balanced_order
from nnlite.errors import ConfigError, DataError
from nnlite.graph import GraphModule, replace_head, trace
from nnlite.tensors import Tensor
from nnlite.transfer import Classifier, FinetuneConfig, evaluate, finetune, predict, ridge
from nnlite.transfer.classifier import pictures_in, predictions_csv
from nnlite.transfer.targets import MultiLabel, Regression, SingleLabel, Targets, as_exported, targets_for

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
    with as_exported(targets, module, head):
        np.testing.assert_allclose(module.run([x])[0].reshape(4, 2), targets.scores(before), rtol=1e-5)
    np.testing.assert_array_equal(module.run([x])[0].reshape(4, 2), before)


# ------------------------------------------------------------------------------ from end to end


@pytest.fixture(scope="module")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour: how bright they are, and which of red and blue they hold."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    numbers, labels = ["path,brightness"], ["path,labels"]
    for i in range(48):
        red, blue = rng.integers(0, 2, 2)
        level = int(rng.integers(60, 256))
        picture = np.zeros((24, 24, 3), np.uint8)
        picture[..., 0], picture[..., 2] = red * level, blue * level
        Image.fromarray(picture).save(root / f"{i:02}.png")
        numbers.append(f"{i:02}.png,{1000 + level * (red + blue):.1f}")
        labels.append(f"{i:02}.png,{';'.join(n for n, there in (('red', red), ('blue', blue)) if there)}")
    (root / "numbers.csv").write_text("\n".join(numbers))
    (root / "labels.csv").write_text("\n".join(labels))
    return root


QUICK = dict(size=32, head_epochs=15, epochs=1, views=1, batch_size=8, augment="none", workers=0)


@pytest.mark.parametrize("task", ["multi", "regression"])
def test_labels_and_numbers_from_end_to_end(
    brightness: Path, mobilenet_path: Path, tmp_path: Path, task: str
) -> None:
    data, out = brightness / ("labels.csv" if task == "multi" else "numbers.csv"), tmp_path / "tuned.onnx"
    options: dict[str, object] = {"class_weights": "auto", "mix": "mixup"} if task == "multi" else {}
    report = finetune(FinetuneConfig(str(mobilenet_path), str(data), str(out), **QUICK, **options)).metrics  # type: ignore[arg-type]
    assert report["task"] == task
    baselines = report["baselines"]
    assert report["quality"]["value"] > baselines["majority"]["quality"] + 0.2
    assert baselines["probe"]["quality"] > baselines["majority"]["quality"] + 0.2
    again = evaluate(out, data)
    for key in report.keys() & again.keys() - {"split", "preprocessing", "skipped"}:
        assert report[key] == again[key], key
    model = Classifier.open(out)
    assert model.task == task
    results = predict(model, sorted(brightness.glob("*.png"))[:3], tta=True)
    text = predictions_csv(model, results).splitlines()
    if task == "multi":
        assert model.classes == ("blue", "red")
        assert text[0] == "path,labels,blue,red"
    else:
        assert text[0] == "path,brightness"
        assert 900 < float(text[1].split(",")[1]) < 1700, "in their own units"
    with pytest.raises(DataError, match=r"task, but .* was made for"):
        evaluate(out, brightness / ("numbers.csv" if task == "multi" else "labels.csv"))


def test_a_network_that_was_not_tuned_says_classes(mobilenet_path: Path, brightness: Path) -> None:
    model = Classifier.open(mobilenet_path, size=32)
    (brightness / "zz.png").write_text("no picture")
    pictures = pictures_in([brightness])
    results = predict(model, pictures, 2, on_bad_image="skip")
    (brightness / "zz.png").unlink()
    assert [entry["class"].split()[0] for entry in results[0]["classes"]] == ["class", "class"]
    assert "its content is no picture" in results[-1]["error"]
    lines = predictions_csv(model, results).splitlines()
    assert lines[0] == "path,label,probability"
    assert lines[-1] == f"{brightness / 'zz.png'},,"
    assert len(lines) == 50
    other = brightness / "noise.bmp"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(other)
    one, two = (predict(model, [other], 1000, tta=tta)[0]["classes"] for tta in (False, True))
    other.unlink()
    assert one != two, "other views give other scores"


def test_ridge_against_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle")
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((40, 60)) + 3, rng.standard_normal((40, 2))
    y = x[:, :2] * [1, 10] + 5 + noise
    found = ridge.fit(x, y)
    scale = (np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2).mean()
    expected = linear.Ridge(alpha=found.penalty * scale).fit(x, y)
    np.testing.assert_allclose(found.predict(x), expected.predict(x), rtol=1e-8)
    cv = linear.RidgeCV(alphas=[p * scale for p in ridge.GRID]).fit(x, y)
    assert cv.alpha_ == pytest.approx(found.penalty * scale)


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
