"""Whole models against ONNX Runtime, on random inputs and on a drawing; what is not supported is listed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from nnlite import layout
from nnlite import onnx as nx
from nnlite.data import Preprocessing, decode
from nnlite.errors import ModelError
from nnlite.onnx.inspect import inspect
from nnlite.ops import READERS

MODELS = {
    # file: preprocessing of its pictures (None: it takes none), shape of a random input
    "efficientnet_lite0.onnx": ("lite", (1, 3, 224, 224)),
    "efficientnet_lite0_padgraph.onnx": ("lite", (1, 3, 224, 224)),
    "dcgan_face64.onnx": (None, (2, 100, 1, 1)),
}


def agree(path, x, run_ort, scale=1e-4):
    expected = run_ort(path, [x])
    actual = nx.load(path).run([x])
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=scale * float(np.abs(theirs).max()))
    return actual


@pytest.fixture(scope="module")
def drawing(clipart):
    return sorted((clipart / "val" / "bird").iterdir())[0]


def prepared(family, drawing, side=224):
    return Preprocessing.named(family, side).evaluation()(decode(drawing))[None]


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (3, 3, 96, 96), (2, 3, 75, 130)])
def test_mobilenet_on_noise(mobilenet_path, normal, run_ort, shape):
    agree(mobilenet_path, normal(*shape), run_ort)


def test_mobilenet_on_a_drawing(mobilenet_path, drawing, run_ort):
    agree(mobilenet_path, prepared("imagenet", drawing), run_ort)


@pytest.mark.parametrize("file", MODELS)
def test_larger_models(assets, file, normal, drawing, run_ort):
    family, shape = MODELS[file]
    path = assets / "models" / file
    agree(path, normal(*shape), run_ort)
    if family is not None:
        agree(path, prepared(family, drawing), run_ort)


def test_a_detector_of_operator_set_9_at_another_size(assets, drawing, run_ort, tmp_path):
    path = assets / "models" / "centerface.onnx"
    module = nx.load(path, input_shapes={"input.1": (None, 3, None, None)})
    x = prepared("raw255", drawing, 96)
    free = onnx.load(path)
    for dim in (free.graph.input[0].type.tensor_type.shape.dim[i] for i in (0, 2, 3)):
        dim.dim_param = "?"
    free.graph.ClearField("value_info")
    del free.graph.output[:]
    free.graph.output.extend(onnx.ValueInfoProto(name=name) for name in module.outputs)
    expected = run_ort(free, {"input.1": x})
    for mine, theirs in zip(module.run([x]), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * max(1, float(np.abs(theirs).max())))


def test_every_model_at_hand_is_right_or_refused_with_all_reasons(assets):
    seen = {}
    for path in sorted((assets / "models").glob("*.onnx")):
        report = inspect(path)
        seen[path.name] = not report["problems"]
        if not report["problems"]:
            nx.load(path)
            continue
        with pytest.raises(ModelError) as error:
            nx.load(path)
        message = str(error.value)
        for problem in report["problems"]:
            assert f"{problem['op_type']} ({problem['node']}): " in message
        unknown = [node for node in onnx.load(path).graph.node if node.op_type not in {*READERS, "Constant"}]
        assert all(
            f"{node.op_type} ({node.name or node.output[0]}): not supported (operator set " in message
            for node in unknown
        )
    assert {name for name, loads in seen.items() if loads} >= {
        *MODELS,
        "mobilenet_v2.onnx",
        "centerface.onnx",
    }


def test_copies_between_memory_orders(mobilenet_path):
    """Inference converts the picture, once, and the pooled features are a matrix already."""
    module = nx.load(mobilenet_path)
    x = layout.channels_last(np.zeros((2, 3, 96, 96), np.float32))
    module.run([x])
    before = layout.copies()
    module.run([x])
    assert layout.copies() == before, "a channels-last picture needs no copy at all"
    module.run([np.zeros((2, 3, 96, 96), np.float32)])
    assert layout.copies() == before + 1
