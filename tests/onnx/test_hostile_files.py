"""Files that ask for too much, or never end: each is refused within a second, with a reason."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnlite import kernels
from nnlite import onnx as nx
from nnlite.errors import ModelError, NnliteError

HUGE = 1 << 40


@pytest.fixture(autouse=True)
def _within_a_second():
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 1


# ------------------------------------------------------------------------- sizes known at run time

I64 = np.int64
RUN_TIME = {
    # nodes, inputs at run time (name -> array), constants
    "Expand": ([("Expand", ["x", "s"], ["y"])], {"x": np.ones(1, np.float32), "s": np.array([HUGE])}, {}),
    "Tile": ([("Tile", ["x", "s"], ["y"])], {"x": np.ones(1, np.float32), "s": np.array([HUGE])}, {}),
    "ConstantOfShape": ([("ConstantOfShape", ["s"], ["y"])], {"s": np.array([1 << 20, 1 << 20])}, {}),
    "Range": (
        [("Range", ["a", "b", "c"], ["y"])],
        {"a": np.array(0), "b": np.array(HUGE), "c": np.array(1)},
        {},
    ),
    "Range of floats": (
        [("Range", ["a", "b", "c"], ["y"])],
        {"a": np.float32(0), "b": np.float32(1), "c": np.float32(1e-30)},
        {},
    ),
    "Pad": (
        [("Pad", ["x", "s"], ["y"])],
        {"x": np.ones((1, 1), np.float32), "s": np.array([0, 0, HUGE, 0])},
        {},
    ),
    "Resize": (
        [("Resize", ["x", "", "", "s"], ["y"], {"mode": "nearest"})],
        {"x": np.ones((1, 1, 2, 2), np.float32), "s": np.array([1, 1, HUGE, 2])},
        {},
    ),
    "Resize by scales": (
        [("Resize", ["x", "", "s"], ["y"], {"mode": "linear"})],
        {"x": np.ones((1, 1, 2, 2), np.float32), "s": np.array([1, 1, 1e12, 1], np.float32)},
        {},
    ),
    "OneHot": (
        [("OneHot", ["i", "d", "v"], ["y"])],
        {"i": np.zeros(4, I64), "d": np.array([HUGE])},
        {"v": np.array([0.0, 1.0], np.float32)},
    ),
    "broadcasting": (
        [("Add", ["x", "z"], ["y"])],
        {"x": np.ones((1 << 17, 1), np.float32), "z": np.ones((1, 1 << 17), np.float32)},
        {},
    ),
    "a product of vectors": (
        [("MatMul", ["x", "z"], ["y"])],
        {"x": np.ones((1 << 17, 1), np.float32), "z": np.ones((1, 1 << 17), np.float32)},
        {},
    ),
    "a list of sizes without end": (
        [("Reshape", ["x", "s"], ["y"])],
        {"x": np.ones(1, np.float32), "s": np.ones(1 << 20, I64)},
        {},
    ),
    "regions": (
        [("RoiAlign", ["x", "r", "i"], ["y"], {"sampling_ratio": 0})],
        {
            "x": np.ones((1, 1, 4, 4), np.float32),
            "r": np.array([[0, 0, 1e30, 1e30]], np.float32),
            "i": np.array([0]),
        },
        {},
    ),
}


@pytest.mark.parametrize("what", RUN_TIME)
def test_sizes_that_come_at_run_time_are_checked_before_memory_is_asked_for(onnx_model, what):
    nodes, inputs, arrays = RUN_TIME[what]
    declared = {name: ([None] * a.ndim if a.ndim else [], a.dtype) for name, a in inputs.items()}
    module = nx.load(onnx_model(nodes, declared, ["y"], arrays))
    with pytest.raises(NnliteError, match=r"beyond|more than 65536|impossible|at most"):
        module.run(inputs)


FAR = 1 << 32


def ones(*shape):
    return np.ones(shape, np.float32)


SMALL_RESULTS = {
    # nodes, inputs at run time, constants: what comes out is small, what lies between is not
    "padding of three axes": (
        [("Conv", ["x", "w"], ["y"], dict(pads=[FAR, 0, 0, FAR, 0, 0], strides=[FAR, 1, 1]))],
        {"x": ones(1, 1, 4, 4, 4)}, {"w": ones(1, 1, 2, 2, 2)},
    ),
    "padding of integers": (
        [("ConvInteger", ["x", "w"], ["y"], dict(pads=[FAR, 0, FAR, 0], strides=[FAR, 1]))],
        {"x": np.ones((1, 1, 4, 4), np.uint8)}, {"w": np.ones((1, 1, 2, 2), np.uint8)},
    ),
    "a window of three axes": (
        [("AveragePool", ["x"], ["y"],
          dict(kernel_shape=[1 << 24, 1, 1], pads=[(1 << 24) - 1, 0, 0, 0, 0, 0]))],
        {"x": ones(1, 1, 4, 4, 4)}, {},
    ),
    "a transposed stride that is cut off": (
        [("ConvTranspose", ["x", "w"], ["y"], dict(strides=[FAR, 1], output_shape=[4, 4]))],
        {"x": ones(1, 1, 4, 4)}, {"w": ones(1, 1, 2, 2)},
    ),
    "strides of both axes": (
        [("ConvTranspose", ["x", "w"], ["y"], dict(strides=[2048, 2048], output_shape=[4, 4]))],
        {"x": ones(1, 1, 4, 4)}, {"w": ones(1, 1, 2, 2)},
    ),
    "elements that deformed places look at": (
        [("DeformConv", ["x", "w", "o"], ["y"], dict(pads=[0, 0, 1023, 1023]))],
        {"x": ones(1, 1 << 12, 1, 1), "w": ones(1, 1 << 12, 1, 1), "o": ones(1, 2, 1024, 1024)}, {},
    ),
    "windows added up": (
        [("Col2Im", ["x", "s", "k"], ["y"], dict(strides=[HUGE, 1], pads=[HUGE, 0, HUGE, 0]))],
        {"x": ones(1, 4, 9), "s": np.array([4, 4]), "k": np.array([2, 2])}, {},
    ),
    "places of an unpooling": (
        [("MaxUnpool", ["x", "i", "s"], ["y"], dict(kernel_shape=[1, 1]))],
        {"x": ones(1, 1, 2, 2), "i": np.full((1, 1, 2, 2), 1 << 50), "s": np.array([1, 1, 2, 2])}, {},
    ),
    "no groups": (
        [("GroupNormalization", ["x", "w", "w"], ["y"], dict(num_groups=0))],
        {"x": ones(1, 4, 2, 2)}, {"w": ones(4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SMALL_RESULTS)
def test_large_steps_to_small_results_are_refused(onnx_model, what):
    nodes, inputs, arrays = SMALL_RESULTS[what]
    declared = {name: ([None] * a.ndim, a.dtype) for name, a in inputs.items()}
    model = onnx_model(nodes, declared, ["y"], arrays, opset=21)
    with pytest.raises(NnliteError, match=r"beyond|more than|does not fit|outside|at least|needs"):
        nx.load(model).run(inputs)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (("LRN", ["x"], ["y"], dict(size=(1 << 40) + 1)), None),
        (("LpPool", ["x"], ["y"], dict(kernel_shape=[1 << 30, 1], pads=[(1 << 30) - 1, 0, 0, 0])), 2.0),
        (("MaxPool", ["x"], ["y"], dict(kernel_shape=[1 << 30, 1 << 30], auto_pad="SAME_UPPER")), 1.0),
    ],
)
def test_a_window_beyond_all_elements_takes_no_time(onnx_model, node, expected):
    (y,) = nx.load(onnx_model([node], {"x": [1, 3, 4, 4]}, ["y"], opset=21)).run([ones(1, 3, 4, 4)])
    assert y.shape == (1, 3, 4, 4)
    assert expected is None or y[0, 0, -1, 0] == pytest.approx(expected)


SCALARS = {
    # operator and operands of which "s" is one number where a list is meant
    "Expand": ("Expand", ["x", "s"], {}), "Tile": ("Tile", ["x", "s"], {}),
    "ConstantOfShape": ("ConstantOfShape", ["s"], {}), "Reshape": ("Reshape", ["x", "s"], {}),
    "Pad": ("Pad", ["x", "s"], {}), "Resize": ("Resize", ["x", "", "", "s"], {}),
    "TopK": ("TopK", ["x", "s"], {}),
    "Split": ("Split", ["x", "s"], {}), "CenterCropPad": ("CenterCropPad", ["x", "s"], {}),
    "OneHot": ("OneHot", ["i", "s", "x"], {}), "Slice": ("Slice", ["x", "s", "s"], {}),
    "ReduceSum": ("ReduceSum", ["x", "s"], {}), "Squeeze": ("Squeeze", ["x", "s"], {}),
}  # fmt: skip


@pytest.mark.parametrize("what", SCALARS)
@pytest.mark.parametrize("number", [HUGE, -HUGE, 1 << 62])
def test_one_number_where_a_list_is_meant(onnx_model, what, number):
    operator, operands, options = SCALARS[what]
    inputs = {"x": ones(2), "s": np.array(number), "i": np.array([0])}
    declared = {n: ([None] * a.ndim, a.dtype) for n, a in inputs.items()}
    outputs = ["y", "z"] if operator == "TopK" else ["y"]
    module = nx.load(onnx_model([(operator, operands, outputs, options)], declared, ["y"], opset=18))
    if what == "Slice" or (what == "CenterCropPad" and number < 0):  # an empty part
        assert module.run(inputs)[0].size == 0
        return
    with pytest.raises(NnliteError):
        module.run(inputs)


def test_memory_that_is_not_to_be_had_is_an_error_of_the_model(onnx_model, monkeypatch):
    def too_large(*_):
        raise MemoryError("Unable to allocate 8 TiB")

    module = nx.load(onnx_model([("Relu", ["x"], ["y"])], {"x": [1]}, ["y"]))
    monkeypatch.setattr("nnlite.graph.module.run_node", too_large)
    with pytest.raises(ModelError, match="relu0: malformed: MemoryError: Unable to allocate 8 TiB"):
        module.run([ones(1)])


def test_the_budget_holds_for_results_too(onnx_model, monkeypatch):
    model = onnx_model([("Add", ["x", "x"], ["y"])], {"x": [None]}, ["y"])
    monkeypatch.setenv("NNLITE_MAX_TENSOR_BYTES", "400")
    module = nx.load(model)
    assert module.run([np.ones(100, np.float32)])[0].size == 100
    with pytest.raises(NnliteError, match=r"add: a result of shape .101. .* budget of 400 bytes"):
        module.run([np.ones(101, np.float32)])


X = np.ones((1, 2, 5, 5), np.float32)
WINDOWS = {
    "stride 0": ("MaxPool", dict(kernel_shape=[2, 2], strides=[0, 1])),
    "stride -1": ("AveragePool", dict(kernel_shape=[2, 2], strides=[-1, 1])),
    "dilation 0": ("Conv", dict(dilations=[0, 1])),
    "dilation -1": ("Conv", dict(dilations=[1, -1])),
    "stride of a convolution": ("Conv", dict(strides=[0, 0])),
    "group 0": ("Conv", dict(group=0)),
    "group -1": ("Conv", dict(group=-1)),
    "pads": ("Conv", dict(pads=[HUGE, 0, HUGE, 0])),
    "negative pads": ("Conv", dict(pads=[-1, 0, 0, 0])),
    "kernel 0": ("MaxPool", dict(kernel_shape=[0, 2])),
    "kernel": ("MaxPool", dict(kernel_shape=[HUGE, 2])),
    "three strides": ("Conv", dict(strides=[1, 1, 1])),
    "transposed stride": ("ConvTranspose", dict(strides=[HUGE, 1])),
    "transposed stride 0": ("ConvTranspose", dict(strides=[0, 1])),
    "transposed group 0": ("ConvTranspose", dict(group=0)),
    "output_padding": ("ConvTranspose", dict(output_padding=[HUGE, 0])),
    "dilation": ("Conv", dict(dilations=[HUGE, 1])),
}


@pytest.mark.parametrize("what", WINDOWS)
def test_windows_that_make_no_sense(onnx_model, what):
    operator, attributes = WINDOWS[what]
    arrays = {} if "Pool" in operator else {"w": np.ones((2, 2, 3, 3), np.float32)}
    nodes = [(operator, ["x", *arrays], ["y"], attributes)]
    with pytest.raises(NnliteError):
        nx.load(onnx_model(nodes, {"x": [1, 2, 5, 5]}, ["y"], arrays)).run([X])


# ------------------------------------------------------------------------------ what never ends


def model_with(functions, nodes):
    x, y = (helper.make_tensor_value_info(name, 1, [2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8)


def function(name, nodes):
    return helper.make_function("f", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def call(name, given, result):
    return helper.make_node(name, [given], [result], domain="f")


def test_a_cycle_of_nodes():
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Add", ["x", "a"], ["b"]),
             helper.make_node("Relu", ["b"], ["y"])]  # fmt: skip
    with pytest.raises(ModelError, match="'b' is used before anything computes it"):
        nx.load(model_with([], nodes))


def test_a_function_that_calls_itself():
    functions = [function("p", [call("q", "a", "b")]), function("q", [call("p", "a", "b")])]
    with pytest.raises(ModelError, match="the function 'p' calls itself"):
        nx.load(model_with(functions, [call("p", "x", "y")]))


def test_functions_that_double_forty_times():
    last = function("f0", [helper.make_node("Relu", ["a"], ["b"])])
    functions = [last] + [
        function(f"f{i}", [call(f"f{i - 1}", "a", "m"), call(f"f{i - 1}", "m", "b")]) for i in range(1, 41)
    ]
    with pytest.raises(ModelError, match="spelled out, its functions are more than 100000 nodes"):
        nx.load(model_with(functions, [call("f40", "x", "y")]))


@pytest.mark.parametrize("depth", [60, 2000])
def test_functions_within_functions_without_end(depth):
    functions = [function("f0", [helper.make_node("Relu", ["a"], ["b"])])]
    functions += [function(f"f{i}", [call(f"f{i - 1}", "a", "b")]) for i in range(1, depth)]
    with pytest.raises(ModelError, match="more than 50 deep"):
        nx.load(model_with(functions, [call(f"f{depth - 1}", "x", "y")]))


def test_a_function_that_is_defined_twice():
    functions = [function("p", [helper.make_node("Relu", ["a"], ["b"])])] * 2
    with pytest.raises(ModelError, match="'p' is defined twice"):
        nx.load(model_with(functions, [call("p", "x", "y")]))


def _nested(depth):
    graph = None
    for level in range(depth):
        if graph is None:
            nodes = [helper.make_node("Relu", ["x"], [f"r{level}"])]
        else:
            nodes = [helper.make_node("If", ["c"], [f"r{level}"], then_branch=graph, else_branch=graph)]
        graph = helper.make_graph(
            nodes, f"g{level}", [], [helper.make_tensor_value_info(f"r{level}", 1, [2])]
        )
    return graph


def test_branches_that_double_without_end():
    """A file of 2^12 branches is as large as what comes out of it: read, at most a moment."""
    graph = _nested(8)
    x = helper.make_tensor_value_info("x", 1, [2])
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph.input.extend([x, c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    given = np.array([-1.0, 2.0], np.float32)
    (y,) = nx.load(model).run({"x": given, "c": np.array(True)})
    np.testing.assert_array_equal(y, np.maximum(given, 0))


def test_an_element_type_that_no_one_computes(onnx_model):
    for kind in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        model = onnx_model([("Identity", ["x"], ["y"])], {"x": [1]}, ["y"])
        model.graph.input[0].type.tensor_type.elem_type = kind
        with pytest.raises(ModelError, match="input x has elements of type"):
            nx.load(model)


def test_operands_of_two_types_are_no_sum(onnx_model):
    arrays = {"w": np.ones(2, np.float64)}
    with pytest.raises(ModelError, match="inputs A and B are float and double but must be of one type"):
        nx.load(onnx_model([("Add", ["x", "w"], ["y"])], {"x": [2]}, ["y"], arrays))


def test_errors_of_numpy_at_run_time_are_errors_of_the_model(onnx_model):
    nodes = [("Cast", ["x"], ["to"], {"to": 7}), ("Transpose", ["z"], ["t"]), ("Reshape", ["t", "to"], ["y"])]
    module = nx.load(onnx_model(nodes, {"x": [None], "z": [2, 3]}, ["y"]))
    with pytest.raises(NnliteError):
        module.run([np.array([7.0, 1.0], np.float32), np.ones((2, 3), np.float32)])


def test_tensors_in_constants_are_checked_too(onnx_model):
    tensor = TensorProto(dims=[HUGE], data_type=1)
    nodes = [("Constant", [], ["c"], dict(value=tensor)), ("Add", ["x", "c"], ["y"])]
    with pytest.raises(ModelError, match="beyond the budget"):
        nx.load(onnx_model(nodes, {"x": [1]}, ["y"]))


def test_what_a_constant_of_shape_repeats_is_one_number(onnx_model):
    value = numpy_helper.from_array(np.ones(3, np.float32))
    nodes = [("ConstantOfShape", ["s"], ["c"], dict(value=value)), ("Add", ["x", "c"], ["y"])]
    with pytest.raises(ModelError, match="malformed"):
        nx.load(onnx_model(nodes, {"x": [1]}, ["y"], {"s": np.array([1])}))


@pytest.mark.parametrize(
    ("operator", "attributes", "expected"),
    [
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 1 << 62], "ceil_mode": 1}, [[10], [14]]),
        (
            "MaxPool",
            {"kernel_shape": [1, 1], "dilations": [1 << 62, 1], "strides": [1 << 61, 1]},
            [[0, 1, 2, 3]],
        ),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [1 << 62, 1 << 62]}, [[5]]),
    ],
)
def test_steps_beyond_the_picture_lead_nowhere(onnx_model, operator, attributes, expected):
    model = onnx_model([(operator, ["x"], ["y"], attributes)], {"x": [1, 1, 4, 4]}, ["y"], opset=19)
    (y,) = nx.load(model).run([np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)])
    np.testing.assert_array_equal(y, [[expected]])


def test_a_window_that_is_mostly_padding_takes_no_time_in_float64(onnx_model):
    attributes = {"kernel_shape": [1 << 30, 2], "auto_pad": "SAME_UPPER"}
    model = onnx_model([("MaxPool", ["x"], ["y"], attributes)], {"x": ([1, 1, 4, 4], np.float64)}, ["y"])
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    with kernels.use_backend("reference"):  # another would be compiled first
        (y,) = nx.load(model).run([x])
    np.testing.assert_array_equal(y, [[[[13, 14, 15, 15]] * 4]])


def test_more_parts_than_anybody_counts(onnx_model):
    node = ("Split", ["x"], ["y"], {"num_outputs": 1 << 62})
    (y,) = nx.load(onnx_model([node], {"x": [3]}, ["y"], opset=18)).run([np.float32([1, 2, 3])])
    np.testing.assert_array_equal(y, [1])
