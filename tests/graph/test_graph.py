"""The graph itself: parts, users, last uses, cut points, inference of types, costs, folding."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite import nn
from nnlite import onnx as nx
from nnlite.graph import Graph, GraphModule, Value, fold_batch_norm, infer_types, make_node, node_macs, trace
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor


def graph_of(description, inputs, outputs, arrays=()):
    """``"c=add(a,b) d=relu(c)"`` as a graph; every name is a value."""
    values = {name: Value(name=name) for name in (*inputs, *arrays)}
    nodes = []
    for statement in description.split():
        result, call = statement.split("=")
        op, operands = call[:-1].split("(")
        values[result] = Value(name=result)
        nodes.append(make_node(op, [values[o] for o in operands.split(",")], {}, [values[result]], result))
    leaves = {values[name]: np.ones(2, np.float32) for name in arrays}
    return Graph(
        tuple(values[n] for n in inputs), tuple(values[n] for n in outputs), tuple(nodes), leaves
    ), values


def names(items):
    return [item.name for item in items]


CHAIN = "b=relu(a) c=exp(b) d=tanh(c)"
DIAMOND = "b=relu(a) l=exp(b) r=tanh(b) d=add(l,r) e=relu(d)"
RESIDUAL = "b=relu(a) c=exp(b) d=add(c,b) e=tanh(d) f=add(e,d) g=relu(f)"
SKIP_FROM_INPUT = "b=relu(a) c=add(b,a) d=relu(c)"
TWO = "b=relu(a) y=relu(x) c=add(b,y) d=exp(c)"


# ------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize(
    ("description", "inputs", "outputs", "expected"),
    [
        (CHAIN, "a", "d", "bc"),
        (DIAMOND, "a", "e", "bd"),
        (RESIDUAL, "a", "g", "bdf"),
        (SKIP_FROM_INPUT, "a", "d", "c"),
        (TWO, "ax", "d", "c"),
        ("b=relu(a) c=relu(b)", "a", "bc", ""),  # what is an output is read from outside, too
        ("b=relu(a) c=exp(b) d=tanh(b)", "a", "cd", "b"),
        ("b=relu(a) u=exp(b) c=tanh(b)", "a", "c", "b"),  # u leads nowhere
    ],
)
def test_cut_points(description, inputs, outputs, expected):
    graph, _ = graph_of(description, inputs, outputs)
    assert "".join(names(graph.cut_points())) == expected


def test_a_constant_branch_does_not_hinder_a_cut():
    graph, _ = graph_of("k=exp(w) b=relu(a) c=add(b,k) d=add(c,k)", "a", "d", "w")
    assert names(graph.cut_points()) == ["b", "c"]


@pytest.mark.parametrize("description", [CHAIN, DIAMOND, RESIDUAL, SKIP_FROM_INPUT])
def test_both_sides_of_every_cut_compute_the_whole(description):
    last = description.split()[-1][0]
    graph, _ = graph_of(description, "a", last)
    module = GraphModule(graph)
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    for point in graph.cut_points():
        before, after = module.cut(point)
        np.testing.assert_array_equal(after.run(before.run([x])), module.run([x]))
        assert not set(before.graph.nodes) & set(after.graph.nodes)
        assert len(before.graph.nodes) + len(after.graph.nodes) == len(graph.nodes)


def test_between_keeps_what_is_needed_and_nothing_else():
    graph, v = graph_of("b=add(a,w) c=mul(b,u) d=relu(b) e=add(c,d)", "a", "e", "wu")
    part = graph.between([v["b"]], [v["c"]])
    assert (names(part.nodes), names(part.arrays)) == (["c"], ["u"])
    whole = graph.between(graph.inputs, graph.outputs)
    assert (names(whole.nodes), names(whole.arrays)) == (["b", "c", "d", "e"], ["w", "u"])
    same = graph.between([v["b"]], [v["b"]])
    assert (same.nodes, dict(same.arrays)) == ((), {})
    with pytest.raises(ValueError, match="%e also depend on %a"):
        graph.between([v["c"]], [v["e"]])


def test_between_follows_values_among_the_params():
    x, shape, y = Value(name="x"), Value(name="shape"), Value(name="y")
    nodes = (make_node("shape_of", [x], {}, [shape]), make_node("reshape", [x], {"shape": shape}, [y]))
    graph = Graph((x,), (y,), nodes)
    assert len(graph.between([x], [y]).nodes) == 2
    assert graph.users() == {x: list(nodes), shape: [nodes[1]]}
    assert graph.last_uses() == [[], [x, shape]]


def test_users_and_last_uses():
    graph, v = graph_of("b=relu(a) s=mul(b,b) u=exp(b) c=add(s,w)", "a", "c", "w")
    assert {k.name: names(nodes) for k, nodes in graph.users().items()} == {
        "a": ["b"],
        "b": ["s", "u"],
        "s": ["c"],
        "w": ["c"],
    }
    # u is freed where it is made; the output and the constants are never.
    assert [sorted(names(dying)) for dying in graph.last_uses()] == [["a"], [], ["b", "u"], ["s"]]
    assert names(n for n in graph.nodes if n in graph.dependents([v["s"]])) == ["c"]
    assert names(n for n in graph.nodes if n in graph.dependents([v["b"]])) == ["s", "u", "c"]


# ------------------------------------------------------------------------------- types and costs


def running_types(module, *arrays):
    """The type of every value, from running."""
    found = dict(zip(module.graph.inputs, arrays, strict=True))
    for node, results in module._steps([Tensor(a) for a in arrays], {}):
        found.update({v: t.numpy() for v, t in zip(node.outputs, results, strict=True)})
    return {v: ArrayType(a.shape, a.dtype) for v, a in found.items()}


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (2, 3, 65, 97)])
def test_inferred_types_are_those_of_running(mobilenet_path, shape):
    module = nx.load(mobilenet_path)
    inferred = infer_types(module.graph, {module.graph.inputs[0]: ArrayType(shape, np.dtype(np.float32))})
    measured = running_types(module, np.zeros(shape, np.float32))
    assert {v: inferred[v] for v in measured} == measured


@pytest.mark.parametrize("file", ["efficientnet_lite0_padgraph.onnx", "centerface.onnx"])
def test_types_of_models_that_compute_shapes(assets, file):
    module = nx.load(assets / "models" / file)
    shape = tuple(1 if s is None else s for s in module.input_sizes[0])
    inferred = infer_types(module.graph, {module.graph.inputs[0]: ArrayType(shape, np.dtype(np.float32))})
    measured = running_types(module, np.zeros(shape, np.float32))
    assert {v: inferred[v] for v in measured} == measured


def test_a_shape_that_depends_on_data_is_said(onnx_model):
    nodes = [("Cast", ["x"], ["to"], {"to": 7}), ("Expand", ["one", "to"], ["y"])]
    module = nx.load(onnx_model(nodes, {"x": [1]}, ["y"], {"one": np.float32([1])}))
    with pytest.raises(NotImplementedError, match="expand1: a shape depends on the data in %to"):
        infer_types(module.graph, {module.graph.inputs[0]: ArrayType((1,), np.dtype(np.float32))})
    assert module.run([np.float32([3])])[0].shape == (3,)


def test_multiply_accumulates_by_hand():
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip
    x = np.zeros((2, 4, 8, 8), np.float32)
    graph, _ = trace(module, [Tensor(x)])
    types = infer_types(graph, {graph.inputs[0]: ArrayType(x.shape, x.dtype)})
    costs = {node.op.name: node_macs(node, types) for node in graph.nodes}
    assert costs == {
        "conv2d": 2 * 6 * 4 * 4 * (4 // 2) * 3 * 3,
        "batch_norm": 2 * 6 * 4 * 4,
        "relu": 0,
        "flatten": 0,
        "linear": 2 * 96 * 5,
    }


# --------------------------------------------------------------------------------------- folding


def normalised(channels, seed=0):
    """A batch normalisation with statistics that matter."""
    rng = np.random.default_rng(seed)
    norm = nn.BatchNorm2d(channels)
    for tensor, low in (
        (norm.weight, 0.5),
        (norm.bias, -1),
        (norm.running_mean, -1),
        (norm.running_var, 0.1),
    ):
        tensor.assign(rng.uniform(low, 2, channels).astype(np.float32))
    return norm


def ops_of(graph):
    return [node.op.name for node in graph.nodes]


def assert_folded(module, shape, expected, tolerance=2e-6):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    graph, _ = trace(module.eval(), [Tensor(x)])
    before, arrays = ops_of(graph), {v: a.copy() for v, a in graph.arrays.items()}
    folded = fold_batch_norm(graph)
    assert ops_of(folded) == expected
    plain, fused = GraphModule(graph).run([x])[0], GraphModule(folded).run([x])[0]
    # Rounding only: one product and one sum per output are done in another order.
    np.testing.assert_allclose(fused, plain, rtol=0, atol=tolerance * max(1, float(np.abs(plain).max())))
    assert ops_of(graph) == before
    for value, array in graph.arrays.items():
        np.testing.assert_array_equal(array, arrays[value])
    np.testing.assert_array_equal(GraphModule(graph).run([x])[0], plain)


class Branches(nn.Module):
    """The convolution's own result is read once more."""

    def __init__(self):
        self.conv, self.norm = nn.Conv2d(3, 3, 1), normalised(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class AlsoAnOutput(Branches):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y), y


class SharedLayer(Branches):
    def forward(self, x):
        return self.norm(self.conv(self.norm(self.conv(x))))


FOLDS = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), normalised(4), nn.ReLU()), ["conv2d", "relu"]),
    "no bias": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), normalised(4)), ["conv2d"]),
    "groups": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), normalised(6)), ["conv2d"]),
    "shared layers": (SharedLayer, ["conv2d", "conv2d"]),
    "two norms": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), normalised(4), normalised(4, 1)),
        ["conv2d"],
    ),
    "after relu": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), normalised(4)),
        ["conv2d", "relu", "batch_norm"],
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), normalised(4)),
        ["conv_transpose2d"],
    ),
    "transposed groups": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, stride=2, groups=3), normalised(6)),
        ["conv_transpose2d"],
    ),
    "another reader": (Branches, ["conv2d", "batch_norm", "add"]),
    "first": (lambda: nn.Sequential(normalised(3), nn.Conv2d(3, 4, 3)), ["conv2d"]),
    "first, groups": (lambda: nn.Sequential(normalised(3), nn.Conv2d(3, 6, 3, groups=3)), ["conv2d"]),
    # Padding comes after the normalisation's shift.
    "first, padded": (
        lambda: nn.Sequential(normalised(3), nn.Conv2d(3, 4, 3, padding=1)),
        ["batch_norm", "conv2d"],
    ),
    "first, transposed": (
        lambda: nn.Sequential(normalised(3), nn.ConvTranspose2d(3, 4, 3)),
        ["batch_norm", "conv_transpose2d"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDS)
def test_folding_changes_nothing_but_the_nodes(case):
    make, expected = FOLDS[case]
    assert_folded(make(), (2, 3, 6, 6), expected)


def test_what_is_an_output_too_is_not_absorbed():
    graph, _ = trace(AlsoAnOutput().eval(), [Tensor(np.zeros((1, 3, 2, 2), np.float32))])
    assert ops_of(fold_batch_norm(graph)) == ["conv2d", "batch_norm"]


def norm1d(channels):
    norm, source = nn.BatchNorm1d(channels), normalised(channels)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).assign(getattr(source, name).numpy())
    return norm


def test_linear_layers_absorb_a_normalisation_of_their_features_only():
    assert_folded(nn.Sequential(nn.Linear(5, 4), norm1d(4)), (3, 5), ["linear"])
    # [N,C,L]: the linear layer works along L, the normalisation per C.
    assert_folded(nn.Sequential(nn.Linear(5, 4), norm1d(4)), (3, 4, 5), ["linear", "batch_norm"])


def test_folding_mobilenet(mobilenet_path):
    module = nx.load(mobilenet_path)
    folded = fold_batch_norm(module.graph)
    assert "batch_norm" not in ops_of(folded)
    assert ops_of(module.graph).count("batch_norm") == 52
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    plain, fused = module.run([x])[0], GraphModule(folded).run([x])[0]
    np.testing.assert_allclose(fused, plain, rtol=0, atol=1e-5 * float(np.abs(plain).max()))
