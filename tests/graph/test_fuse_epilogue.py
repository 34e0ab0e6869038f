"""Sums and activations taken over by batch normalisations: the same numbers, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite.graph import GraphModule, fold_batch_norm, fuse_epilogue, split_epilogue, trace
from nnlite.kernels import unavailable
from nnlite.nn import BatchNorm2d, Conv2d, Module
from nnlite.tensors import Tensor

RNG = np.random.default_rng(0)


def picture(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


class Block(Module):
    """Conv-BN-ReLU6, Conv-BN + shortcut, ReLU: everything that can be fused; one sum that cannot."""

    def __init__(self):
        self.a, self.b, self.c = (Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3))
        self.na, self.nb, self.nc = (BatchNorm2d(4) for _ in range(3))
        for norm in (self.na, self.nb, self.nc):
            norm.weight.assign(RNG.uniform(0.5, 2, 4).astype(np.float32))
            norm.bias.assign(picture(4))

    def forward(self, x):
        y = F.relu6(self.na(self.a(x)))
        y = F.relu(self.nb(self.b(y)) + x)
        z = self.nc(self.c(y))
        return F.relu(z) + z.sum(1, keepdim=True)  # z is read twice


def both():
    graph, leaves = trace(Block(), [Tensor(picture(2, 4, 6, 6))])
    plain = GraphModule(graph, leaves=leaves)
    return plain, plain.fused()


def operations(graph):
    return [node.op.name for node in graph.nodes]


def test_what_nobody_else_reads_is_fused():
    plain, fused = both()
    assert operations(fused.graph) == ["conv2d", "batch_norm"] * 3 + ["relu", "sum", "add"]
    first, second, third = (node for node in fused.graph.nodes if node.op.name == "batch_norm")
    assert first.params["activation"] == (0.0, 6.0)
    assert second.params["activation"] == "relu"
    assert second.inputs[5] is fused.graph.inputs[0]
    assert len(third.inputs) == 5 and "activation" not in third.params
    assert operations(split_epilogue(fused.graph)) == operations(plain.graph)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_same_numbers_forward_and_backward(training, frozen):
    plain, fused = both()
    if frozen:
        for name, parameter in plain.named_parameters():
            parameter.requires_grad = not name.startswith("n")
    x, gy = picture(2, 4, 6, 6), picture(2, 4, 6, 6)
    results = []
    buffers = {name: buffer.numpy().copy() for name, buffer in plain.named_buffers()}
    for module in (plain, fused):
        for name, buffer in module.named_buffers():
            buffer.assign(buffers[name])
        module.train(training)
        module.zero_grad()
        given = Tensor(x, requires_grad=True)
        y = module(given)
        y.backward(gy)
        gradients = [p.grad.numpy() for p in module.parameters() if p.requires_grad]
        moved = [buffer.numpy().copy() for buffer in module.buffers()]
        results.append([y.numpy(), given.grad.numpy(), *gradients, *moved])
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("bounds", [None, (0.0, 6.0), (-0.5, 0.0), (-0.5, 0.5)], ids=str)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("shortcut", [False, True])
def test_a_convolution_passes_the_gradient_where_its_activation_does(backend, bounds, groups, shortcut):
    """As exporters leave it that fold batch normalisation: with float32 bounds, of which 0 is one."""
    if reason := unavailable(backend):
        pytest.skip(f"{backend}: {reason}")

    class Layer(Module):
        def __init__(self):
            self.conv = Conv2d(4, 4, 3, padding=1, groups=groups)

        def forward(self, x):
            z = self.conv(x) + x if shortcut else self.conv(x)
            return F.relu(z) if bounds is None else F.clamp(z, *bounds)

    x, gy = 4 * picture(2, 4, 6, 6), picture(2, 4, 6, 6)
    with nl.use_backend(backend):
        graph, leaves = trace(Layer(), [Tensor(x)])
        plain = GraphModule(graph, leaves=leaves)
        fused, results = plain.fused(), []
        assert len(fused.graph.nodes) == 1
        for module in (plain, fused):
            module.zero_grad()
            given = Tensor(x, requires_grad=True)
            y = module(given)
            y.backward(gy)
            results.append([y.numpy(), given.grad.numpy(), *(p.grad.numpy() for p in module.parameters())])
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_folding_sees_through_it():
    plain, fused = both()
    folded = [operations(fold_batch_norm(module.current_graph())) for module in (fused, plain)]
    assert folded[0] == folded[1]


def test_a_sum_that_broadcasts_and_results_that_are_outputs_stay():
    class Two(Module):
        def __init__(self):
            self.norm, self.other = BatchNorm2d(3), BatchNorm2d(3)
            self.shift = nl.nn.Parameter(picture(3, 1, 1))

        def forward(self, x):
            y = self.other(x)
            return F.relu(self.norm(x) + self.shift), y, F.relu(y)

    graph, _ = trace(Two(), [Tensor(picture(2, 3, 4, 4))])
    assert operations(fuse_epilogue(graph)) == operations(graph)


@pytest.mark.parametrize("activation", ["relu", "relu6", (-0.5, 0.5)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_layer_with_activation_equals_layer_and_activation(activation, training, with_residual):
    fused, plain = BatchNorm2d(5, activation=activation).train(training), BatchNorm2d(5).train(training)
    values, gy = picture(3, 5, 4, 4), picture(3, 5, 4, 4)
    outcomes = []
    for norm in (fused, plain):
        x, r = Tensor(values, requires_grad=True), Tensor(2 * values[::-1].copy(), requires_grad=True)
        y = norm(x, r) if with_residual and norm is fused else norm(x)
        if norm is plain:
            y = y + r if with_residual else y
            bounds = (0.0, 6.0) if activation == "relu6" else activation
            y = F.relu(y) if activation == "relu" else F.clamp(y, *bounds)
        y.backward(gy)
        parts = [y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        outcomes.append([part.numpy() for part in (*parts, *([r.grad] if with_residual else []))])
    for actual, expected in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("act", [nl.nn.ReLU, nl.nn.ReLU6])
def test_sequential_lets_a_normalisation_take_its_activation_along(act, monkeypatch):
    model = nl.nn.Sequential(Conv2d(3, 5, 3), BatchNorm2d(5), act(), Conv2d(5, 4, 1), BatchNorm2d(4), act())
    x, gy = picture(2, 3, 6, 6), picture(2, 4, 4, 4)
    outcomes = []
    for absorbs in (True, False):
        if not absorbs:
            monkeypatch.setattr(nl.nn.functions, "_ABSORBED", {})
        model.zero_grad()
        y = model(Tensor(x))
        y.backward(gy)
        outcomes.append([y.numpy(), *(p.grad.numpy() for p in model.parameters())])
        assert [node.op.name for node in trace(model, [Tensor(x)])[0].nodes][1:3] != ["batch_norm", "conv2d"]
    for actual, expected in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_traced_graph_has_the_parts():
    graph, _ = trace(BatchNorm2d(4, activation="relu6"), [Tensor(picture(1, 4, 2, 2))])
    assert operations(graph) == ["batch_norm", "clamp"]


def test_an_unknown_activation_is_refused():
    with pytest.raises(nl.errors.ConfigError, match="activation='gelu' must be"):
        BatchNorm2d(3, activation="gelu")


@pytest.mark.parametrize("activation", ["relu", "relu6", None])
def test_onnx_has_the_parts(activation, tmp_path, run_ort):
    class Net(Module):
        def __init__(self):
            self.conv, self.norm = Conv2d(3, 3, 1), BatchNorm2d(3, activation=activation)

        def forward(self, x):
            return self.norm(self.conv(x), x) if activation != "relu6" else self.norm(self.conv(x))

    net, x = Net().eval(), picture(2, 3, 4, 4)
    nl.onnx.save(net, tmp_path / "net.onnx", inputs=[x])
    [y] = run_ort(tmp_path / "net.onnx", [x])
    np.testing.assert_allclose(net(Tensor(x)).numpy(), y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(nl.onnx.load(tmp_path / "net.onnx").run([x])[0], y, rtol=1e-5, atol=1e-5)
