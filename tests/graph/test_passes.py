"""Passes of the compiler: each changes the nodes as it says and nothing about the results."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite.onnx as nx
from nnlite.graph import GraphModule
from nnlite.graph.passes import (
    cancel_transpose,
    fold_batch_norm,
    fold_constants,
    fold_pad,
    fuse_gate,
    remove_identity,
)
from nnlite.tensors import Tensor

RNG = np.random.default_rng(0)
F32 = np.float32


def normal(*shape):
    return RNG.standard_normal(shape).astype(F32)


def check(onnx_model, nodes, x, expected, passes, arrays=None, tolerance=0.0, output="y"):
    """Read the nodes as a file, apply the passes, compare operations and results; returns the graph."""
    module = nx.load(onnx_model(nodes, {"x": list(x.shape)}, [output], arrays or {}))
    before = module.run([x])[0]
    graph = module.current_graph()
    for one in passes:
        graph = one(graph)
    assert [node.op.name for node in graph.nodes] == expected
    after = GraphModule(graph).run([x])[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance * float(np.abs(before).max()))
    np.testing.assert_array_equal(module.run([x])[0], before)  # the graph it came from is as it was
    return graph


# --------------------------------------------------------------------------------------- identity


def test_nodes_that_do_nothing_go(onnx_model):
    nodes = [
        ("Identity", ["x"], ["a"], {}),
        ("Dropout", ["a"], ["b"], {}),
        ("Transpose", ["b"], ["c"], {"perm": [0, 1, 2]}),
        ("Pad", ["c", "zeros"], ["d"], {}),
        ("Relu", ["d"], ["e"], {}),
        ("Identity", ["e"], ["f"], {}),
        ("Neg", ["f"], ["y"], {}),
    ]
    arrays = {"zeros": np.zeros(6, np.int64)}
    check(onnx_model, nodes, normal(2, 3, 4), ["relu", "neg"], [remove_identity], arrays)


def test_an_output_keeps_its_name_and_a_real_transpose_stays(onnx_model):
    nodes = [("Transpose", ["x"], ["a"], {"perm": [0, 2, 1]}), ("Identity", ["a"], ["y"], {})]
    graph = check(onnx_model, nodes, normal(2, 3, 4), ["transpose", "identity"], [remove_identity])
    assert [value.name for value in graph.outputs] == ["y"]


# -------------------------------------------------------------------------------------- constants


def test_what_depends_on_constants_is_computed_once(onnx_model):
    nodes = [
        ("Transpose", ["w"], ["wt"], {"perm": [1, 0]}),
        ("Mul", ["wt", "two"], ["w2"], {}),
        ("MatMul", ["x", "w2"], ["y"], {}),
    ]
    arrays = {"w": normal(5, 4), "two": F32(2)}
    graph = check(onnx_model, nodes, normal(3, 4), ["matmul"], [fold_constants], arrays)
    (weight,) = graph.arrays.values()
    np.testing.assert_array_equal(weight, arrays["w"].T * F32(2))


def test_a_small_constant_does_not_become_a_large_one(onnx_model):
    nodes = [("Expand", ["one", "shape"], ["a"], {}), ("Add", ["x", "a"], ["y"], {})]
    arrays = {"one": F32([1]), "shape": np.int64([300, 300])}
    check(onnx_model, nodes, normal(300, 300), ["expand", "add"], [fold_constants], arrays)


# -------------------------------------------------------------------------------------------- pad


@pytest.mark.parametrize(
    ("pads", "mode", "expected"),
    [
        ([0, 0, 1, 0, 0, 0, 2, 3], "constant", ["conv2d"]),
        ([0, 1, 1, 0, 0, 0, 2, 3], "constant", ["pad", "conv2d"]),  # channels
        ([0, 0, -1, 0, 0, 0, 2, 3], "constant", ["pad", "conv2d"]),  # a crop
        ([0, 0, 1, 1, 0, 0, 1, 1], "reflect", ["pad", "conv2d"]),
    ],
)
def test_zeros_around_a_picture_become_the_convolutions_padding(onnx_model, pads, mode, expected):
    channels = 3 + pads[1] + pads[5]
    nodes = [
        ("Pad", ["x", "pads"], ["a"], {"mode": mode}),
        ("Conv", ["a", "w"], ["y"], {"pads": [1, 0, 0, 1], "strides": [2, 1]}),
    ]
    arrays = {"pads": np.int64(pads), "w": normal(4, channels, 3, 3)}
    check(onnx_model, nodes, normal(2, 3, 7, 6), expected, [fold_pad], arrays, 1e-6)


def test_padding_with_a_number_other_than_zero_stays(onnx_model):
    nodes = [("Pad", ["x", "pads", "one"], ["a"], {}), ("Conv", ["a", "w"], ["y"], {})]
    arrays = {"pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "one": F32(1), "w": normal(4, 3, 3, 3)}
    check(onnx_model, nodes, normal(1, 3, 5, 5), ["pad", "conv2d"], [fold_pad], arrays)


def test_padding_that_something_else_reads_stays(onnx_model):
    nodes = [
        ("Pad", ["x", "pads"], ["a"], {}),
        ("Conv", ["a", "w"], ["b"], {}),
        ("GlobalAveragePool", ["a"], ["c"], {}),
        ("Add", ["b", "c"], ["y"], {}),
    ]
    arrays = {"pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "w": normal(3, 3, 3, 3)}
    expected = ["pad", "conv2d", "adaptive_avg_pool2d", "add"]
    check(onnx_model, nodes, normal(1, 3, 5, 5), expected, [fold_pad], arrays)


# ------------------------------------------------------------------- scales and shifts per channel


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (), (1,)])
@pytest.mark.parametrize(
    ("op", "left"), [("Add", True), ("Sub", True), ("Sub", False), ("Mul", True), ("Div", True)]
)
def test_arithmetic_per_channel_goes_into_the_weights(onnx_model, op, left, shape):
    nodes = [("Conv", ["x", "w"], ["a"], {}), (op, ["a", "c"] if left else ["c", "a"], ["y"], {})]
    arrays = {"w": normal(4, 3, 3, 3), "c": np.asarray(normal(*shape) + 2, F32)}
    check(onnx_model, nodes, normal(2, 3, 5, 5), ["conv2d"], [fold_batch_norm], arrays, 1e-6)


@pytest.mark.parametrize(
    ("op", "shape"), [("Add", (4, 1)), ("Mul", (2, 1, 1, 1)), ("Add", (1, 1, 4)), ("Div", (4, 1, 1))]
)
def test_what_differs_by_pixel_or_picture_stays(onnx_model, op, shape):
    order = ["c", "a"] if op == "Div" else ["a", "c"]  # a number divided by x is no scale of x
    nodes = [("Conv", ["x", "w"], ["a"], {}), (op, order, ["y"], {})]
    arrays = {"w": normal(4, 3, 2, 2), "c": normal(*shape)}
    expected = ["conv2d", op.lower()]
    check(onnx_model, nodes, normal(2, 3, 5, 5), expected, [fold_batch_norm], arrays)


def test_a_chain_of_scales_and_shifts_goes_into_one_layer(onnx_model):
    nodes = [
        ("Sub", ["x", "mean"], ["a"], {}),
        ("Div", ["a", "deviation"], ["b"], {}),
        ("Conv", ["b", "w"], ["c"], {}),
        ("Mul", ["c", "scale"], ["d"], {}),
        ("Add", ["d", "shift"], ["y"], {}),
    ]
    arrays = {
        "mean": normal(1, 3, 1, 1), "deviation": normal(3, 1, 1) + F32(3), "w": normal(4, 3, 3, 3),
        "scale": normal(4, 1, 1), "shift": normal(1, 4, 1, 1),
    }  # fmt: skip
    check(onnx_model, nodes, normal(2, 3, 5, 5), ["conv2d"], [fold_batch_norm], arrays, 2e-6)


# ------------------------------------------------------------------------------------ transpositions

IN, OUT = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
"""From [N,H,W,C] to [N,C,H,W], and back."""


def layer(i, source, target, width=(4, 4)):
    """A convolution as exporters of channels-last frameworks write it."""
    return [
        ("Transpose", [source], [f"{target}in"], IN),
        ("Conv", [f"{target}in", f"w{i}"], [f"{target}conv"], {"pads": [1, 1, 1, 1]}),
        ("Transpose", [f"{target}conv"], [target], OUT),
    ]


WEIGHTS = {f"w{i}": normal(4, 4, 3, 3) for i in range(3)}
PER_CHANNEL = {"c": normal(4), "whole": normal(6, 5, 4), "one": np.array(0.5, F32)}


def test_transpositions_around_convolutions_cancel(onnx_model):
    nodes = [
        *layer(0, "x", "a"), ("Relu", ["a"], ["b"], {}),
        *layer(1, "b", "d"), ("Add", ["d", "c"], ["e"], {}), ("Mul", ["e", "one"], ["f"], {}),
        *layer(2, "f", "y"),
    ]  # fmt: skip
    expected = ["transpose", "conv2d", "relu", "conv2d", "reshape", "add", "mul", "conv2d", "transpose"]
    arrays = WEIGHTS | {name: PER_CHANNEL[name] for name in ("c", "one")}
    check(onnx_model, nodes, normal(2, 6, 5, 4), expected, [cancel_transpose], arrays)
    folded = [name for name in expected if name != "reshape"]
    check(onnx_model, nodes, normal(2, 6, 5, 4), folded, [cancel_transpose, fold_constants], arrays)


def test_they_pass_residuals_concatenations_and_padding(onnx_model):
    nodes = [
        *layer(0, "x", "a"), *layer(1, "a", "b"), ("Add", ["a", "b"], ["s"], {}),
        ("Concat", ["s", "a"], ["k"], {"axis": -1}), ("Slice", ["k", "from", "to", "last"], ["l"], {}),
        ("Pad", ["l", "pads"], ["p"], {}), *layer(2, "p", "y"),
    ]  # fmt: skip
    numbers = {"from": [2], "to": [6], "last": [3], "pads": [0, 1, 0, 0, 0, 0, 2, 0]}
    arrays = WEIGHTS | {name: np.array(value) for name, value in numbers.items()}
    expected = ["transpose", "conv2d", "conv2d", "add", "concat", "slice", "pad", "conv2d", "transpose"]
    check(onnx_model, nodes, normal(2, 6, 5, 4), expected, [cancel_transpose], arrays)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_pixels_needs_none_after_it(onnx_model, keepdims):
    nodes = [*layer(0, "x", "a"), ("ReduceMean", ["a"], ["m"], {"axes": [1, 2], "keepdims": keepdims})]
    nodes += [("Squeeze", ["m", "pixels"], ["y"], {})] if keepdims else [("Relu", ["m"], ["y"], {})]
    arrays = {"w0": WEIGHTS["w0"], "pixels": np.array([1, 2])}
    last = "squeeze" if keepdims else "relu"
    expected = ["transpose", "conv2d", "mean", last]
    check(onnx_model, nodes, normal(2, 6, 5, 4), expected, [cancel_transpose], arrays, tolerance=1e-6)


def test_softmax_and_what_is_broadcast_along_pixels(onnx_model):
    nodes = [
        *layer(0, "x", "a"), ("Mul", ["a", "whole"], ["b"], {}), ("Softmax", ["b"], ["s"], {"axis": -1}),
        *layer(1, "s", "y"),
    ]  # fmt: skip
    arrays = WEIGHTS | {"whole": PER_CHANNEL["whole"]}
    expected = ["transpose", "conv2d", "mul", "softmax", "conv2d", "transpose"]
    check(onnx_model, nodes, normal(2, 6, 5, 4), expected, [cancel_transpose, fold_constants], arrays)


def test_a_whole_that_ends_where_it_began_has_none_left_and_keeps_its_names(onnx_model):
    nodes = [("Transpose", ["x"], ["a"], OUT), ("Sigmoid", ["a"], ["b"], {}), ("Transpose", ["b"], ["y"], IN)]
    graph = check(
        onnx_model, nodes, normal(2, 4, 5, 6), ["sigmoid", "identity"], [cancel_transpose], None, 1e-6
    )
    assert [value.name for value in graph.outputs] == ["y"]


def test_where_nothing_is_gained_the_graph_stays(onnx_model):
    nodes = [
        *layer(0, "x", "a"), ("Relu", ["a"], ["r"], {}), ("Neg", ["a"], ["g"], {}),
        ("Flatten", ["r"], ["p"], {}), ("Flatten", ["g"], ["q"], {}), ("Sub", ["p", "q"], ["y"], {}),
    ]  # fmt: skip
    expected = ["transpose", "conv2d", "transpose", "relu", "neg", "flatten", "flatten", "sub"]
    check(onnx_model, nodes, normal(2, 6, 5, 4), expected, [cancel_transpose], {"w0": WEIGHTS["w0"]})


def test_a_model_without_transpositions_trains_as_the_one_with_them(onnx_model):
    nodes = [
        *layer(0, "x", "a"), ("Add", ["a", "c"], ["b"], {}), ("Relu", ["b"], ["r"], {}), *layer(1, "r", "y"),
    ]  # fmt: skip
    model = onnx_model(nodes, {"x": [2, 6, 5, 4]}, ["y"], WEIGHTS | {"c": PER_CHANNEL["c"]})
    x, gradients = normal(2, 6, 5, 4), []
    for change in (lambda module: module, lambda module: module.fused()):
        module = nx.load(model)
        change(module).train()(Tensor(x)).sum().backward()
        gradients.append({name: p.grad.numpy() for name, p in module.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys() == {"w0", "w1", "c"}
    for name, expected in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], expected, rtol=1e-4, atol=1e-4)


def test_a_plan_of_it_computes_the_same(onnx_model):
    nodes = [
        *layer(0, "x", "a"),
        ("Relu", ["a"], ["b"], {}),
        *layer(1, "b", "d"),
        ("Add", ["d", "b"], ["y"], {}),
    ]
    module = nx.load(onnx_model(nodes, {"x": [2, 6, 5, 4]}, ["y"], WEIGHTS))
    x = normal(2, 6, 5, 4)
    np.testing.assert_allclose(module.compile()(x), module.run([x])[0], rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------ gates

SHIFT, CLIP = ("Add", ["x", "three"], ["a"], {}), ("Clip", ["a", "zero", "six"], ["b"], {})
GATES = {
    "silu": ([("Sigmoid", ["x"], ["a"], {}), ("Mul", ["a", "x"], ["y"], {})], ["silu"]),
    "hardsigmoid": ([SHIFT, CLIP, ("Div", ["b", "six"], ["y"], {})], ["hardsigmoid"]),
    "hardswish": (
        [SHIFT, CLIP, ("Mul", ["b", "sixth"], ["c"], {}), ("Mul", ["x", "c"], ["y"], {})],
        ["hardswish"],
    ),
    "hardswish, divided last": (
        [SHIFT, CLIP, ("Mul", ["x", "b"], ["c"], {}), ("Div", ["c", "six"], ["y"], {})],
        ["hardswish"],
    ),
    "HardSigmoid": (
        [("HardSigmoid", ["x"], ["a"], {"alpha": 1 / 6}), ("Mul", ["x", "a"], ["y"], {})],
        ["hardswish"],
    ),
    "another slope": (
        [("HardSigmoid", ["x"], ["a"], {"alpha": 0.2}), ("Mul", ["x", "a"], ["y"], {})],
        ["hardsigmoid", "mul"],
    ),
    "less six": ([SHIFT, CLIP, ("Sub", ["b", "six"], ["y"], {})], ["add", "clamp", "sub"]),
    "of something else": (
        [("Sigmoid", ["x"], ["a"], {}), ("Neg", ["x"], ["b"], {}), ("Mul", ["a", "b"], ["y"], {})],
        ["sigmoid", "neg", "mul"],
    ),
    "read elsewhere": (
        [("Sigmoid", ["x"], ["a"], {}), ("Mul", ["a", "x"], ["b"], {}), ("Add", ["a", "b"], ["y"], {})],
        ["sigmoid", "mul", "add"],
    ),
}


@pytest.mark.parametrize("case", GATES)
def test_gates_that_are_spelled_out(onnx_model, case):
    nodes, expected = GATES[case]
    arrays = {"zero": F32(0), "three": F32(3), "six": F32(6), "sixth": F32(1 / 6)}
    used = {name: array for name, array in arrays.items() if any(name in node[1] for node in nodes)}
    x = F32(np.linspace(-5, 5, 41)).reshape(1, 41)
    check(onnx_model, nodes, x + F32(0.01), expected, [fuse_gate], used, 2e-7)
