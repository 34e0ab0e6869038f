"""Functions, branches, old operator sets: structure that is read away, against ONNX Runtime or by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnlite import onnx as nx
from nnlite.errors import ModelError, NnliteError
from nnlite.nn import Parameter
from nnlite.tensors import Tensor

FLOAT = TensorProto.FLOAT


def info(name, sizes, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, sizes)


def model(nodes, inputs, outputs, tensors=(), functions=(), opset=17, ir_version=8):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(tensors))
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("f", 1)] if functions else [])]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=ir_version)


def agree(proto, inputs, run_ort, tolerance=1e-5):
    actual, expected = nx.load(proto).run(inputs), run_ort(proto, inputs)
    for a, e in zip(actual, expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------ functions


def leaky(alpha_from):
    node = helper.make_node("LeakyRelu", ["a"], ["m"])
    attribute = node.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT)
    attribute.ref_attr_name = alpha_from
    nodes = [node, helper.make_node("Add", ["m", "b"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function("f", "leaky", ["a", "b"], ["y"], nodes, opsets, attributes=["slope"])


@pytest.mark.parametrize("slope", [0.25, None])
def test_attributes_of_functions_are_handed_on(run_ort, normal, slope):
    given = {} if slope is None else {"slope": slope}
    nodes = [helper.make_node("leaky", ["x", "w"], ["y"], domain="f", **given)]
    tensors = [numpy_helper.from_array(np.float32([1, -2, 3]), "w")]
    proto = model(nodes, [info("x", [2, 3])], [info("y", [2, 3])], tensors, [leaky("slope")])
    x = normal(2, 3)
    np.testing.assert_allclose(
        nx.load(proto).run([x])[0],
        np.where(x > 0, x, x * (0.01 if slope is None else slope)) + np.float32([1, -2, 3]),
        1e-6,
    )
    if slope is not None:
        agree(proto, [x], run_ort)


def test_functions_in_functions_and_twice(run_ort, normal):
    square = helper.make_function(
        "f",
        "square",
        ["a"],
        ["y"],
        [helper.make_node("Mul", ["a", "a"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("square", ["a"], ["s"], domain="f", name="first"),
        helper.make_node("square", ["s"], ["y"], domain="f", name="second"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    fourth = helper.make_function("f", "fourth", ["a"], ["y"], nodes, opsets)
    calls = [
        helper.make_node("fourth", ["x"], ["p"], domain="f"),
        helper.make_node("fourth", ["p"], ["y"], domain="f"),
    ]
    proto = model(calls, [info("x", [3])], [info("y", [3])], functions=[square, fourth])
    agree(proto, [normal(3)], run_ort)


def test_constants_in_functions_are_trained_each_for_itself(normal):
    weight = numpy_helper.from_array(normal(2, 2), "w")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    dense = helper.make_function("f", "dense", ["a"], ["y"], nodes, [helper.make_opsetid("", 17)])
    calls = [
        helper.make_node("dense", ["x"], ["h"], domain="f"),
        helper.make_node("dense", ["h"], ["y"], domain="f"),
    ]
    module = nx.load(model(calls, [info("x", [1, 2])], [info("y", [1, 2])], functions=[dense]))
    names = [name for name, _ in module.named_parameters()]
    assert len(names) == len(set(names)) == 2
    module(Tensor(normal(1, 2))).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_what_a_function_does_not_take():
    proto = model(
        [helper.make_node("leaky", ["x", "x", "x"], ["y"], domain="f")],
        [info("x", [2])], [info("y", [2])], functions=[leaky("slope")],
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"3 inputs .* takes 2"):
        nx.load(proto)
    proto.graph.node[0].input.pop()
    proto.graph.node[0].attribute.add(name="height", type=onnx.AttributeProto.INT, i=1)
    with pytest.raises(ModelError, match="the function has no attribute height"):
        nx.load(proto)


def test_what_is_not_supported_in_a_function_is_named_with_its_path():
    nodes = [helper.make_node("Det", ["a"], ["y"], name="d")]
    body = helper.make_function("f", "body", ["a"], ["y"], nodes, [helper.make_opsetid("", 17)])
    call = helper.make_node("body", ["x"], ["y"], domain="f", name="call")
    with pytest.raises(ModelError, match=r"Det .call/d.: not supported"):
        nx.load(model([call], [info("x", [2, 2])], [info("y", [])], functions=[body]))


# ------------------------------------------------------------------------------------- branches


def branches(condition_at_run_time=True):
    tensors = [numpy_helper.from_array(np.float32([[2, 0], [0, 3]]), "w")]
    then_w = numpy_helper.from_array(np.float32([10, 20]), "b")
    then_graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["t"])],
        "then", [], [info("t", ["n", 2])], [then_w],
    )  # fmt: skip
    else_graph = helper.make_graph(
        [helper.make_node("Mul", ["h", "x"], ["e"])], "else", [], [info("e", ["n", 2])],
        [numpy_helper.from_array(np.float32([-1, -1]), "b")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["i"], then_branch=then_graph, else_branch=else_graph, name="choice"),
        helper.make_node("Add", ["i", "h"], ["y"]),
    ]
    inputs = [info("x", ["n", 2])]
    if condition_at_run_time:
        inputs.append(info("c", [], TensorProto.BOOL))
    else:
        tensors.append(numpy_helper.from_array(np.array(True), "c"))
    return model(nodes, inputs, [info("y", ["n", 2])], tensors)


@pytest.mark.parametrize("condition", [True, False])
def test_a_branch_is_chosen_at_run_time(run_ort, normal, condition):
    agree(branches(), {"x": normal(3, 2), "c": np.array(condition)}, run_ort)


def test_a_known_condition_leaves_one_branch(run_ort, normal):
    proto = branches(condition_at_run_time=False)
    agree(proto, [normal(3, 2)], run_ort)
    assert [node.op.name for node in nx.load(proto).graph.nodes] == ["relu", "matmul", "add", "add"]


@pytest.mark.parametrize("condition", [True, False])
def test_gradients_flow_through_the_branch_that_ran(normal, condition):
    module = nx.load(branches())
    x = Tensor(normal(3, 2), requires_grad=True)
    module(x, Tensor(np.array(condition))).sum().backward()
    relu = x.numpy() > 0
    expected = np.array([2, 3]) + relu if condition else 2 * np.maximum(x.numpy(), 0) + relu
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)
    w = next(p for name, p in module.named_parameters() if name == "w")
    assert (w.grad is not None) == condition
    assert all(isinstance(p, Parameter) for p in module.parameters())


def test_a_condition_is_one_truth_value(normal):
    proto = branches()
    proto.graph.input[1].CopyFrom(info("c", [None], TensorProto.BOOL))
    with pytest.raises(NnliteError, match="must be one truth value"):
        nx.load(proto).run({"x": normal(3, 2), "c": np.array([True, False])})


def test_a_branch_that_is_not_supported_is_said():
    proto = branches()
    proto.graph.node[1].attribute[0].g.node[0].op_type = "Det"
    del proto.graph.node[1].attribute[0].g.node[0].input[1]
    with pytest.raises(ModelError, match=r"Det .choice/[em].: not supported"):
        nx.load(proto)


# -------------------------------------------------------------------------- operator sets 1 to 6


def single(operator, inputs, attributes, opset, outputs=1, constants=()):
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(outputs)], **attributes)
    entries = [
        info(name, a.shape, helper.np_dtype_to_tensor_dtype(a.dtype))
        for name, a in zip(names, inputs, strict=True) if name not in constants
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(a, n) for n, a in zip(names, inputs, strict=True) if n in constants]
    graph = helper.make_graph([node], "g", entries, [info(f"y{i}", None) for i in range(outputs)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


OLD_ADDS = [
    # shape of b, attributes, how b is meant
    ((3, 4), dict(broadcast=1, axis=1), (1, 3, 4, 1)),
    ((2,), dict(broadcast=1, axis=0), (2, 1, 1, 1)),
    ((5,), dict(broadcast=1, axis=3), (5,)),
    ((5,), dict(broadcast=1, axis=-1), (5,)),
    ((4, 5), dict(broadcast=1), (4, 5)),
    ((1,), dict(broadcast=1), (1,)),
    ((2, 3, 4, 5), {}, (2, 3, 4, 5)),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize(("shape", "attributes", "meant"), OLD_ADDS)
def test_operands_are_aligned_by_axis(normal, shape, attributes, meant, opset, known):
    a, b = normal(2, 3, 4, 5), normal(*shape, seed=1) + 3
    for operator, function in (
        ("Add", np.add),
        ("Sub", np.subtract),
        ("Mul", np.multiply),
        ("Div", np.divide),
    ):
        hint = dict(consumed_inputs=[0, 0]) if opset == 1 else {}
        proto = single(operator, [a, b], attributes | hint, opset, constants=["x1"] if known else [])
        inputs = [a] if known else [a, b]
        (y,) = nx.load(proto).run(inputs)
        np.testing.assert_allclose(y, function(a, b.reshape(meant)), rtol=1e-6)


@pytest.mark.parametrize("operator", ["And", "Or", "Xor"])
def test_truth_values_are_aligned_by_axis_too(operator):
    a, b = np.array([[True, False], [False, True]]), np.array([True, False])
    (y,) = nx.load(single(operator, [a, b], dict(broadcast=1, axis=0), 1)).run([a, b])
    function = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}[operator]
    np.testing.assert_array_equal(y, function(a, b[:, None]))


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("slope", [(3,), (1,)])
def test_a_slope_belonged_to_a_channel(normal, opset, slope):
    x, w = normal(2, 3, 4, 5), normal(*slope, seed=2)
    (y,) = nx.load(single("PRelu", [x, w], {}, opset)).run([x, w])
    np.testing.assert_allclose(y, np.where(x > 0, x, x * w.reshape(-1, 1, 1)), rtol=1e-6)


OLD = {
    # operator: (operands, attributes at 1, at 6; expected)
    "Relu": ([(2, 3)], {}, {}, lambda x: np.maximum(x, 0)),
    "Sum": ([(2, 3), (2, 3)], {}, {}, np.add),
    "Clip": ([(2, 3)], dict(min=-0.5, max=0.5), dict(min=-0.5),
             lambda x, **a: np.clip(x, a["min"], a.get("max"))),
    "Reshape": ([(2, 3)], dict(shape=[3, 2]), None, lambda x, **a: x.reshape(a["shape"])),
    "Concat": ([(2, 3), (2, 3)], {}, dict(axis=0), lambda *x, **a: np.concatenate(x, a.get("axis", 1))),
    "Slice": ([(4, 5)], dict(starts=[1], ends=[-1]), dict(starts=[0], ends=[3], axes=[1]),
              lambda x, **a: x[1:-1] if "axes" not in a else x[:, :3]),
    "Squeeze": ([(1, 3, 1)], dict(axes=[0]), dict(axes=[2]), lambda x, axes: x.squeeze(axes[0])),
    "Unsqueeze": ([(3,)], dict(axes=[0]), dict(axes=[1]), lambda x, axes: np.expand_dims(x, axes[0])),
    "ReduceMean": ([(2, 3)], dict(axes=[1]), dict(keepdims=0),
                   lambda x, **a: x.mean(1, keepdims=True) if "axes" in a else x.mean()),
    "Dropout": ([(2, 3)], dict(is_test=1, ratio=0.3), dict(is_test=1), lambda x, **a: x),
    "Cast": ([(2, 3)], dict(to="INT32"), dict(to=6), lambda x, to: x.astype(np.int32)),
    "Gemm": ([(2, 3), (3, 4), (4,)], dict(broadcast=1), dict(broadcast=1, alpha=0.5),
             lambda a, b, c, **k: k.get("alpha", 1) * a @ b + c),
    "Softmax": ([(2, 3, 4)], {}, dict(axis=2),
                lambda x, axis=1: (lambda e: e / e.sum(tuple(range(axis, 3)), keepdims=True))(np.exp(x))),
    "Pad": ([(2, 3)], dict(paddings=[0, 1, 0, 2], value=1.0), dict(pads=[0, 1, 0, 2]),
            lambda x, **a: np.pad(x, ((0, 0), (1, 2)), constant_values=a.get("value", 0))),
    "Max": ([(2, 3), (2, 3)], {}, {}, np.maximum),
    "Transpose": ([(2, 3)], {}, dict(perm=[1, 0]), lambda x, **a: x.T),
    "Flatten": ([(2, 3, 4)], {}, dict(axis=2), lambda x, axis=1: x.reshape(int(np.prod(x.shape[:axis])), -1)),
    "Sigmoid": ([(2, 3)], {}, {}, lambda x: 1 / (1 + np.exp(-x))),
    "LeakyRelu": ([(2, 3)], dict(alpha=0.1), dict(alpha=0.1), lambda x, alpha: np.where(x > 0, x, alpha * x)),
    "Exp": ([(2, 3)], {}, {}, np.exp),
    "Neg": ([(2, 3)], {}, {}, np.negative),
    "Abs": ([(2, 3)], {}, {}, np.abs),
    "Ceil": ([(2, 3)], {}, {}, np.ceil),
    "MatMul": ([(2, 3), (3, 4)], {}, {}, np.matmul),
    "LogSoftmax": ([(2, 3)], {}, {}, lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))),
}  # fmt: skip
HINTED = {
    "Relu",
    "Sum",
    "Clip",
    "Reshape",
    "Dropout",
    "Max",
    "Sigmoid",
    "LeakyRelu",
    "Exp",
    "Neg",
    "Abs",
    "Ceil",
}


@pytest.mark.parametrize("operator", OLD)
@pytest.mark.parametrize("opset", [1, 6])
def test_operators_as_they_were(normal, operator, opset):
    shapes, first, sixth, expected = OLD[operator]
    attributes = first if opset == 1 else sixth
    if attributes is None:
        pytest.skip("its form of operator set 6 is that of today")
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    hint = dict(consumed_inputs=[0] * len(inputs)) if opset == 1 and operator in HINTED else {}
    (y,) = nx.load(single(operator, inputs, attributes | hint, opset)).run(inputs)
    wanted = {k: v for k, v in attributes.items() if k not in ("broadcast", "is_test", "ratio")}
    np.testing.assert_allclose(y, expected(*inputs, **wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [1, 6])
def test_batch_normalisation_as_it_was(normal, opset):
    x, (s, b, m) = normal(2, 3, 4, 4), (normal(3, seed=i) for i in (1, 2, 3))
    v = np.abs(normal(3, seed=4)) + 0.5
    attributes = dict(is_test=1, epsilon=1e-3) | (dict(consumed_inputs=[0, 0, 0, 1, 1]) if opset == 1 else {})
    inputs = [x, s, b, m, v]
    (y,) = nx.load(single("BatchNormalization", inputs, attributes, opset)).run(inputs)
    s, b, m, v = (a.reshape(-1, 1, 1) for a in (s, b, m, v))
    np.testing.assert_allclose(y, (x - m) / np.sqrt(v + 1e-3) * s + b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="training mode"):
        nx.load(single("BatchNormalization", inputs, attributes | dict(is_test=0), opset))


@pytest.mark.parametrize("opset", [6, 7, 8])
def test_statistics_of_every_pixel(normal, opset):
    x, (s, b, m) = normal(2, 3, 4, 4), (normal(3, 4, 4, seed=i) for i in (1, 2, 3))
    v = np.abs(normal(3, 4, 4, seed=4)) + 0.5
    attributes = dict(spatial=0, epsilon=1e-3) | (dict(is_test=1) if opset < 7 else {})
    attributes |= dict(consumed_inputs=[0, 0, 0, 1, 1]) if opset == 1 else {}
    inputs = [x, s, b, m, v]
    (y,) = nx.load(single("BatchNormalization", inputs, attributes, opset)).run(inputs)
    np.testing.assert_allclose(y, (x - m) / np.sqrt(v + 1e-3) * s + b, rtol=1e-5, atol=1e-5)
