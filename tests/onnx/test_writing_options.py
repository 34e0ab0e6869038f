"""What may be asked of a written file: folded, or with weights beside; and new heads for what was read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import nnlite.onnx as nx
from nnlite import nn
from nnlite.errors import FileError, ModelError
from nnlite.onnx import writer
from nnlite.tensors import Tensor

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def network():
    layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 5, 1)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6))
    model[1].running_mean.assign(normal(4))
    return model.eval()


def operators(model):
    return [node.op_type for node in model.graph.node]


# -------------------------------------------------------------------------------------------- fold


def test_folding_a_module():
    model, x = network(), normal(2, 3, 8, 8)
    folded = nx.to_model(model, inputs=[x], fold=True)
    assert operators(folded) == ["Conv", "Relu", "Conv", "GlobalAveragePool", "Flatten", "Gemm"]
    expected = model(Tensor(x)).numpy()
    np.testing.assert_allclose(nx.load(folded).run([x])[0], expected, rtol=0, atol=1e-6)


def test_folding_what_was_read(mobilenet_path, tmp_path, run_ort):
    module = nx.load(mobilenet_path)
    nx.save(module, tmp_path / "folded.onnx", fold=True, metadata={"key": "value"})
    plain, folded = onnx.load(mobilenet_path), onnx.load(tmp_path / "folded.onnx")
    assert "BatchNormalization" in operators(plain) and "BatchNormalization" not in operators(folded)
    for one, other in ((plain.graph.input, folded.graph.input), (plain.graph.output, folded.graph.output)):
        assert [entry.name for entry in one] == [entry.name for entry in other]
    assert folded.metadata_props[-1].value == "value"
    for shape in [(2, 3, 64, 64), (1, 3, 96, 80)]:  # the sizes that were open still are
        x = normal(*shape)
        expected = module.run([x])[0]
        for actual in (nx.load(folded).run([x])[0], run_ort(folded, [x])[0]):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * float(np.abs(expected).max()))
    assert nx.to_model(module) == plain  # the module itself is as it was


# ------------------------------------------------------------------------------------ weights beside


def test_models_beyond_a_message_have_their_weights_beside(tmp_path, monkeypatch, run_ort):
    monkeypatch.setattr(writer, "LARGEST", 2000)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3)).eval()
    x = normal(1, 3, 8, 8)
    path = tmp_path / "large.onnx"
    nx.save(model, path, inputs=[x])
    first = {entry.name for entry in tmp_path.iterdir()}
    (data,) = first - {"large.onnx"}
    assert data.startswith("large.onnx.") and data.endswith(".data")
    assert path.stat().st_size < 5000
    expected = model(Tensor(x)).numpy()
    np.testing.assert_array_equal(nx.load(path).run([x])[0], expected)
    np.testing.assert_allclose(run_ort(path, [x])[0], expected, rtol=0, atol=1e-5)
    read = nx.load(path)
    weight = next(iter(read.parameters()))
    weight.assign(weight.numpy() * 2)
    nx.save(read, path)  # over itself, with other weights
    np.testing.assert_array_equal(nx.load(path).run([x])[0], read.run([x])[0])
    with pytest.raises(FileError, match="cannot be written"):
        nx.save(model, tmp_path / "nowhere" / "large.onnx", inputs=[x])


# ------------------------------------------------------------------------------------------- heads


def test_a_new_head_by_method(mobilenet_path):
    module = nx.load(mobilenet_path)
    new = module.replace_head(7)
    assert new.run([normal(2, 3, 64, 64)])[0].shape == (2, 7)
    assert module.run([normal(1, 3, 64, 64)])[0].shape == (1, 1000)
    with pytest.raises(ModelError, match="no layer is called 'nowhere'"):
        module.replace_head(7, "nowhere")
