"""What can be wrong with data, a model or a run, as the command line says it: one line, exit status 2."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from quick_options import FAST

from nnlite import saving


@pytest.fixture
def said(run):
    """``said("eval", model, data)``: the one line of a command that refuses."""

    def call(*arguments):
        status, out, errors = run(*arguments)
        assert (status, out) == (2, ""), errors
        line = errors.splitlines()[-1]
        assert line.startswith("nnlite: error: ")
        return line

    return call


def pictures_in(folder, names="abcd"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (24, 24), (40 * number, 9, 9)).save(folder / f"{name}.png")


# ------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("text", "task", "expected"),
    [
        ("path,cat,dog\na.png,1,0\nb.png,0,1", "single", ":1: one class per picture needs one column, not"),
        ("path,cat,dog\na.png,1,0\nb.png,2,1", "multi", ":3: cat='2' must be 0 or 1"),
        ("path,labels\na.png,\nb.png,;", "auto", "no picture has any label"),
        ("path,labels\na.png,x\nb.png,y", "auto", "every picture has a label of its own, so none can"),
        ("path,age\na.png,3", "auto", "1 pictures cannot both train and validate; add some"),
    ],
)
def test_tables(said, tmp_path, text, task, expected):
    pictures_in(tmp_path)
    (tmp_path / "list.csv").write_text(text)
    line = said("check-data", tmp_path / "list.csv", "--task", task)
    assert f"{tmp_path / 'list.csv'}" in line and expected in line


@pytest.mark.parametrize("name", ["list.csv", "boxes.json", "set.npz", "data.yaml"])
def test_files_that_the_system_does_not_give(said, tmp_path, monkeypatch, name):
    pictures_in(tmp_path)
    (tmp_path / name).write_text("path,label\na.png,x\n")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    line = said("check-data", tmp_path / name)
    assert f"{tmp_path / name}: cannot be read (Permission denied)" in line


def test_a_folder_that_the_system_does_not_give(said, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "cannot be read (Permission denied); check its permissions" in said("check-data", tmp_path)


# ---------------------------------------------------------------------------------- COCO, YOLO, arrays


def test_boxes_without_pictures(said, tmp_path, monkeypatch):
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert f"{file}: lists no images" in said("check-data", file)
    monkeypatch.setattr("nnlite.data.coco.memory.available", lambda: 0)
    assert "MB of JSON are more than memory allows; divide the file" in said("check-data", file)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: (root / "images/train/a.png").unlink(), "images/train: no pictures; known extensions"),
        (lambda root: (root / "labels/train/a.txt").write_bytes(b"\xff\xfe0 1"), "a.txt: is not UTF-8 text"),
        (lambda root: (root / "labels/train/a.txt").write_text(" " * 20_000_000), "a.txt: is longer than"),
    ],
)
def test_yolo(said, tmp_path, damage, expected):
    for part in ("train", "val"):
        pictures_in(tmp_path / "images" / part, "a")
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / "a.txt").write_text("0 .5 .5 .4 .4\n1 .5 .5 .4 .4")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    damage(tmp_path)
    assert expected in said("check-data", tmp_path)


X, Y = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2


def test_arrays_of_two_kinds(said, tmp_path):
    np.savez(tmp_path / "set.npz", x_train=X, y_train=Y, x_val=X, y_val=Y / 2)
    assert "the labels of its parts have different shapes" in said("check-data", tmp_path / "set.npz")


def test_arrays_that_are_too_large(said, tmp_path, monkeypatch):
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    monkeypatch.setattr("nnlite.data.arrays.memory.available", lambda: 0)
    assert "array 'x' would take 0 MB, more than 1/2 of the memory" in said(
        "check-data", tmp_path / "set.npz"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:-10], "array 'x' ends early; save it again"),
        (lambda data: data.replace(b"(4, 8, 8, 3)", b"(-4,-8, 8,3)"), "array 'x' has shape [-4, -8, 8, 3]"),
    ],
)
def test_arrays_that_are_damaged(said, tmp_path, change, expected):
    np.savez(tmp_path / "whole.npz", x=X, y=Y)
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "set.npz", "w") as set_:
        for name in whole.namelist():
            data = whole.read(name)
            set_.writestr(name, change(data) if name == "x.npy" else data)
    assert expected in said("check-data", tmp_path / "set.npz")


# ------------------------------------------------------------------------------------------ models


@pytest.fixture
def model(onnx_model, normal, tmp_path):
    """``model(nodes, outputs)``: a file of one convolution and what follows; arrays w, v, b are there."""

    def make(nodes, outputs=("y",), name="model.onnx", k=None, **options):
        arrays = {"w": normal(4, 3, 3, 3), "v": normal(2, 4), "b": normal(2)}
        arrays["k"] = normal(2, 4, 1, 1) if k is None else k
        first = ("Conv", ["x", "w"], ["c"], dict(strides=[4, 4], pads=[1, 1, 1, 1]))
        proto = onnx_model([first, *nodes], {"x": ["N", 3, None, None]}, [*outputs], arrays, **options)
        onnx.save(proto, tmp_path / name)
        return tmp_path / name

    return make


POOLED = [("GlobalAveragePool", ["c"], ["p"]), ("Flatten", ["p"], ["f"])]


def test_models_of_another_kind(said, model, pictures):
    two = model([*POOLED, ("Gemm", ["f", "v", "b"], ["y"], dict(transB=1)), ("Relu", ["f"], ["z"])], "yz")
    assert f"{two}: has 2 outputs (y, z), but a classifier has one" in said("eval", two, pictures)
    maps = model([("Relu", ["c"], ["y"])])
    assert "the output has shape [1, 4, 8, 8], not [N,classes]" in said(
        "predict", maps, pictures / "val/bird", "--size", 32, "--batch-size", 1
    )
    told = model([*POOLED, ("Gemm", ["f", "v"], ["y"], dict(transB=1))], metadata={"nnlite.task": "guess"})
    assert "metadata nnlite.task is 'guess', not one of single, multi, regression" in said(
        "eval", told, pictures
    )


def test_a_head_whose_result_is_no_row_of_numbers(said, model, pictures, tmp_path):
    path = model([("Conv", ["c", "k"], ["y"])])
    line = said("finetune", path, pictures, "--out", tmp_path / "t.onnx", *FAST)
    assert "the model gives [1, 2, 8, 8] for one picture, not [1,outputs]" in line


def test_numbers_need_a_bias(said, small, tmp_path, monkeypatch):
    """Found before anything is learned."""
    pictures_in(tmp_path)
    (tmp_path / "list.csv").write_text("path,age\na.png,3\nb.png,5\nc.png,6\nd.png,9")
    monkeypatch.setattr("nnlite.data.loader.Loader.epoch", lambda *_: pytest.fail("pictures were read"))
    line = said(
        "finetune", small, tmp_path / "list.csv", "--out", tmp_path / "t.onnx", "--preprocessing", "unit"
    )
    assert "has no bias, which numbers need; name another with --head" in line


def test_a_regression_of_fewer_numbers(said, model, tmp_path):
    metadata = {"nnlite.task": "regression", "nnlite.classes": '["age", "size"]'}
    path = model([*POOLED, ("Gemm", ["f", "v", "b"], ["y"], dict(transB=1))], metadata=metadata)
    pictures_in(tmp_path)
    (tmp_path / "list.csv").write_text("path,age\na.png,3\nb.png,5\nc.png,6\nd.png,9")
    line = said("eval", path, tmp_path / "list.csv", "--size", 32)
    assert f"predicts age, size, but {tmp_path / 'list.csv'} has not all of them" in line


# ------------------------------------------------------------------------------------------ options


def test_options_that_do_not_go_with_the_data_or_the_machine(said, small, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures_in(tmp_path)
    (tmp_path / "list.csv").write_text("path,labels\na.png,x;y\nb.png,y\nc.png,x\nd.png,y")
    line = said("finetune", small, "list.csv", "--sampler", "balanced")
    assert "sampler='balanced' needs one class per picture, but this is multi" in line
    monkeypatch.setattr("nnlite.memory.resident", lambda: None)
    line = said("finetune", small, pictures, "--memory", "1GB")
    assert "memory='1GB' needs Linux, which counts what is resident" in line
    (tmp_path / "tuned.onnx").write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    line = said("finetune", small, pictures)
    assert "--out tuned.onnx: the file is there and cannot be overwritten; choose another name" in line


def test_rates_that_cannot_be_found(said, small, mobilenet_path, pictures):
    line = said("lr-find", mobilenet_path, pictures, "--recipe", "probe", "--size", 32)
    assert "recipe='probe' is solved, not trained: it has no learning rate" in line
    line = said("lr-find", small, pictures, *FAST, "--low", 1e20, "--high", 1e30, "--quiet")
    assert "the loss is lost after" in line and "begin with a smaller --low" in line


def test_features_that_do_not_come_back_from_the_disk(said, small, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("nnlite.transfer.features.feature_file.read", lambda *_: None)
    cache = ["--cache", "disk", "--cache-dir", tmp_path / "cache", "--quiet"]
    line = said("finetune", small, pictures, "--out", tmp_path / "t.onnx", *FAST[:-1], "none", *cache)
    assert ".safetensors: is not what was written to it; choose another --cache-dir" in line


@pytest.mark.parametrize("name", ["resolved_recipe", "resolved_memory"])
def test_runs_whose_decisions_are_damaged(said, small, pictures, tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"model": str(small), "data": str(pictures), "out": str(tmp_path / "t.onnx"), name: {"a": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    assert f"{folder / 'config.json'}: is damaged: {name}: " in said("resume", folder, "--quiet")


def test_a_checkpoint_of_another_version(said, run, small, pictures, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    folder, options = tmp_path / "run", ["--out", tmp_path / "t.onnx", "--quiet", *FAST]
    with monkeypatch.context() as patch:
        patch.setattr("nnlite.transfer.run.compute_views", stop)
        assert run("finetune", small, pictures, "--run-dir", folder, *options)[0] == 130
    saving.save(folder / "checkpoint.safetensors", {"version": 99})
    line = said("resume", folder, "--quiet")
    assert "checkpoint.safetensors: is no checkpoint of this version of nnlite; start the run anew" in line


def test_what_is_missing_or_too_much(said, small, pictures):
    line = said("finetune")
    assert line.endswith('MODEL is missing: give it, or a line model = "..." in the file of --config')
    folder = pictures / "val" / "bird"
    assert f"{folder}: is a folder; give one picture" in said("attribute", small, folder)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("mean=grey,scale=1", "'mean=grey' needs numbers, several with / between them"),
        ("lite,colour=BGR", "'colour=BGR' is none of mean, std, scale, channels, crop and filter"),
    ],
)
def test_preprocessing_that_is_not_understood(said, small, pictures, told, expected):
    assert expected in said("predict", small, pictures / "val" / "bird", "--preprocessing", told)


def test_names_of_classes_that_are_too_few(said, model, pictures):
    nodes = [*POOLED, ("Gemm", ["f", "k"], ["y"], dict(transB=1))]
    path = model(nodes, k=np.ones((3, 4), np.float32), metadata={"nnlite.classes": '["bird", "plant"]'})
    assert "names 2 classes but has 3 outputs" in said("eval", path, pictures, "--size", 32)
    picture = next((pictures / "val" / "bird").iterdir())
    assert "the model names 2 classes but has an output 2" in said(
        "attribute", path, picture, "--size", 32, "--class", 2
    )


def test_a_history_that_cannot_be_written(said, small, pictures, tmp_path, monkeypatch):
    inner = open

    def refuse(path, *arguments, **options):
        if Path(str(path)).name == "history.jsonl" and "a" in arguments:
            raise OSError(28, "No space left on device")
        return inner(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    line = said("finetune", small, pictures, "--out", tmp_path / "t.onnx", "--quiet", *FAST)
    assert "history.jsonl: cannot be written: No space left on device" in line


def test_logs_that_need_another_package(said, small, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    line = said("finetune", small, pictures, "--out", tmp_path / "t.onnx", "--tensorboard", "--quiet", *FAST)
    assert "tensorboard=True needs tensorboardX; install nnlite[tensorboard]" in line
