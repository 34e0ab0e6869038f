"""Writing: what was read is written back with only what changed; what was traced runs elsewhere."""

from __future__ import annotations

import os
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from nnlite import functional as F
from nnlite import nn
from nnlite import onnx as nx
from nnlite.errors import FileError, ModelError
from nnlite.graph import GraphModule, fold_batch_norm
from nnlite.nn import Parameter
from nnlite.transfer import replace_head

METADATA = {"nnlite.classes": '["a", "b", "c"]', "note": "ünïcode"}


def tensors_of(model):
    """Every tensor of the file by name, with its bytes."""
    found = {t.name: t.SerializeToString(deterministic=True) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = node.attribute[0].SerializeToString(deterministic=True)
    return found


def nodes_of(model):
    return [
        node.SerializeToString(deterministic=True) for node in model.graph.node if node.op_type != "Constant"
    ]


# ----------------------------------------------------------------------- a model that was read


@pytest.fixture(scope="module")
def mobilenet(mobilenet_path):
    return onnx.load(mobilenet_path)


def test_untouched_it_is_written_back_byte_for_byte(mobilenet_path, mobilenet, tmp_path):
    nx.save(nx.load(mobilenet_path), tmp_path / "same.onnx")
    again = onnx.load(tmp_path / "same.onnx")
    assert again == mobilenet
    assert tensors_of(again) == tensors_of(mobilenet)
    assert nodes_of(again) == nodes_of(mobilenet)


def test_only_what_was_trained_differs(mobilenet_path, mobilenet, run_ort, normal):
    module = nx.load(mobilenet_path)
    changed = [name for name, _ in module.named_parameters()][-4::2]
    for name, parameter in module.named_parameters():
        if name in changed:
            parameter.assign(parameter.numpy() * 1.25)
    model = nx.to_model(module, metadata=METADATA)
    before, after = tensors_of(mobilenet), tensors_of(model)
    assert {name for name in before if before[name] != after[name]} == set(changed)
    assert list(before) == list(after)
    assert nodes_of(model) == nodes_of(mobilenet)
    assert {entry.key: entry.value for entry in model.metadata_props}.items() >= METADATA.items()
    x = normal(2, 3, 96, 96)
    assert np.abs(run_ort(model, [x])[0] - module.run([x])[0]).max() < 1e-3


def test_a_new_head_changes_its_tensors_the_output_and_the_metadata(
    mobilenet_path, mobilenet, run_ort, normal
):
    module, head = replace_head(nx.load(mobilenet_path), 3)
    model = nx.to_model(module, metadata=METADATA, input_sizes=[["N", 3, 96, 128]])
    onnx.checker.check_model(model, full_check=True)
    before, after = tensors_of(mobilenet), tensors_of(model)
    assert {name for name in before if before[name] != after[name]} == {head.weight.name, head.bias.name}
    assert nodes_of(model) == nodes_of(mobilenet)
    assert [nx.declared_sizes(entry) for entry in model.graph.output] == [(None, 3)]
    assert [nx.declared_sizes(entry) for entry in model.graph.input] == [(None, 3, 96, 128)]
    x = normal(2, 3, 96, 128)
    assert np.abs(run_ort(model, [x])[0] - module.run([x])[0]).max() < 1e-3
    again = nx.load(model)
    np.testing.assert_array_equal(again.run([x])[0], module.run([x])[0])
    assert again.origin.metadata.items() >= METADATA.items()


def test_weights_in_constant_nodes_are_written_back(onnx_model, normal, run_ort):
    weight = dict(value=numpy_helper.from_array(normal(4, 3)))
    nodes = [("Constant", [], ["w"], weight), ("Gemm", ["x", "w"], ["y"])]
    module = nx.load(onnx_model(nodes, {"x": ["N", 4]}, ["y"]))
    (parameter,) = module.parameters()
    parameter.assign(parameter.numpy() + 1)
    x = normal(2, 4, seed=1)
    np.testing.assert_allclose(run_ort(nx.to_model(module), [x])[0], x @ (normal(4, 3) + 1), rtol=1e-5)


def test_weights_outside_the_file_come_into_the_written_one(onnx_model, normal, run_ort, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    arrays = {"w": normal(4, 3), "unused": normal(2)}
    onnx.save_model(
        onnx_model([("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, ["y"], arrays),
        source / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0,
    )  # fmt: skip
    module = nx.load(source / "model.onnx")
    nx.save(module, target / "model.onnx")
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    x = normal(2, 4, seed=1)
    np.testing.assert_allclose(run_ort(target / "model.onnx", [x])[0], x @ arrays["w"], rtol=1e-5)


def test_half_precision_stays_half_in_the_file(onnx_model, normal):
    w = normal(4, 3).astype(np.float16)
    model = onnx_model(
        [("MatMul", ["x", "w"], ["y"])],
        {"x": (["N", 4], np.float16)},
        {"y": (["N", 3], np.float16)},
        {"w": w},
    )
    module = nx.load(model)
    assert nx.to_model(module) == model
    (parameter,) = module.parameters()
    parameter.assign(parameter.numpy() * 2)
    tensor = nx.to_model(module).graph.initializer[0]
    assert tensor.data_type == TensorProto.FLOAT16
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), w * 2)


def test_a_new_head_of_a_model_in_half_precision_keeps_its_types(onnx_model, normal, run_ort):
    nodes = [("Gemm", ["x", "w", "b"], ["y"], dict(transB=1))]
    arrays = {"w": normal(5, 4).astype(np.float16), "b": np.zeros(5, np.float16)}
    model = onnx_model(nodes, {"x": (["N", 4], np.float16)}, {"y": (["N", 5], np.float16)}, arrays)
    module, _ = replace_head(nx.load(model), 3)
    x = normal(2, 4).astype(np.float16)
    written = run_ort(nx.to_model(module), [x])[0]
    assert (written.dtype, written.shape) == (np.float16, (2, 3))


def test_heads_of_old_files_that_list_initializers_as_inputs(onnx_model, normal, run_ort):
    nodes = [("Gemm", ["x", "w", "b"], ["z"], dict(transB=1)), ("Softmax", ["z"], ["y"])]
    arrays = {"w": normal(5, 4), "b": normal(5), "unused": normal(2)}
    model = onnx_model(nodes, {"x": [1, 4]}, {"y": [1, 5]}, arrays, opset=9, ir_version=3, listed=True)
    module, _ = replace_head(nx.load(model), 3)
    x = normal(1, 4)
    np.testing.assert_allclose(run_ort(nx.to_model(module), {"x": x})[0], module.run([x])[0], atol=1e-5)


def test_an_operator_set_cannot_be_chosen_for_what_was_read(mobilenet_path):
    with pytest.raises(ModelError, match="keeps its operator set"):
        nx.to_model(nx.load(mobilenet_path), opset=18)


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failure_leaves_the_old_file(mobilenet_path, tmp_path, monkeypatch, step):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"what was there")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(FileError, match=r"model\.onnx: cannot be written: No space left on device"):
        nx.save(nx.load(mobilenet_path), path)
    assert path.read_bytes() == b"what was there"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_nowhere_to_write(mobilenet_path, tmp_path):
    with pytest.raises(FileError, match="No such file or directory"):
        nx.save(nx.load(mobilenet_path), tmp_path / "nowhere" / "model.onnx")


# ----------------------------------------------------------------------------- traced modules


class Function(nn.Module):
    def __init__(self, function, **parts):
        self.function = function
        self.__dict__.update(parts)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def residual(m, x):
    return F.relu(m.conv(x) + x)


TRACED = {
    "classifier": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.ReLU6(), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5),
    ),
    "without pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(200, 4)
    ),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), nn.Tanh()),
    "residual": lambda: Function(residual, conv=nn.Conv2d(3, 3, 3, padding=1)),
    "used twice": lambda: Function(lambda m, x: m.conv(m.conv(x)), conv=nn.Conv2d(3, 3, 3, padding=1)),
    "constant": lambda: Function(
        lambda m, x: (x * 2.5 - 1) / m.scale, scale=Parameter(np.float32([[[2.0]], [[3]], [[4]]]))
    ),
    "flatten pixels": lambda: Function(lambda m, x: F.softmax(x.flatten(2), -1)),
    "reshape": lambda: Function(lambda m, x: x.reshape(x.shape[0], 12, 36)),
    "mean": lambda: Function(lambda m, x: x.mean((2, 3), keepdim=True)),
    "slice": lambda: Function(lambda m, x: x[:, 1:, ::2, -3:]),
    "input": lambda: Function(lambda m, x: x),
    "input too": lambda: Function(lambda m, x: (F.relu(x), x)),
    "one value twice": lambda: Function(lambda m, x: (lambda y: (y, y))(F.relu(x))),
    "linear of pixels": lambda: Function(lambda m, x: m.fc(x), fc=nn.Linear(12, 5)),
    "parameter called output": lambda: Function(
        lambda m, x: x * m.output, output=Parameter(np.full((1, 1, 1), 3, np.float32))
    ),
}  # fmt: skip


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", TRACED)
def test_traced_modules_run_with_any_batch(name, opset, run_ort, normal):
    module = TRACED[name]().eval()
    model = nx.to_model(module, inputs=[normal(2, 3, 12, 12)], opset=opset)
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 5):
        x = normal(batch, 3, 12, 12, seed=batch)
        expected = module(nx.writer.Tensor(x))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for outputs in (run_ort(model, [x]), nx.load(model).run([x])):
            for actual, wanted in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(actual, wanted.numpy(), atol=1e-5)


def test_two_inputs(run_ort, normal):
    module = Function(lambda m, a, b: m.fc(a) + b, fc=nn.Linear(4, 3))
    model = nx.to_model(module, inputs=[normal(2, 4), normal(2, 3)])
    assert [entry.name for entry in model.graph.input] == ["input_0", "input_1"]
    a, b = normal(5, 4, seed=1), normal(5, 3, seed=2)
    expected = module(nx.writer.Tensor(a), nx.writer.Tensor(b)).numpy()
    np.testing.assert_allclose(run_ort(model, [a, b])[0], expected, atol=1e-5)


def test_parameters_keep_their_names(normal):
    model = nx.to_model(TRACED["classifier"](), inputs=[normal(1, 3, 12, 12)])
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"0.weight", "1.running_mean", "10.bias"} <= names
    assert nx.load(model).state_dict().keys() >= {"0.weight", "1.running_mean", "10.bias"}


def test_a_rewritten_graph_can_be_written_too(mobilenet_path, normal, run_ort):
    folded = GraphModule(fold_batch_norm(nx.load(mobilenet_path).current_graph())).eval()
    model = nx.to_model(folded, inputs=[normal(1, 3, 64, 64)])
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    x = normal(2, 3, 64, 64)
    np.testing.assert_allclose(run_ort(model, [x])[0], run_ort(mobilenet_path, [x])[0], atol=1e-3)


def test_what_cannot_be_written(normal):
    with pytest.raises(ModelError, match="give example inputs"):
        nx.to_model(nn.ReLU())
    batch_statistics = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(ModelError, match="batch_norm_training is a training-time operation"):
        nx.to_model(batch_statistics, inputs=[normal(2, 3, 4, 4)])


# ----------------------------------------------------------------------------- PyTorch's files


def torch_modules():
    torch = pytest.importorskip("torch", reason="torch is the oracle here; install nnlite[oracle]")
    t = torch.nn
    torch.manual_seed(0)

    class Block(t.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = t.Conv2d(3, 3, 3, padding=1, bias=False), t.BatchNorm2d(3)

        def forward(self, x):
            y = torch.relu(self.bn(self.conv(x)) + x)
            return torch.cat([y, y.mean((2, 3), keepdim=True).expand_as(y)], 1).clamp(0, 2)

    class Shapes(t.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            return x.view(n, c, h * w).transpose(1, 2).reshape(n, -1)[:, 5:-3:2].softmax(1)

    classifier = t.Sequential(
        t.Conv2d(3, 6, 3, 2, 1), t.BatchNorm2d(6), t.ReLU6(), t.MaxPool2d(3, 2, 1, ceil_mode=True),
        t.AvgPool2d(2, 1, 1, count_include_pad=False), t.AdaptiveAvgPool2d(1),
        t.Flatten(), t.Dropout(), t.Linear(6, 4),
    )  # fmt: skip
    return {"classifier": classifier, "block": Block(), "shapes": Shapes()}


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", ["classifier", "block", "shapes"])
def test_pytorchs_exports_agree_with_pytorch(tmp_path, name, opset, normal):
    module = torch_modules()[name].eval()
    import torch

    path = tmp_path / "model.onnx"
    example = torch.zeros(2, 3, 10, 12)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (example,), str(path), opset_version=opset, dynamo=False,
                input_names=["x"], dynamic_axes={"x": {0: "N"}},
            )  # fmt: skip
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"this PyTorch has no legacy exporter: {error}")
    for batch in (1, 4):
        x = normal(batch, 3, 10, 12, seed=batch)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(nx.load(path).run([x])[0], expected, atol=1e-5)
