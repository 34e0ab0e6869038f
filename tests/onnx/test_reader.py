"""Reading: every trap of the format against ONNX Runtime, and every refusal by its message."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnlite import onnx as nx
from nnlite.errors import ModelError
from nnlite.nn import Parameter
from nnlite.onnx.inspect import inspect
from nnlite.tensors import Tensor

RNG = np.random.default_rng(1)


def n(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def agree(model, inputs, run_ort, tolerance=1e-5):
    expected = run_ort(model, inputs)
    for actual, wanted in zip(nx.load(model).run(inputs), expected, strict=True):
        assert (actual.shape, actual.dtype) == (wanted.shape, wanted.dtype)
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * scale)


# ------------------------------------------------------------------------------------ operators

GEMMS = [
    (trans_a, trans_b, alpha, beta, bias)
    for trans_a in (0, 1)
    for trans_b in (0, 1)
    for alpha, beta in [(1.0, 1.0), (0.5, 2.0)]
    for bias in [(5,), (1,), (4, 1), (1, 5), (4, 5), (), None]
]


@pytest.mark.parametrize(("trans_a", "trans_b", "alpha", "beta", "bias"), GEMMS)
def test_gemm(onnx_model, run_ort, trans_a, trans_b, alpha, beta, bias):
    attributes = dict(transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)
    arrays = {"b": n(*((5, 3) if trans_b else (3, 5)))} | ({} if bias is None else {"c": n(*bias)})
    model = onnx_model([("Gemm", ["x", *arrays], ["y"], attributes)], {"x": [None, None]}, ["y"], arrays)
    agree(model, [n(*((3, 4) if trans_a else (4, 3)))], run_ort)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
@pytest.mark.parametrize("opset", [7, 11, 13])
def test_softmax_normalises_all_later_axes_before_operator_set_13(onnx_model, run_ort, operator, axis, opset):
    attributes = {} if axis is None else {"axis": axis}
    shape = [2, 3, 4]
    model = onnx_model([(operator, ["x"], ["y"], attributes)], {"x": shape}, {"y": shape}, opset=opset)
    agree(model, [n(*shape)], run_ort)


@pytest.mark.parametrize(
    ("opset", "attributes", "bounds"),
    [
        (7, dict(min=0.0, max=0.5), []),
        (10, dict(max=0.5), []),
        (10, {}, []),
        (11, {}, ["low", "high"]),
        (13, {}, ["", "high"]),
        (13, {}, ["low"]),
        (17, {}, ["low", ""]),
        (17, {}, []),
    ],
)
def test_clip_takes_its_bounds_from_attributes_or_inputs(onnx_model, run_ort, opset, attributes, bounds):
    arrays = {"low": np.float32(-0.25), "high": np.float32(0.5)}
    arrays = {name: array for name, array in arrays.items() if name in bounds}
    nodes = [("Clip", ["x", *bounds], ["y"], attributes)]
    agree(onnx_model(nodes, {"x": [3, 4]}, ["y"], arrays, opset=opset), [n(3, 4)], run_ort)


WINDOWS = [
    dict(auto_pad="SAME_UPPER"),
    dict(auto_pad="SAME_LOWER"),
    dict(auto_pad="VALID"),
    dict(auto_pad="NOTSET", pads=[1, 0, 0, 1]),
    dict(pads=[1, 1, 1, 1]),
    {},
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("strides", [[1, 1], [2, 1], [2, 3]])
@pytest.mark.parametrize("kernel", [[3, 3], [2, 3]])
def test_padding_of_convolutions_and_pools(onnx_model, run_ort, window, strides, kernel):
    attributes = dict(window, strides=strides, kernel_shape=kernel)
    nodes = [
        ("Conv", ["x", "w"], ["c"], attributes),
        ("MaxPool", ["x"], ["m"], attributes),
        ("AveragePool", ["x"], ["a"], attributes),
        ("AveragePool", ["x"], ["i"], dict(attributes, count_include_pad=1)),
    ]
    model = onnx_model(nodes, {"x": [2, 2, 8, 7]}, ["c", "m", "a", "i"], {"w": n(3, 2, *kernel)})
    agree(model, [n(2, 2, 8, 7)], run_ort)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("kernel", [[2, 2], [3, 3]])
@pytest.mark.parametrize("size", [(7, 8), (6, 5)])
def test_pools_that_round_up(onnx_model, run_ort, include, pads, kernel, size):
    attributes = dict(kernel_shape=kernel, strides=[2, 2], pads=pads, ceil_mode=1)
    nodes = [
        ("MaxPool", ["x"], ["m"], attributes),
        ("AveragePool", ["x"], ["a"], dict(attributes, count_include_pad=include)),
    ]
    agree(onnx_model(nodes, {"x": [1, 2, *size]}, ["m", "a"], opset=19), [n(1, 2, *size)], run_ort)


@pytest.mark.parametrize("operator", ["Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_max_and_min_take_any_number_of_operands_and_write_to_none(onnx_model, run_ort, operator, count):
    names = [f"x{i}" for i in range(count)]
    model = onnx_model([(operator, names, ["y"])], {name: [2, 3] for name in names}, ["y"])
    inputs = [n(2, 3) for _ in names]
    before = [x.copy() for x in inputs]
    agree(model, inputs, run_ort)
    np.testing.assert_array_equal(inputs, before)


@pytest.mark.parametrize("exponent", [np.array(2), np.array([2, 3, 1], np.int32), np.float32(1.5)])
def test_powers_keep_the_type_of_the_base(onnx_model, run_ort, exponent):
    model = onnx_model([("Pow", ["x", "e"], ["y"])], {"x": [2, 3]}, ["y"], {"e": exponent})
    agree(model, [np.abs(n(2, 3))], run_ort)


@pytest.mark.parametrize("ratio", [0.0, 0.3])
@pytest.mark.parametrize("opset", [7, 11, 13])
def test_dropout_does_nothing(onnx_model, run_ort, ratio, opset):
    late = opset >= 12
    arrays = {"ratio": np.float32(ratio), "training": np.bool_(False)} if late else {}
    attributes = dict(seed=3) if late else dict(ratio=ratio)
    model = onnx_model(
        [("Dropout", ["x", *arrays], ["y"], attributes)], {"x": [3]}, ["y"], arrays, opset=opset
    )
    agree(model, [n(3)], run_ort)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_flatten_makes_a_matrix_at_any_axis(onnx_model, run_ort, axis):
    model = onnx_model([("Flatten", ["x"], ["y"], dict(axis=axis))], {"x": [2, 3, 4]}, {"y": [None, None]})
    agree(model, [n(2, 3, 4)], run_ort)


def test_axes_may_be_a_number(onnx_model):
    arrays = {"axis": np.array(0), "two": np.array(2)}
    nodes = [("Unsqueeze", ["x", "axis"], ["y"])]
    assert nx.load(onnx_model(nodes, {"x": [3]}, ["y"], arrays)).run([n(3)])[0].shape == (1, 3)


def test_momentum_is_the_complement_of_pytorchs(onnx_model):
    nodes = [("BatchNormalization", ["x", *"sbmv"], ["y"], dict(momentum=0.75, epsilon=0.125))]
    arrays = dict.fromkeys("sbmv", np.ones(2, np.float32))
    (node,) = nx.load(onnx_model(nodes, {"x": [1, 2, 3, 3]}, ["y"], arrays)).graph.nodes
    assert node.params == {"momentum": 0.25, "epsilon": 0.125}


def test_an_initializer_used_twice_gets_both_gradients(onnx_model):
    nodes = [("Mul", ["x", "w"], ["a"]), ("Mul", ["a", "w"], ["y"])]
    module = nx.load(onnx_model(nodes, {"x": [2]}, ["y"], {"w": np.array([3.0, -2.0], np.float32)}))
    x = np.array([1.0, 5.0], np.float32)
    module(Tensor(x)).sum().backward()
    np.testing.assert_allclose(dict(module.named_parameters())["w"].grad.numpy(), 2 * x * [3, -2])


# ------------------------------------------------------------------------------------ structure


def test_initializers_listed_as_inputs_are_not_asked_for(onnx_model, run_ort):
    nodes = [("Conv", ["x", "w"], ["c"]), ("Relu", ["c"], ["y"])]
    model = onnx_model(
        nodes, {"x": [1, 2, 5, 5]}, ["y"], {"w": n(3, 2, 3, 3)}, opset=9, ir_version=3, listed=True
    )
    assert nx.load(model).inputs == ("x",)
    agree(model, [n(1, 2, 5, 5)], run_ort)


@pytest.mark.parametrize("batch", [1, 4])
def test_shapes_computed_at_run_time(onnx_model, run_ort, batch):
    arrays = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    nodes = [
        ("Shape", ["x"], ["s"]),
        ("Gather", ["s", "zero"], ["b"], dict(axis=0)),
        ("Unsqueeze", ["b", "axes"], ["b1"]),
        ("Concat", ["b1", "rest"], ["to"], dict(axis=0)),
        ("Reshape", ["x", "to"], ["y"]),
    ]
    agree(onnx_model(nodes, {"x": ["N", 2, 3]}, ["y"], arrays), [n(batch, 2, 3)], run_ort)


def test_weights_in_constant_nodes_are_parameters(onnx_model, run_ort):
    def weight(*shape):
        return dict(value=numpy_helper.from_array(n(*shape)))

    nodes = [
        ("Constant", [], ["w"], weight(3, 2, 3, 3)),
        ("Constant", [], ["g"], weight(12, 4)),
        ("Constant", [], ["half"], dict(value_float=0.5)),
        ("Conv", ["x", "w"], ["c"]),
        ("Flatten", ["c"], ["f"]),
        ("Gemm", ["f", "g"], ["h"]),
        ("Mul", ["h", "half"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": ["N", 2, 4, 4]}, ["y"])
    module = nx.load(model)
    kinds = {name: type(module.leaf(v)) for v in module.graph.arrays for name in [v.name]}
    trained = {name for name, kind in kinds.items() if kind is Parameter}
    assert trained == {"w", "g"}, "also behind a transposition"
    agree(model, [n(2, 2, 4, 4)], run_ort)


@pytest.mark.parametrize("what", ["input", "initializer", "both twice"])
def test_outputs_that_nothing_computes(onnx_model, run_ort, what):
    outputs = {"input": ["x", "y"], "initializer": ["w", "y"], "both twice": ["y", "x", "w"]}[what]
    model = onnx_model([("Add", ["x", "w"], ["y"])], {"x": [3]}, outputs, {"w": n(3)})
    agree(model, [n(3)], run_ort)


def test_names_of_one_value_that_a_file_gives_twice(onnx_model, run_ort):
    nodes = [("Identity", ["w"], ["v"]), ("Identity", ["x"], ["z"]), ("Add", ["z", "v"], ["y"])]
    agree(onnx_model(nodes, {"x": [3]}, ["y", "v", "z"], {"w": n(3)}), [n(3)], run_ort)


@pytest.mark.parametrize("dims", [[-1, 3], [0, 3], ["N", 3], [None, 3]], ids=str)
def test_open_sizes(onnx_model, dims):
    model = onnx_model([("Relu", ["x"], ["y"])], {"x": dims}, ["y"])
    module = nx.load(model)
    assert module.input_sizes == ((None, 3),)
    assert module.run([n(5, 3)])[0].shape == (5, 3)


def test_an_input_without_any_sizes_takes_all(onnx_model):
    module = nx.load(onnx_model([("Relu", ["x"], ["y"])], {"x": None}, ["y"]))
    for shape in [(), (3,), (2, 3, 4, 5)]:
        assert module.run([n(*shape)])[0].shape == shape


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_is_computed_in_single(onnx_model, run_ort, kind):
    w, half = n(3, 4), helper.tensor_dtype_to_np_dtype(kind)
    nodes = [("Cast", ["w"], ["w32"], dict(to=1)), ("MatMul", ["x", "w32"], ["y"])]
    model = onnx_model(nodes, {"x": [2, 3]}, ["y"], {"w": numpy_helper.from_array(w.astype(half), "w")})
    agree(model, [n(2, 3)], run_ort)


def test_a_model_all_in_half_precision(onnx_model, run_ort):
    w = n(3, 4).astype(np.float16)
    nodes = [("MatMul", ["x", "w"], ["m"]), ("Cast", ["m"], ["c"], dict(to=10)), ("Relu", ["c"], ["y"])]
    model = onnx_model(nodes, {"x": ([2, 3], np.float16)}, {"y": ([2, 4], np.float16)}, {"w": w})
    x = n(2, 3).astype(np.float16)
    actual = nx.load(model).run([x.astype(np.float32)])[0]
    np.testing.assert_allclose(actual, run_ort(model, [x])[0].astype(np.float32), rtol=2e-3, atol=2e-3)


# ------------------------------------------------------------------------------------- refusals

X = {"x": [1, 2, 4, 4]}
W = {"w": np.ones((3, 2, 3, 3), np.float32)}
REFUSED = {
    "operator": ([("Det", ["x"], ["y"])], {}, r"Det \(det0\): not supported .operator set 17."),
    "domain": ([("Gelu", ["x"], ["y"], dict(domain="com.microsoft"))], {}, r"com.microsoft.Gelu.*domain"),
    "attribute": ([("Relu", ["x"], ["y"], dict(slope=1.0))], {}, "attribute slope is not understood"),
    "attribute's type": ([("Concat", ["x"], ["y"], dict(axis=1.0))], {}, "axis must be of type INT"),
    "missing attribute": ([("Concat", ["x"], ["y"])], {}, "attribute axis is missing"),
    "missing input": ([("Conv", ["x"], ["y"])], {}, "has 1 inputs but must have at least 2"),
    "empty input": ([("Conv", ["x", ""], ["y"])], {}, "input W is empty"),
    "training dropout": ([("Dropout", ["x", "", "t"], ["y"])], {"t": np.bool_(True)}, "training mode"),
    "kernel": ([("Conv", ["x", "w"], ["y"], dict(kernel_shape=[5, 5]))], W, "disagrees with the weight's"),
    "mode": ([("Pad", ["x", "p"], ["y"], dict(mode="mirror"))], {"p": np.zeros(8, int)}, "mode 'mirror'"),
    "used early": ([("Relu", ["z"], ["y"]), ("Relu", ["x"], ["z"])], {}, "'z' is used before"),
    "wrong type": (
        [("Reshape", ["x", "s"], ["y"])],
        {"s": np.float32([2, 16])},
        "must not be of type float32",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_say_what_is_not_supported(onnx_model, what):
    nodes, arrays, match = REFUSED[what]
    model = onnx_model(nodes, X, ["y"], arrays)
    with pytest.raises(ModelError, match=match):
        nx.load(model)


@pytest.mark.parametrize("opset", [0, 10_000])
def test_operator_sets_that_are_not_read(onnx_model, opset):
    with pytest.raises(ModelError, match=f"operator set {opset} is not supported .only 1 to"):
        nx.load(onnx_model([("Relu", ["x"], ["y"])], X, ["y"], opset=opset))


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.node[1].output.__setitem__(0, "a"),
        lambda g: g.node[0].output.__setitem__(0, "x"),
        lambda g: g.initializer.add().CopyFrom(g.initializer[0]),
        lambda g: g.input.add().CopyFrom(g.input[0]),
    ],
    ids=["two nodes", "an input", "initializers", "inputs"],
)
def test_one_name_for_two_values(onnx_model, change):
    model = onnx_model([("Add", ["x", "w"], ["a"]), ("Relu", ["a"], ["y"])], {"x": [3]}, ["y"], {"w": n(3)})
    change(model.graph)
    with pytest.raises(ModelError, match="is defined twice"):
        nx.load(model)


def test_what_a_model_must_have(onnx_model):
    nodes = [("Relu", ["x"], ["y"])]
    with pytest.raises(ModelError, match="no outputs"):
        nx.load(onnx_model(nodes, X, []))
    with pytest.raises(ModelError, match="'z' is used before anything computes it"):
        nx.load(onnx_model(nodes, X, ["z"]))
    opaque = onnx_model(nodes, X, ["y"])
    opaque.graph.input[0].type.map_type.key_type = onnx.TensorProto.INT64
    with pytest.raises(ModelError, match="input x is"):
        nx.load(opaque)


def sparse(dims, indices, values=(2.0, -1.0), name="w"):
    values = numpy_helper.from_array(np.float32(values), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.asarray(indices)), dims)


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]])
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_sparse_constants(onnx_model, run_ort, normal, indices, where):
    nodes = [("Mul", ["x", "w"], ["y"])]
    tensor = sparse([2, 3], indices)
    if where == "constant":
        nodes.insert(0, ("Constant", [], ["w"], dict(sparse_value=tensor)))
    model = onnx_model(nodes, {"x": [2, 3]}, ["y"])
    if where == "initializer":
        model.graph.sparse_initializer.append(tensor)
    x = normal(2, 3)
    (y,) = nx.load(model).run([x])
    np.testing.assert_array_equal(y, x * np.float32([[0, 2, 0], [0, 0, -1]]))
    if where == "constant" or np.ndim(indices) == 1:  # ONNX Runtime reads no such initializers
        np.testing.assert_array_equal(y, run_ort(model, [x])[0])


@pytest.mark.parametrize(
    ("dims", "indices", "match"),
    [
        ([2, 3], [1, 6], "lists a place outside"),
        ([2, 3], [-1, 2], "lists a place outside"),
        ([2, 3], [[0, 3], [1, 0]], "lists a place outside"),
        ([2, 3], [[0, -1], [1, 0]], "lists a place outside"),
        ([2, 3], [1, 2, 3], r"2 values and indices \[3\]"),
        ([1 << 40, 3], [1, 2], "beyond the budget"),
        ([-2, 3], [1, 2], "beyond the budget"),
    ],
)
def test_sparse_constants_that_are_none(onnx_model, dims, indices, match):
    model = onnx_model([("Mul", ["x", "w"], ["y"])], {"x": [2, 3]}, ["y"])
    model.graph.sparse_initializer.append(sparse(dims, indices))
    with pytest.raises(ModelError, match=match):
        nx.load(model)


def test_all_problems_are_listed_at_once_and_inspect_does_not_raise(onnx_model, tmp_path):
    names = ("ImageDecoder", "Relu", "Det", "ImageDecoder")
    nodes = [(name, [x], [y]) for name, x, y in zip(names, "xabc", "abcy", strict=True)]
    path = tmp_path / "model.onnx"
    onnx.save(onnx_model(nodes, X, ["y"]), path)
    with pytest.raises(ModelError) as error:
        nx.load(path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path}: 3 nodes are not supported:"
    named = [line.split(":")[0].strip() for line in lines[1:]]
    assert named == ["ImageDecoder (imagedecoder0)", "Det (det2)", "ImageDecoder (imagedecoder3)"]
    report = inspect(path)
    listed = [(problem["op_type"], problem["node"]) for problem in report["problems"]]
    assert listed == [("ImageDecoder", "imagedecoder0"), ("Det", "det2"), ("ImageDecoder", "imagedecoder3")]
    assert report["operators"] == {"ImageDecoder": 2, "Relu": 1, "Det": 1}
    assert (report["macs"], report["parameters"]) == (None, None)
