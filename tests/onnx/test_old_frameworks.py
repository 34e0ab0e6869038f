"""Graphs as the exporters of Caffe, MXNet and Paddle wrote them: old operator sets and the idioms of each.

ONNX Runtime is the oracle. It begins with operator set 7, so that what is older is compared with the same
network as operator set 9 says it.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_step import take_small_step

import nnlite.onnx as nx
from nnlite import functional as F
from nnlite.tensors import Tensor


class Builder:
    """Nodes and weights of a graph, in the words of one operator set."""

    def __init__(self, opset: int) -> None:
        self.opset, self.rng = opset, np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, *shape: int, positive: bool = False) -> str:
        name = f"w{len(self.weights)}"
        array = self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        self.weights[name] = (np.abs(array) + 0.5 if positive else array).astype(np.float32)
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.weights[name] = array
        return name

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, c: int, k: int, size: int, bias: bool = True, group: int = 1, **rest: object
    ) -> str:
        weights = [self.weight(k, c // group, size, size), *([self.weight(k)] if bias else [])]
        return self("Conv", x, *weights, kernel_shape=[size, size], group=group, **rest)

    def per_channel(self, op: str, x: str, c: int) -> str:
        """A layer of one number per channel, which before operator set 7 named its axis."""
        if self.opset < 7:
            return self(op, x, self.weight(c), broadcast=1, axis=1)
        return self(op, x, self.weight(c, 1, 1))

    def batch_norm(self, x: str, *shape: int, **attributes: object) -> str:
        moments = [
            self.weight(*shape),
            self.weight(*shape),
            self.weight(*shape),
            self.weight(*shape, positive=True),
        ]
        if self.opset < 7:
            attributes["is_test"] = 1
        return self("BatchNormalization", x, *moments, epsilon=1e-3, **attributes)

    def dropout(self, x: str) -> str:
        return self("Dropout", x, ratio=0.5, **(dict(is_test=1) if self.opset < 7 else {}))

    def gemm(self, x: str, c: int, k: int) -> str:
        old = dict(broadcast=1) if self.opset < 7 else {}
        return self("Gemm", x, self.weight(k, c), self.weight(k), transB=1, **old)

    def model(self, y: str, shape: list, initializers_first: bool = True) -> onnx.ModelProto:
        """The model; before IR version 4 every initializer is an input as well."""
        given = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                 for n, a in self.weights.items()]  # fmt: skip
        real = [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(
            self.nodes, "net", given + real if initializers_first else real + given,
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, [None, None])],
            [numpy_helper.from_array(a, n) for n, a in self.weights.items()],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=3)


def caffe_classifier(b: Builder) -> str:
    """AlexNet's and GoogLeNet's ways: LRN, groups, pools padded for ceil mode, BatchNorm then Scale."""
    x = b("Relu", b.conv("data", 3, 8, 5, strides=[2, 2], pads=[2, 2, 2, 2]))
    x = b("LRN", x, size=5, alpha=1e-4, beta=0.75, bias=1.0)
    x = b("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    x = b("Relu", b.conv(x, 8, 12, 3, group=2, pads=[1, 1, 1, 1]))
    scaled = b.per_channel("Add", b.per_channel("Mul", b.batch_norm(x, 12), 12), 12)
    branches = [b("Relu", b.conv(scaled, 12, 4, 1)), b("Relu", b.conv(scaled, 12, 6, 3, pads=[1, 1, 1, 1]))]
    pooled = b("MaxPool", scaled, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    x = b("Concat", *branches, b.conv(pooled, 12, 2, 1), axis=1)
    x = b("Sum", x, scaled)
    x = b("AveragePool", x, kernel_shape=[4, 4], strides=[4, 4])
    shape = b.constant("shape", np.array([0, -1], np.int64))
    x = b.dropout(b("Reshape", x, shape))
    return b("Softmax", b.gemm(x, 12, 5), axis=1)


def caffe_fcn(b: Builder) -> str:
    """FCN's: a score map, a transposed convolution in groups that doubles it, a crop, softmax by channel."""
    x = b("Relu", b.conv("data", 3, 6, 3, pads=[10, 10, 10, 10], strides=[2, 2]))
    x = b("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.conv(x, 6, 4, 1)
    x = b("ConvTranspose", x, b.weight(4, 1, 4, 4), kernel_shape=[4, 4], strides=[2, 2], group=4)
    x = b("Slice", x, axes=[2, 3], starts=[3, 3], ends=[19, 19])
    x = b("Transpose", x, perm=[0, 2, 3, 1])
    shape = b.constant("shape", np.array([-1, 4], np.int64))
    return b("Softmax", b("Reshape", x, shape), axis=1)


def arcface(b: Builder) -> str:
    """MXNet's face embedding: pixels scaled in the graph, blocks that begin with normalisation, PRelu."""
    x = b("Sub", "data", b.constant("_minusscalar0", np.float32([127.5])))
    x = b("Mul", x, b.constant("_mulscalar0", np.float32([0.0078125])))
    x = b.batch_norm(b.conv(x, 3, 8, 3, bias=False, pads=[1, 1, 1, 1], dilations=[1, 1]), 8)
    x = b("PRelu", x, b.weight(8, 1, 1))
    for stride in (2, 1):
        y = b.conv(b.batch_norm(x, 8), 8, 8, 3, bias=False, pads=[1, 1, 1, 1])
        y = b("PRelu", b.batch_norm(y, 8), b.weight(8, 1, 1))
        y = b.batch_norm(b.conv(y, 8, 8, 3, bias=False, pads=[1, 1, 1, 1], strides=[stride] * 2), 8)
        if stride == 2:
            x = b.batch_norm(b.conv(x, 8, 8, 1, bias=False, strides=[2, 2]), 8)
        x = b("Add", y, x)
    x = b("Flatten", b.dropout(b.batch_norm(x, 8)))
    x = b.gemm(x, 8 * 8 * 8, 10)
    x = b.batch_norm(x, 10)
    return b("LpNormalization", x, axis=1, p=2)


def paddle_classifier(b: Builder) -> str:
    """Paddle's: hard sigmoids as gates, hard swish spelled out by Clip, weights in Constant nodes."""
    x = b.batch_norm(b.conv("data", 3, 8, 3, bias=False, strides=[2, 2], pads=[1, 1, 1, 1]), 8, momentum=0.9)
    three, six = (b("Constant", value=numpy_helper.from_array(np.float32([v]))) for v in (3, 6))
    gate = b("Clip", b("Add", x, three), min=0.0, max=6.0)
    x = b("Div", b("Mul", x, gate), six)
    pooled = b("GlobalAveragePool", x)
    gate = b("HardSigmoid", b.conv(b("Relu", b.conv(pooled, 8, 4, 1)), 4, 8, 1), alpha=0.2, beta=0.5)
    x = b("GlobalAveragePool", b("Mul", x, gate))
    x = b("MatMul", b("Squeeze", x, axes=[2, 3]), b.weight(8, 5))
    return b("Softmax", b("Add", x, b.weight(5)), axis=1)


NETWORKS = {
    caffe_classifier: (6, 7, 8, 9), caffe_fcn: (6, 7, 9), arcface: (6, 7, 8), paddle_classifier: (7, 9),
}  # fmt: skip
CASES = [(network, opset) for network, opsets in NETWORKS.items() for opset in opsets]
SHAPE = [2, 3, 16, 16]


def made(network, opset, **options):
    """The model in one operator set, a picture, and the model that ONNX Runtime reads instead."""
    built, plain = Builder(opset), Builder(max(opset, 9 if network is not arcface else 8))
    model = built.model(network(built), SHAPE, **options)
    oracle = plain.model(network(plain), SHAPE)
    x = (np.random.default_rng(0).standard_normal(SHAPE) * 50 + 120).astype(np.float32)
    return model, oracle, x if network is arcface else x / 128 - 1


@pytest.mark.parametrize("initializers_first", [True, False])
@pytest.mark.parametrize(("network", "opset"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_values(network, opset, initializers_first, run_ort):
    model, oracle, x = made(network, opset, initializers_first=initializers_first)
    onnx.checker.check_model(model)
    module = nx.load(model)
    assert module.inputs == ("data",)
    (mine,), (theirs,) = module.run([x]), run_ort(oracle, {"data": x})
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    np.testing.assert_allclose(module.compile()(x), theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(("network", "opset"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_a_step_of_training_and_the_way_back(network, opset, run_ort, tmp_path):
    model, _, x = made(network, opset)
    module = nx.load(model)
    weights = [p for p in module.parameters() if p.requires_grad]
    target = np.random.default_rng(1).standard_normal(module.run([x])[0].shape).astype(np.float32)

    def loss():
        return F.mse_loss(module(Tensor(x)), Tensor(target))

    take_small_step(weights, loss, rel=0.15)
    assert all(p.grad is not None for p in weights)
    nx.save(module, tmp_path / "tuned.onnx")
    onnx.checker.check_model(str(tmp_path / "tuned.onnx"))
    again = nx.load(tmp_path / "tuned.onnx")
    np.testing.assert_array_equal(again.run([x])[0], module.run([x])[0])
    if opset >= 7:
        (theirs,) = run_ort(tmp_path / "tuned.onnx", {"data": x})
        np.testing.assert_allclose(module.run([x])[0], theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_a_slope_per_channel_without_axes_is_no_broadcast(normal):
    """Some of MXNet's files give PRelu a slope [C], which meets the last axis: an error."""
    node = helper.make_node("PRelu", ["data", "s"], ["y"])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 4, 4])],
        [numpy_helper.from_array(normal(8), "s")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)
    with pytest.raises(ValueError, match="prelu"):
        nx.load(model).run([normal(1, 8, 4, 4)])
