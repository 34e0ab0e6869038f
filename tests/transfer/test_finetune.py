"""The whole of fine-tuning on a few drawings, and the training loop's promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import nnlite as nl
from nnlite import nn
from nnlite import onnx as nx
from nnlite.data import ImageFolder, Preprocessing, decode
from nnlite.errors import ConfigError, DataError, ModelError, TrainingError
from nnlite.graph import GraphModule, trace
from nnlite.optim import SGD
from nnlite.tensors import Tensor
from nnlite.transfer import Classifier, FinetuneConfig, evaluate, finetune, predict
from nnlite.transfer.training import Phase

QUICK = dict(head_epochs=3, epochs=1, views=2, batch_size=8, size=64)


@pytest.fixture(scope="module")
def config(mobilenet_path, few_pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "tuned.onnx"
    return FinetuneConfig(
        str(mobilenet_path), str(few_pictures), str(out), run_dir=str(out.parent / "run"), **QUICK
    )


@pytest.fixture(scope="module")
def result(config):
    return finetune(config)


def variant(config, tmp_path, **options):
    return replace(config, out=str(tmp_path / "tuned.onnx"), run_dir=None, baselines=False, **options)


# ----------------------------------------------------------------------------- what a run leaves


def test_files(result, config):
    assert {path.name for path in result.run_dir.iterdir()} == {
        "config.json", "environment.json", "history.jsonl", "inputs.json", "metrics.json", "report.html",
        "run.toml", "tuned.onnx",
    }  # fmt: skip
    assert (result.run_dir / "tuned.onnx").read_bytes() == result.out.read_bytes()
    assert json.loads((result.run_dir / "metrics.json").read_text()) == result.metrics
    resolved = json.loads((result.run_dir / "config.json").read_text())
    assert {key: resolved[key] for key in config.to_dict()} == config.to_dict()
    assert resolved["resolved_preprocessing"] == Preprocessing.named("imagenet", 64, crop=1.0).to_dict()


def test_history(result):
    lines = [json.loads(line) for line in (result.run_dir / "history.jsonl").read_text().splitlines()]
    assert lines == [record.to_dict() for record in result.history]
    phases = [(line["phase"], line["epoch"]) for line in lines]
    assert phases[:4] == [("head", 0), ("head", 1), ("head", 2), ("stages", 0)]
    assert {phase for phase, _ in phases[4:]} == {"scratch"}
    for line in lines:
        assert line["pictures"] == 18
        assert np.isfinite(line["loss"])
        assert 0 <= line["accuracy"] <= 1
    assert all(line["validation_loss"] > 0 for line in lines[:4])


def test_metrics_follow_from_the_predictions(result, few_pictures):
    report = result.metrics
    rows = report["predictions"]
    folder = ImageFolder.open(few_pictures)
    assert [(row["picture"], row["label"]) for row in rows] == [
        (str(s.path), s.label) for s in folder.validation
    ]
    right = [row["label"] == row["predicted"] for row in rows]
    assert report["accuracy"] == pytest.approx(np.mean(right))
    confusion = np.zeros((3, 3), int)
    for row in rows:
        confusion[row["label"], row["predicted"]] += 1
    np.testing.assert_array_equal(report["confusion"], confusion)
    assert [entry["name"] for entry in report["classes"]] == ["bird", "building", "plant"]
    assert (report["pictures"], report["train_pictures"], report["split"]) == (6, 18, "folders")
    assert report["skipped"] == []


def test_baselines_are_on_the_same_pictures(result):
    baselines = result.metrics["baselines"]
    assert baselines["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert baselines["probe"]["accuracy"] * 6 == pytest.approx(round(baselines["probe"]["accuracy"] * 6))
    assert baselines["scratch"]["presentations"] == 18 * baselines["scratch"]["epochs"] == 4 * 18


def test_the_file_runs_elsewhere_with_the_same_logits(result, run_ort, mobilenet_path):
    onnx.checker.check_model(onnx.load(result.out), full_check=True)
    module = nx.load(result.out)
    transform = Preprocessing.from_json(module.origin.metadata["nnlite.preprocessing"]).evaluation()
    pictures = [row["picture"] for row in result.metrics["predictions"]]
    x = np.stack([transform(decode(path)) for path in pictures])
    logits = run_ort(result.out, [x])[0]
    assert np.abs(logits - module.run([x])[0]).max() < 1e-3
    assert logits.argmax(1).tolist() == [row["predicted"] for row in result.metrics["predictions"]]


def test_metadata_and_what_was_trained(result, mobilenet_path):
    tuned, original = nx.load(result.out), nx.load(mobilenet_path)
    assert json.loads(tuned.origin.metadata["nnlite.classes"]) == ["bird", "building", "plant"]
    before, after = original.state_dict(), tuned.state_dict()
    changed = {
        k for k in before if before[k].shape != after[k].shape or not np.array_equal(before[k], after[k])
    }
    assert {"classifier.1.weight", "classifier.1.bias"} < changed
    stage = {name for name in changed if name.startswith("features.")}
    assert stage
    assert all(int(name.split(".")[1]) >= 14 for name in stage), "the last stage alone"
    assert not any("running" in name for name in changed)


def test_evaluating_the_result_reports_the_same(result, few_pictures):
    report = evaluate(result.out, few_pictures)
    for key in ("accuracy", "log_loss", "confusion", "classes", "macro", "pictures"):
        assert report[key] == result.metrics[key], key
    assert report["preprocessing"]["from"] == "from the model's metadata"


def test_predicting_with_the_result(result):
    rows = result.metrics["predictions"]
    ranked = predict(Classifier.open(result.out), [row["picture"] for row in rows], top=2)
    for row, entry in zip(rows, ranked, strict=True):
        assert entry["picture"] == row["picture"]
        assert [list(c) for c in entry["classes"]] == [["class", "probability"]] * 2
        assert entry["classes"][0]["class"] == ["bird", "building", "plant"][row["predicted"]]
        assert entry["classes"][0]["probability"] == pytest.approx(row["probability"], rel=1e-4)


def test_same_seed_same_bits_for_any_number_of_workers(result, config, tmp_path):
    (tmp_path / "a").mkdir()
    alone = finetune(variant(config, tmp_path / "a", workers=0))
    assert alone.out.read_bytes() == result.out.read_bytes()
    again = finetune(variant(config, tmp_path, workers=2))
    assert again.out.read_bytes() == result.out.read_bytes()
    other = finetune(variant(config, tmp_path / "a", seed=1, epochs=0))
    assert other.out.read_bytes() != result.out.read_bytes()


@pytest.mark.parametrize(("unfreeze", "first"), [("none", 99), ("2", 7), ("all", 0)])
def test_what_is_unfrozen(config, mobilenet_path, tmp_path, unfreeze, first):
    tuned = nx.load(
        finetune(variant(config, tmp_path, unfreeze=unfreeze, head_epochs=1, views=1)).out
    ).state_dict()
    before = nx.load(mobilenet_path).state_dict()
    changed = {
        int(k.split(".")[1])
        for k in before
        if k.startswith("features") and not np.array_equal(before[k], tuned[k])
    }
    convolutions = {int(k.split(".")[1]) for k in before if k.startswith("features")}
    assert changed == {block for block in convolutions if block >= first}


def test_the_input_size_is_declared_where_the_model_declares_one(
    onnx_model, normal, few_pictures, tmp_path, run_ort
):
    nodes = [
        ("Conv", ["x", "w"], ["c"], dict(strides=[4, 4])), ("GlobalAveragePool", ["c"], ["p"]),
        ("Flatten", ["p"], ["f"]), ("Gemm", ["f", "v"], ["g"], dict(transB=1)), ("Softmax", ["g"], ["y"]),
    ]  # fmt: skip
    arrays = {"w": normal(8, 3, 4, 4), "v": normal(10, 8)}
    path, out = tmp_path / "small.onnx", tmp_path / "tuned.onnx"
    onnx.save(onnx_model(nodes, {"x": [1, 3, 32, 32]}, {"y": [1, 10]}, arrays, opset=11), path)
    options = dict(QUICK, size=48, baselines=False)
    result = finetune(FinetuneConfig(str(path), str(few_pictures), str(out), **options))
    module = nx.load(result.out)
    assert module.input_sizes == ((None, 3, 48, 48),)
    assert module.outputs == ("g",), "a head for training ends in its logits"
    x = normal(4, 3, 48, 48)
    np.testing.assert_allclose(run_ort(out, [x])[0], module.run([x])[0], atol=1e-4)


# --------------------------------------------------------------------------------- what goes wrong


def test_bad_pictures_stop_or_are_listed(config, copied, tmp_path):
    folder = copied()
    text, cut = folder / "train" / "bird" / "aa.jpg", sorted((folder / "val" / "plant").iterdir())[0]
    text.write_text("no picture")
    cut.write_bytes(cut.read_bytes()[:700])
    options = variant(replace(config, data=str(folder)), tmp_path)
    with pytest.raises(DataError, match=r"aa\.jpg"):
        finetune(options)
    report = finetune(replace(options, on_bad_image="skip", head_epochs=1)).metrics
    assert [entry["path"] for entry in report["skipped"]] == [str(text), str(cut)]
    assert all(entry["reason"] for entry in report["skipped"])
    assert (report["pictures"], len(report["predictions"])) == (5, 5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            dict(unfreeze="99"),
            ConfigError,
            "unfreeze='99' must be none, all or the number of last stages, 1 to",
        ),
        (dict(head="nowhere"), ModelError, "no layer is called 'nowhere'"),
        (dict(model="nowhere.onnx"), ModelError, "no such file"),
        (dict(data="nowhere"), DataError, "no such folder"),
        (dict(out="nowhere/tuned.onnx"), ConfigError, "does not exist"),
    ],
)
def test_mistakes_are_found_before_any_picture_is_read(config, tmp_path, monkeypatch, options, error, match):
    monkeypatch.setattr("nnlite.data.loader.Loader.epoch", lambda *_: pytest.fail("pictures were read"))
    with pytest.raises(error, match=match):
        finetune(replace(variant(config, tmp_path), **options))
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_run_folder_that_is_taken_is_found_early(result, config, monkeypatch):
    monkeypatch.setattr("nnlite.data.loader.Loader.epoch", lambda *_: pytest.fail("pictures were read"))
    with pytest.raises(ConfigError, match="holds a run already"):
        finetune(config)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(head_epochs=0), "head_epochs=0 must be at least 1"),
        (dict(epochs=-1), "epochs=-1 must be at least 0"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(views=0), "views=0"),
        (dict(workers=-1), "workers=-1"),
        (dict(seed=-1), "seed=-1"),
        (dict(learning_rate=0.0), "learning_rate=0.0 must be positive"),
        (dict(head_learning_rate=float("nan")), "must be positive"),
        (dict(label_smoothing=1.0), "label_smoothing=1.0"),
        (dict(weight_decay=-0.1), "weight_decay=-0.1"),
        (dict(validation=1.0), "validation=1.0"),
        (dict(unfreeze="some"), "unfreeze='some'"),
        (dict(unfreeze="0"), "unfreeze='0'"),
        (dict(preprocessing="best"), "preprocessing='best' must be one of imagenet"),
        (dict(on_bad_image="cry"), "on_bad_image='cry'"),
        (dict(size=0), "size=0"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(ConfigError, match=match):
        FinetuneConfig("m.onnx", "data", **options)


# ----------------------------------------------------------------------------------- the training loop


def phase(learning_rate, batches, epochs=4):
    nl.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph, _ = trace(layers, [Tensor(np.zeros((2, 3), np.float32))])
    module = GraphModule(graph)
    return Phase("head", module, SGD(module.parameters(), lr=learning_rate), epochs, 2, batches), module


X, Y = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])


def test_a_loss_that_is_not_finite_stops_and_the_best_weights_return():
    def batches(epoch, first):
        yield X, Y
        yield (np.full_like(X, np.inf) if epoch == 2 else X), Y

    run, module = phase(0.1, batches)
    records, states = [], []
    with np.errstate(all="ignore"), pytest.raises(TrainingError) as error:
        run.run(lambda record: (records.append(record), states.append(module.state_dict())))
    for part in ("phase 'head'", "epoch 2", "batch 1", "'linear_0'", "--learning-rate"):
        assert part in str(error.value)
    assert len(records) == 2
    best = states[int(np.argmin([record.loss for record in records]))]
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, best[name])
    assert not module.training


def test_a_learning_rate_that_is_too_high_leaves_the_weights_as_they_were(config, tmp_path, mobilenet_path):
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"phase 'stages'.*best\.onnx") as error,
    ):
        finetune(variant(config, tmp_path, learning_rate=1e30, epochs=3, unfreeze="all"))
    best = next(tmp_path.glob("runs/*/best.onnx"))
    assert str(best) in str(error.value)
    state, original = nx.load(best).state_dict(), nx.load(mobilenet_path).state_dict()
    assert all(np.isfinite(array).all() for array in state.values())
    np.testing.assert_array_equal(state["features.0.0.weight"], original["features.0.0.weight"])
    assert not (tmp_path / "tuned.onnx").exists()


def test_training_learns_and_reports():
    run, _ = phase(0.5, lambda epoch, first: [(X[:4], Y[:4]), (X[4:], Y[4:])], epochs=30)
    records = []
    run.run(records.append)
    assert [record.epoch for record in records] == list(range(30))
    assert records[-1].loss < 0.5 * records[0].loss
    assert {record.pictures for record in records} == {6}
    assert records[-1].learning_rate < records[1].learning_rate, "a cosine falls"


# ---------------------------------------------------------------------------- evaluating other models


def classifier(onnx_model, normal, tmp_path, opset, softmax, metadata=None, classes=3):
    nodes = [
        ("GlobalAveragePool", ["x"], ["p"]), ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "w", "b"], ["g"]), *([("Softmax", ["g"], ["y"])] if softmax else []),
    ]  # fmt: skip
    path = tmp_path / f"classifier{opset}{softmax}.onnx"
    model = onnx_model(
        nodes, {"x": ["N", 3, None, None]}, {"y" if softmax else "g": ["N", classes]},
        {"w": normal(3, classes), "b": normal(classes)}, opset=opset, metadata=metadata,
    )  # fmt: skip
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_a_softmax_in_the_model_is_not_applied_twice(onnx_model, normal, tmp_path, few_pictures, opset):
    with_softmax = evaluate(classifier(onnx_model, normal, tmp_path, opset, True), few_pictures, size=32)
    without = evaluate(classifier(onnx_model, normal, tmp_path, opset, False), few_pictures, size=32)
    assert with_softmax["log_loss"] == pytest.approx(without["log_loss"], rel=1e-5)
    assert with_softmax["confusion"] == without["confusion"]


def test_classes_are_matched_by_name(onnx_model, normal, tmp_path, few_pictures):
    names = ["plant", "other", "bird", "building"]
    metadata = {"nnlite.classes": json.dumps(names)}
    path = classifier(onnx_model, normal, tmp_path, 17, False, metadata, classes=4)
    report = evaluate(path, few_pictures, size=32)
    assert [(entry["name"], entry["support"]) for entry in report["classes"]] == list(
        zip(names, [2, 0, 2, 2], strict=True)
    )


@pytest.mark.parametrize(
    ("names", "classes", "match"),
    [
        (None, 7, "has 7 classes without names, but the folder has 3"),
        (["a", "b"], 3, "names 2 classes but has 3 outputs"),
        (["bird", "building", "car"], 3, "does not know the folder's classes plant; it knows bird"),
    ],
)
def test_classes_that_do_not_match(onnx_model, normal, tmp_path, few_pictures, names, classes, match):
    metadata = names and {"nnlite.classes": json.dumps(names)}
    path = classifier(onnx_model, normal, tmp_path, 17, False, metadata, classes)
    with pytest.raises(ModelError, match=match):
        evaluate(path, few_pictures, size=32)


def test_pictures_that_cannot_be_predicted(onnx_model, normal, tmp_path):
    model = Classifier.open(classifier(onnx_model, normal, tmp_path, 17, False), size=32)
    with pytest.raises(DataError, match=r"nowhere\.jpg: no such picture"):
        predict(model, [tmp_path / "nowhere.jpg"])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.jpg"):
        predict(model, [tmp_path / "text.jpg"])


@pytest.mark.parametrize("options", [{"tune": "affine"}, {"fold": True}])
def test_scales_alone_and_folded_files(config, tmp_path, options):
    result = finetune(variant(config, tmp_path, **options))
    original, written = onnx.load(config.model), onnx.load(result.out)
    kinds = [node.op_type for node in written.graph.node]
    if "fold" in options:
        assert "BatchNormalization" not in kinds
    else:
        assert kinds == [node.op_type for node in original.graph.node]
        stored = {tensor.name: tensor.raw_data for tensor in original.graph.initializer}
        changed = {t.name for t in written.graph.initializer if stored.get(t.name) != t.raw_data}
        assert {"features.17.conv.1.0.weight", "classifier.1.weight"} <= changed
        assert "features.3.conv.1.0.weight" not in changed
    report = evaluate(result.out, config.data)
    assert report["accuracy"] == result.metrics["accuracy"]
