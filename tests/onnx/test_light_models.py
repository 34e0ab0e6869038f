"""ONNX's graphs of real networks with random weights: its own are all of one value and prove little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nnlite.onnx as nx

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
FILES = sorted(path.stem for path in FOLDER.glob("*.onnx") if path.stem != "light_vgg19")
"""All but VGG-19: its layers are AlexNet's, and its 144 million weights take gigabytes."""


def filled(name):
    """The model with a random tensor in the place of every constant one, and inputs."""
    model, rng = onnx.load(FOLDER / f"{name}.onnx"), np.random.default_rng(0)
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    variances = {node.input[4] for node in graph.node if node.op_type == "BatchNormalization"}
    kept, drawn = [], []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = tuple(shapes[node.input[0]].tolist())
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        array = rng.standard_normal(shape, np.float32) * np.float32((2 / fan) ** 0.5)
        array = np.abs(array) + 0.5 if node.output[0] in variances else array
        drawn.append(numpy_helper.from_array(array.astype(np.float32), node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    kept_tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    kept_inputs = [entry for entry in graph.input if entry.name in used]
    del graph.initializer[:], graph.input[:], graph.value_info[:]
    graph.initializer.extend([*kept_tensors, *drawn])
    graph.input.extend(kept_inputs)
    model.ir_version = max(model.ir_version, 4)  # before, initializers had to be inputs as well
    given = {tensor.name for tensor in graph.initializer}
    feeds = {
        entry.name: rng.standard_normal([d.dim_value for d in entry.type.tensor_type.shape.dim], np.float32)
        for entry in graph.input
        if entry.name not in given
    }
    return model, feeds


def test_there_are_such_models():
    assert len(FILES) >= 8


@pytest.mark.parametrize("name", FILES)
def test_a_real_graph_with_random_weights(name, run_ort):
    model, feeds = filled(name)
    assert len(feeds) == 1
    expected, module = run_ort(model, feeds), nx.load(model)
    for y, wanted in zip(module.run(feeds), expected, strict=True):
        assert np.ptp(wanted) > 0
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max()))
