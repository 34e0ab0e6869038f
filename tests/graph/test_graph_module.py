"""GraphModule: gradients, freezing, checks of inputs, cutting; and tracing."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import nn
from nnlite import onnx as nx
from nnlite.errors import DTypeError, ModelError, ShapeError
from nnlite.graph import GraphModule, trace
from nnlite.nn import Buffer, Parameter
from nnlite.tensors import Tensor, tracer


def directional(function, tensors, seed=0, step=1e-5):
    """For each tensor: the slope along a random direction, by differences and by its gradient."""
    rng = np.random.default_rng(seed)
    for tensor in tensors:
        tensor.grad = None
    function().backward()
    for tensor in tensors:
        direction = rng.standard_normal(tensor.shape)
        direction /= np.sqrt((direction**2).sum())
        origin = np.array(tensor.numpy())
        values = []
        for sign in (1, -1):
            tensor.writable()[...] = origin + sign * step * direction
            values.append(function().item())
        tensor.writable()[...] = origin
        yield (values[0] - values[1]) / (2 * step), float((tensor.grad.numpy() * direction).sum())


# ------------------------------------------------------------------------------------- gradients


class Small(nn.Module):
    """Convolutions, normalisation, a residual connection, pooling and a linear layer."""

    def __init__(self):
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.block, self.head = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Linear(4, 3)

    def forward(self, x):
        x = F.sigmoid(self.norm(self.stem(x)))
        x = F.tanh(self.block(x)) + x
        return self.head(F.avg_pool2d(x, 3).mean((2, 3)))


def double(graph):
    """The graph's module with parameters in float64."""
    leaves = {}
    for value, array in graph.arrays.items():
        kind = Buffer if "running" in value.name else Parameter
        leaves[value] = kind(array.astype(np.float64) if array.dtype.kind == "f" else array)
    return GraphModule(graph, leaves=leaves)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_a_small_graph(training):
    nl.manual_seed(0)
    graph, _ = trace(Small(), [Tensor(np.zeros((2, 3, 6, 6), np.float32))])
    module = double(graph).train(training)
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 6, 6)), requires_grad=True)
    weight = Tensor(np.random.default_rng(1).standard_normal((2, 3)))
    slopes = list(directional(lambda: (module(x) * weight).sum(), [x, *module.parameters()]))
    assert len(slopes) == 1 + 8
    for measured, computed in slopes:
        # A bias before a normalisation by the batch has no effect: both slopes are rounding.
        assert computed == pytest.approx(measured, rel=1e-6, abs=1e-8)


def test_gradients_of_mobilenet(mobilenet_path):
    module = nx.load(mobilenet_path)
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((2, 3, 64, 64)).astype(np.float32), requires_grad=True)
    labels = np.array([3, 500])
    parameters = list(module.parameters())
    chosen = [x, parameters[0], parameters[1], parameters[len(parameters) // 2], *parameters[-2:]]
    # float32 and kinks of ReLU6: the step is a compromise, and so is the tolerance.
    for measured, computed in directional(lambda: F.cross_entropy(module(x), labels), chosen, step=3e-3):
        assert computed == pytest.approx(measured, rel=0.1, abs=2e-3)
    assert all(p.grad is not None and np.isfinite(p.grad.numpy()).all() for p in parameters)


# -------------------------------------------------------------------------------------- freezing


@pytest.fixture
def normalising(onnx_model):
    """Conv, BatchNormalization with momentum 0.75, Relu, BatchNormalization, Dropout, Mul."""
    rng = np.random.default_rng(0)

    def make():
        nodes = [
            ("Conv", ["x", "w"], ["c"]),
            ("BatchNormalization", ["c", "s1", "b1", "m1", "v1"], ["n1"], dict(momentum=0.75)),
            ("Relu", ["n1"], ["r"]),
            ("BatchNormalization", ["r", "s2", "b2", "m2", "v2"], ["n2"], dict(momentum=0.75)),
            ("Dropout", ["n2"], ["d"]),
            ("Mul", ["d", "scale"], ["y"]),
        ]
        arrays = {
            "w": rng.standard_normal((3, 2, 1, 1)).astype(np.float32),
            "scale": np.float32([[[1]], [[2]], [[3]]]),
        }
        arrays |= {
            f"{part}{i}": np.full(3, start, np.float32)
            for i in (1, 2)
            for part, start in dict(s=1, b=0.25, m=0, v=1).items()
        }
        return nx.load(onnx_model(nodes, {"x": ["N", 2, 4, 4]}, ["y"], arrays))

    return make


X = np.random.default_rng(5).standard_normal((4, 2, 4, 4)).astype(np.float32)


def test_evaluation_never_updates_statistics(normalising):
    module = normalising()
    before = module.state_dict()
    module(Tensor(X))
    module.run([X])
    assert not module.training
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_unfrozen_normalisation_follows_the_batch_with_the_files_momentum(normalising):
    module = normalising().train()
    c = np.einsum("kc,nchw->nkhw", dict(module.named_parameters())["w"].numpy()[:, :, 0, 0], X)
    module(Tensor(X))
    state = module.state_dict()
    np.testing.assert_allclose(state["m1"], 0.25 * c.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["v1"], 0.75 + 0.25 * c.var((0, 2, 3), ddof=1), rtol=1e-4)


@pytest.mark.parametrize("frozen", [("s1", "b1"), ("s2", "b2"), ("s1", "b1", "s2", "b2")], ids=str)
def test_frozen_normalisation_never_follows_the_batch(normalising, frozen):
    module = normalising().train()
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name not in frozen
    before = module.state_dict()
    module(Tensor(X))
    after = module.state_dict()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"m1", "v1", "m2", "v2"} - {part + name[1] for name in frozen for part in "mv"}


def test_all_frozen_is_evaluation(normalising):
    module = normalising()
    expected = module.run([X])[0]
    module.freeze().train()
    result = module(Tensor(X))
    assert not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), expected)
    assert module.trainable_nodes() == set()


@pytest.mark.parametrize(
    ("trained", "drops"), [(["scale"], False), (["b2"], True), (["w"], True), ([], False)]
)
def test_dropout_drops_only_where_something_below_is_trained(normalising, trained, drops):
    module = normalising().train()
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name in trained
    nl.manual_seed(0)
    y = module(Tensor(X)).numpy()
    assert ((y == 0).mean() > 0.3) == drops


def test_single_numbers_are_constants(onnx_model):
    nodes = [("Mul", ["x", "half"], ["a"]), ("Add", ["a", "b"], ["y"])]
    arrays = {"half": np.float32([0.5]), "b": np.zeros(3, np.float32)}
    module = nx.load(onnx_model(nodes, {"x": [3]}, ["y"], arrays))
    assert [name for name, _ in module.named_parameters()] == ["b"]
    assert [name for name, _ in module.named_buffers()] == ["half"]


# -------------------------------------------------------------------------------------- running


@pytest.fixture
def adder(onnx_model):
    model = onnx_model([("Add", ["a", "b"], ["y"])], {"a": ["N", 3], "b": [1, 3]}, ["y"])
    return lambda **options: nx.load(model, **options)


A, B = np.ones((2, 3), np.float32), np.full((1, 3), 2, np.float32)


def test_inputs_by_order_and_by_name(adder):
    module = adder()
    for inputs in ([A, B], {"b": B, "a": A}):
        (y,) = module.run(inputs)
        np.testing.assert_array_equal(y, np.full((2, 3), 3))
    assert (module.inputs, module.outputs) == (("a", "b"), ("y",))


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        ({"a": A}, ModelError, r"inputs \['a', 'b'\] but \['a'\] were given"),
        ({"a": A, "b": B, "c": B}, ModelError, "were given"),
        ([A], ShapeError, "but 1 were given"),
        ([A, B, B], ShapeError, "but 3 were given"),
        ([A, A], ShapeError, r"input b has shape \[2, 3\] but the model declares \[1, 3\]"),
        ([A[0], B], ShapeError, r"input a has shape \[3\] but the model declares \['\?', 3\].*input_shapes"),
        ([A.astype(np.float64), B], DTypeError, "input a is float64 but the model wants float32"),
        ([A, [[1, 2, 3]]], DTypeError, "input b is int64"),
    ],
)
def test_inputs_that_do_not_fit(adder, inputs, error, match):
    with pytest.raises(error, match=match):
        adder().run(inputs)


def test_input_shapes_replace_what_is_declared(adder):
    module = adder(input_shapes={"b": (None, 3)})
    assert module.run([A, A])[0].shape == (2, 3)
    with pytest.raises(ShapeError, match="input a"):
        module.run([A[:, :2], A])
    with pytest.raises(ModelError, match=r"input_shapes names \['z'\]; the inputs are \['a', 'b'\]"):
        adder(input_shapes={"z": (1,)})


def test_running_keeps_the_mode(adder):
    module = adder().train()
    module.run([A, B])
    assert module.training


# -------------------------------------------------------------------------------------- cutting


def test_parts_share_their_parameters(mobilenet_path, normal):
    module = nx.load(mobilenet_path)
    points = module.graph.cut_points()
    before, after = module.cut(points[len(points) // 2])
    own = {id(p) for p in module.parameters()}
    assert {id(p) for part in (before, after) for p in part.parameters()} == own
    x = normal(1, 3, 64, 64)
    np.testing.assert_array_equal(after.run(before.run([x]))[0], module.run([x])[0])
    name, parameter = list(after.named_parameters())[-1]
    parameter.assign(parameter.numpy() + 1)
    np.testing.assert_array_equal(dict(module.named_parameters())[name].numpy(), parameter.numpy())
    np.testing.assert_array_equal(after.run(before.run([x]))[0], module.run([x])[0])


def test_a_cut_elsewhere_names_the_last_points(mobilenet_path):
    module = nx.load(mobilenet_path)
    with pytest.raises(ModelError, match=r"'nowhere' is not a cut point .*; the last ones are .*, "):
        module.cut("nowhere")


# -------------------------------------------------------------------------------------- tracing


class Function(nn.Module):
    def __init__(self, function, **parts):
        self.function = function
        self.__dict__.update(parts)

    def forward(self, *inputs):
        return self.function(self, *inputs)


SHARED = nn.Linear(3, 3)
TRACED = {
    "shared layer": (Function(lambda m, a: m.fc(F.relu(m.fc(a))), fc=SHARED), 1, {"fc.weight", "fc.bias"}),
    "two names of one": (
        Function(lambda m, a: m.two(m.one(a)), one=SHARED, two=SHARED), 1, {"one.weight", "one.bias"},
    ),
    "two inputs": (Function(lambda m, a, b: a * m.w - b, w=Parameter(np.ones(3, np.float32))), 2, {"w"}),
    "one input twice": (Function(lambda m, a, b: a - b), 2, set()),
    "numbers": (Function(lambda m, a: a * 2.0 + 1), 1, {"constant_0", "constant_1"}),
    "array": (Function(lambda m, a: a + np.float32([1, 2, 3])), 1, {"constant_0"}),
    "buffer": (Function(lambda m, a: a + m.b, b=Buffer(np.ones(3, np.float32))), 1, {"b"}),
    "unused": (Function(lambda m, a: a * 1.5, fc=SHARED), 1, {"constant_0"}),
    "several outputs": (Function(lambda m, a: (a * m.w, a), w=Parameter(np.ones(3, np.float32))), 1, {"w"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TRACED)
def test_a_traced_module_computes_the_same(case, normal):
    module, count, leaves = TRACED[case]
    inputs = [normal(2, 3, seed=7)] * count
    graph, tensors = trace(module, [Tensor(x) for x in inputs])
    assert {value.name for value in graph.arrays} == leaves
    own = {id(t) for t in (*module.parameters(), *module.buffers())}
    assert all(id(tensors[v]) in own for v in graph.arrays if not v.name.startswith("constant"))
    other = [normal(4, 3, seed=i) for i in range(count)]
    expected = module(*map(Tensor, other))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for actual, wanted in zip(GraphModule(graph).run(other), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted.numpy())


def test_tracing_is_in_evaluation_mode_and_restores_every_mode(normal):
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3), nn.ReLU()).train()
    module[2].training = False
    before = module.state_dict()
    graph, _ = trace(module, [Tensor(normal(2, 3, 4, 4))])
    assert [node.op.name for node in graph.nodes][-2:] == ["batch_norm", "relu"]
    assert [part.training for part in module.modules()] == [True, True, True, False]
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_trace_that_fails_leaves_no_tracer_behind(normal):
    def fail(m, x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace(Function(fail), [Tensor(normal(2))])
    assert tracer.get() is None
