"""What differs between two files, and files that are the same."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from nnlite import onnx as nx
from nnlite.errors import ModelError
from nnlite.onnx.diff import diff


@pytest.fixture
def pair(tmp_path, onnx_model):
    nodes = [("MatMul", ["x", "w"], ["h"]), ("Add", ["h", "b"], ["s"]), ("Relu", ["s"], ["y"])]
    arrays = {"w": np.float32([[1, 2], [3, 4]]), "b": np.float32([0.5, -0.5])}
    model = onnx_model(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}, arrays, metadata={"by": "one"})

    def make(change=lambda model: None):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        change(changed)
        paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
        for path, proto in zip(paths, (model, changed), strict=True):
            path.write_bytes(proto.SerializeToString())
        return paths

    return make


def _store(model, name, array):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))


def test_the_same(pair):
    report = diff(*pair())
    assert report["same"]
    assert (report["tensors"]["same"], report["nodes"]["same"]) == (2, 3)


def test_tensors_that_changed_by_how_much(pair):
    report = diff(*pair(lambda m: _store(m, "w", np.float32([[1, 2], [3, 5]]))))
    (change,) = report["tensors"]["changed"]
    assert not report["same"]
    assert change == {
        "name": "w",
        "what": "values",
        "elements": 1,
        "of": 4,
        "greatest": 1.0,
        "relative": 0.25,
    }


def test_a_tensor_of_another_shape(pair):
    (change,) = diff(*pair(lambda m: _store(m, "b", np.float32([1]))))["tensors"]["changed"]
    assert (change["what"], change["was"], change["is"]) == ("shape or type", "float32[2]", "float32[1]")


def test_nodes_added_removed_and_changed(pair):
    def change(model):
        model.graph.node[1].op_type = "Sub"
        model.graph.node[2].op_type, model.graph.node[2].output[0] = "Sigmoid", "z"
        model.graph.output[0].name = "z"

    report = diff(*pair(change))
    assert report["nodes"]["added"] == ["z"]
    assert report["nodes"]["removed"] == ["y"]
    assert report["nodes"]["changed"] == [{"name": "s", "parts": ["operator Add -> Sub"], "operator": "Sub"}]
    assert report["outputs"]["added"] == ["z"]


def test_metadata_sizes_and_operator_sets(pair):
    def change(model):
        model.metadata_props[0].value = "two"
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
        model.opset_import[0].version = 18

    report = diff(*pair(change))
    assert report["metadata"]["changed"] == [{"name": "by", "was": "one", "is": "two"}]
    assert report["inputs"]["changed"][0]["is"].endswith("[4, 2]")
    assert report["opset"]["is"] == {"ai.onnx": 18}


def test_trained_tensors_are_all_that_differs(pair, tmp_path):
    first, _ = pair()
    module = nx.load(first)
    weight = dict(module.named_parameters())["w"]
    module.replace_leaf(next(v for v in module.graph.arrays if v.name == "w"), weight.numpy() * 2)
    nx.save(module, tmp_path / "tuned.onnx")
    report = diff(first, tmp_path / "tuned.onnx")
    assert [change["name"] for change in report["tensors"]["changed"]] == ["w"]
    assert report["nodes"] == {"same": 3, "changed": [], "added": [], "removed": []}


def test_what_is_no_model(pair, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match="not an ONNX file"):
        diff(pair()[0], tmp_path / "text.onnx")


def _run(*arguments):
    code = "from nnlite.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_the_command(pair):
    same = _run("diff", *pair())
    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "the models are the same")
    paths = pair(lambda m: _store(m, "w", np.float32([[1, 2], [3, 5]])))
    text, machine = _run("diff", *paths), _run("diff", *paths, "--json")
    assert text.returncode == machine.returncode == 1
    assert "tensor w: 1 of 4 elements, by up to 1 (25.00% of the greatest element)" in text.stdout
    assert json.loads(machine.stdout)["tensors"]["changed"][0]["name"] == "w"
    assert _run("diff", paths[0], "nowhere.onnx").returncode == 2
