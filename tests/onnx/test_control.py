"""Loops, scans, sequences and optional values: against ONNX Runtime, by hand, and by differences."""

from __future__ import annotations

import time
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import nnlite
from nnlite import onnx as nx
from nnlite.errors import ModelError, NnliteError
from nnlite.onnx import backend
from nnlite.tensors import Tensor
from nnlite.testing import gradcheck

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def info(name, sizes=None, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, sizes)


COUNTED = [info("i", [], INT64), info("c", [], BOOL)]
GO = info("c2", [], BOOL)


def sequence(name, kind=FLOAT):
    return helper.make_value_info(
        name, helper.make_sequence_type_proto(helper.make_tensor_type_proto(kind, None))
    )


def model(nodes, inputs, outputs, arrays=None, opset=17):
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in (arrays or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def agree(proto, feeds, run_ort):
    for a, e in zip(nx.load(proto).run(feeds), run_ort(proto, feeds), strict=True):
        same(a, e)


def same(a, e):
    if isinstance(e, list):
        assert len(a) == len(e)
        for x, y in zip(a, e, strict=True):
            same(x, y)
        return
    assert (a.shape, a.dtype) == (e.shape, e.dtype)
    np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------------------- Loop


def loop_body(kind=FLOAT):
    """s' = tanh(s @ w) + i, going on while the sum of s' is below the limit; s and its sum are stacked."""
    nodes = [
        node("MatMul", ["s", "w"], ["m"]), node("Tanh", ["m"], ["t"]), node("Cast", ["i"], ["f"], to=kind),
        node("Add", ["t", "f"], ["s2"]), node("ReduceSum", ["s2"], ["sum"], keepdims=0),
        node("Less", ["sum", "most"], ["go"]), node("Identity", ["s2"], ["row"]),
    ]  # fmt: skip
    formals = [*COUNTED, info("s", [2, 3], kind)]
    return helper.make_graph(
        nodes, "body", formals, [info("go", [], BOOL), info("s2", [2, 3], kind), info("row", [2, 3], kind),
                                 info("sum", [], kind)],
    )  # fmt: skip


def loop_model(dtype=np.float32, opset=17, weights=True):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((3, 3)).astype(dtype), "most": np.asarray(25, dtype)}
    nodes = [node("Mul", ["x", "x"], ["x2"]),
             node("Loop", ["n", "go0", "x2"], ["last", "rows", "sums"], body=loop_body(kind),
                  name="again")]  # fmt: skip
    inputs = [info("n", [], INT64), info("go0", [], BOOL), info("x", [2, 3], kind)]
    feeds = {"n": np.array(4), "go0": np.array(True), "x": rng.standard_normal((2, 3)).astype(dtype)}
    if not weights:
        inputs.append(info("w", [3, 3], kind))
        feeds["w"] = arrays.pop("w")
    outputs = [info("last", [2, 3], kind), info("rows", [None, 2, 3], kind), info("sums", [None], kind)]
    return model(nodes, inputs, outputs, arrays, opset), feeds


@pytest.mark.parametrize("opset", [13, 16, 19])
@pytest.mark.parametrize(("count", "going"), [(4, True), (0, True), (4, False), (100, True)])
def test_a_loop(run_ort, opset, count, going):
    proto, feeds = loop_model(opset=opset)
    agree(proto, feeds | {"n": np.array(count), "go0": np.array(going)}, run_ort)


@pytest.mark.parametrize("opset", [1, 11])
def test_a_loop_of_old(opset):
    """Opset 1 has Less with operands of one shape, and reductions by attribute."""
    body = helper.make_graph(
        [node("Mul", ["s", "two"], ["s2"]), node("Identity", ["c"], ["c2"])], "body",
        [*COUNTED, info("s", [2])], [GO, info("s2", [2])],
    )  # fmt: skip
    proto = model(
        [node("Loop", ["n", "", "x"], ["y"], body=body)], [info("n", [], INT64), info("x", [2])],
        [info("y", [2])],
        {"two": np.float32([2, 3])}, opset,
    )  # fmt: skip
    (y,) = nx.load(proto).run({"n": np.array(3), "x": np.float32([1, 1])})
    np.testing.assert_array_equal(y, [8, 27])


def test_gradients_through_a_loop():
    proto, feeds = loop_model(np.float64, weights=False)
    module = nx.load(proto)
    gys = [np.random.default_rng(i).standard_normal(y.shape) for i, y in enumerate(module.run(feeds))]
    assert len(gys[1]) == 4

    def scalar(x, w):
        listed = [Tensor(feeds["n"]), Tensor(feeds["go0"]), x, w]
        return sum((y * Tensor(gy)).sum() for y, gy in zip(module(*listed), gys, strict=True))

    gradcheck(scalar, [Tensor(feeds[k], requires_grad=True) for k in ("x", "w")])


def test_weights_of_a_loop_are_parameters_and_can_be_trained_and_written(tmp_path, run_ort):
    proto, feeds = loop_model()
    module = nx.load(proto)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    module(*(Tensor(feeds[k]) for k in module.inputs))[0].sum().backward()
    (w,) = module.parameters()
    w.writable()[...] -= 0.1 * w.grad.numpy()
    nx.save(module, tmp_path / "trained.onnx")
    agree(onnx.load(tmp_path / "trained.onnx"), feeds, run_ort)
    assert not np.array_equal(module.run(feeds)[0], nx.load(proto).run(feeds)[0])


def test_loops_in_loops_see_all_names_around_them(run_ort):
    inner = helper.make_graph(
        [node("Add", ["a", "x"], ["b"]), node("Add", ["b", "h"], ["a2"]), node("Identity", ["c1"], ["c2"])],
        "inner", [info("j", [], INT64), info("c1", [], BOOL), info("a", [2])], [GO, info("a2", [2])],
    )  # fmt: skip
    outer = helper.make_graph(
        [node("Mul", ["s", "x"], ["h"]), node("Add", ["i", "one"], ["k"]),
         node("Loop", ["k", "", "s"], ["s2"], body=inner), node("Identity", ["c"], ["go"])],
        "outer", [*COUNTED, info("s", [2])], [info("go", [], BOOL), info("s2", [2])],
    )  # fmt: skip
    proto = model(
        [node("Loop", ["n", "", "x"], ["y"], body=outer)], [info("n", [], INT64), info("x", [2])],
        [info("y", [2])],
        {"one": np.array(1)},
    )  # fmt: skip
    agree(proto, {"n": np.array(3), "x": np.float32([0.5, -0.25])}, run_ort)


def test_a_loop_in_a_function(normal):
    body = helper.make_graph(
        [node("Add", ["s", "a"], ["s2"]), node("Identity", ["c"], ["c2"])], "body",
        [*COUNTED, info("s", [2])], [GO, info("s2", [2])],
    )  # fmt: skip
    function = helper.make_function(
        "f", "times", ["a", "n"], ["b"], [node("Loop", ["n", "", "a"], ["b"], body=body)],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    proto = model([node("times", ["x", "n"], ["y"], domain="f")], [info("x", [2]), info("n", [], INT64)],
                  [info("y", [2])])  # fmt: skip
    proto.opset_import.append(helper.make_opsetid("f", 1))
    proto.functions.append(function)
    x = normal(2)
    np.testing.assert_allclose(nx.load(proto).run([x, np.array(2)])[0], 3 * x, rtol=1e-6)


def endless(limit=True, nested=False, grows=False, conditional=False):
    work = [node("Concat", ["s", "s"], ["s2"], axis=0)] if grows else [node("Add", ["s", "x"], ["s2"])]
    go = [node("Cast", ["i"], ["c1"], to=BOOL), node("Or", ["c1", "true"], ["c2"])]
    body = helper.make_graph(
        [*work, *(go if conditional else [node("Identity", ["c"], ["c2"])])], "body",
        [*COUNTED, info("s", [None])],
        [GO, info("s2", [None]), *([info("s2", [None])] if nested == "stack" else [])],
    )  # fmt: skip
    if nested is True:
        loop = node("Loop", ["most", "", "s"], ["s2"], body=body)
        body = helper.make_graph(
            [loop, node("Identity", ["c"], ["c2"])], "outer",
            [*COUNTED, info("s", [None])],
            [GO, info("s2", [None])],
        )  # fmt: skip
    outputs = ["y", "rows"] if nested == "stack" else ["y"]
    inputs = ["most" if limit else "", "" if limit else "true", "x"]
    return model(
        [node("Loop", inputs, outputs, body=body, name="forever")], [info("x", [None])],
        [info(name, None) for name in outputs],
        {"most": np.array(1000 if nested is True else 2**62), "true": np.array(True)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(), "more than 5000 iterations"),
        (dict(limit=False), "more than 5000 iterations"),
        (dict(conditional=True), "more than 5000 iterations"),
        (dict(nested=True), "more than 5000 iterations"),
        (dict(grows=True, conditional=True), "beyond the budget"),
        (dict(nested="stack", conditional=True), "beyond the budget"),
    ],
)
def test_loops_without_end_are_refused(monkeypatch, options, match):
    monkeypatch.setenv("NNLITE_MAX_ITERATIONS", "5000")
    monkeypatch.setenv("NNLITE_MAX_TENSOR_BYTES", "30000")
    module = nx.load(endless(**options))
    start = time.perf_counter()
    with pytest.raises(NnliteError, match=match):
        module.run([np.ones(3, np.float32)])
    assert time.perf_counter() - start < 1


def test_what_a_loop_must_be():
    proto, feeds = loop_model()
    proto.graph.node[1].attribute[0].g.output.pop()
    with pytest.raises(ModelError, match="3 outputs are asked for, 2 are supported"):
        nx.load(proto)
    proto.graph.node[1].attribute[0].g.input.append(info("other", [2, 3]))
    with pytest.raises(
        ModelError, match="malformed: its body has 4 inputs and 3 outputs, with 1 carried values"
    ):
        nx.load(proto)
    proto, feeds = loop_model()
    with pytest.raises(NnliteError, match="must be one truth value"):
        nx.load(proto, {"go0": [2]}).run(feeds | {"go0": np.array([True, False])})


def test_what_is_not_supported_in_a_body_is_named_with_its_path():
    proto, _ = loop_model()
    proto.graph.node[1].attribute[0].g.node[1].op_type = "Det"
    with pytest.raises(ModelError, match=r"Det .again/t.: not supported"):
        nx.load(proto)


# ----------------------------------------------------------------------------------------- Scan


def scan_model(opset=17, kind=FLOAT, **attributes):
    """s' = s * a + b; stacks s' and a - b."""
    nodes = [node("Mul", ["s", "a"], ["m"]), node("Add", ["m", "b"], ["n"]), node("Add", ["n", "w"], ["s2"]),
             node("Identity", ["s2"], ["row"]), node("Sub", ["a", "b"], ["d"])]  # fmt: skip
    formals = [info(name, [3], kind) for name in ("s", "a", "b")]
    outs = [info(name, [3], kind) for name in ("s2", "row", "d")]
    body = helper.make_graph(nodes, "body", formals, outs)
    scan = node(
        "Scan", ["s0", "x", "z"], ["last", "rows", "more"], body=body, num_scan_inputs=2, **attributes
    )
    inputs = [info(name, None, kind) for name in ("s0", "x", "z")]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    outputs = [info(name, None, kind) for name in ("last", "rows", "more")]
    return model([scan], inputs, outputs, {"w": np.array([0.5, -0.5, 1], dtype)}, opset)


def scan_feeds(axis=0, dtype=np.float32):
    rng = np.random.default_rng(1)
    x = np.moveaxis(rng.standard_normal((4, 3)), 0, axis)
    return {"s0": rng.standard_normal(3).astype(dtype), "x": x.astype(dtype),
            "z": rng.standard_normal((4, 3)).astype(dtype)}  # fmt: skip


@pytest.mark.parametrize("opset", [9, 11, 16, 19])
@pytest.mark.parametrize(
    ("axis", "attributes"),
    [
        (0, {}),
        (1, dict(scan_input_axes=[1, 0])),
        (1, dict(scan_input_axes=[1, 0], scan_input_directions=[1, 0])),
        (0, dict(scan_output_directions=[0, 1], scan_output_axes=[1, 0])),
        (1, dict(scan_input_axes=[-1, -2], scan_output_axes=[-1, -2])),
    ],
)
def test_a_scan(run_ort, opset, axis, attributes):
    if opset == 9 and any(a < 0 for key in attributes for a in attributes[key]):
        pytest.skip("negative axes came with operator set 11")
    proto, feeds = scan_model(opset, **attributes), scan_feeds(axis)
    for a, e in zip(nx.load(proto).run(feeds), run_ort(proto, feeds), strict=True):
        same(a, e)


def test_gradients_through_a_scan():
    module = nx.load(scan_model(kind=TensorProto.DOUBLE, scan_input_directions=[0, 1]))
    feeds = scan_feeds(dtype=np.float64)
    gys = [np.random.default_rng(i).standard_normal(y.shape) for i, y in enumerate(module.run(feeds))]

    def scalar(*inputs):
        return sum((y * Tensor(gy)).sum() for y, gy in zip(module(*inputs), gys, strict=True))

    gradcheck(scalar, [Tensor(a, requires_grad=True) for a in feeds.values()])
    assert [name for name, _ in module.named_parameters()] == ["w"]


def test_a_scan_of_operator_set_8_runs_over_each_sequence(run_ort, normal):
    body = helper.make_graph(
        [node("Add", ["s", "a"], ["s2"]), node("Mul", ["s2", "a"], ["row"])], "body",
        [info("s", [3]), info("a", [3])], [info("s2", [3]), info("row", [3])],
    )  # fmt: skip
    for flips in ([0], [1]):
        scan = node("Scan", ["", "s0", "x"], ["last", "rows"], body=body, num_scan_inputs=1, directions=flips)
        inputs, outputs = (
            [info("s0", [2, 3]), info("x", [2, 4, 3])],
            [info("last", [2, 3]), info("rows", [2, 4, 3])],
        )
        agree(
            model([scan], inputs, outputs, opset=8),
            {"s0": normal(2, 3), "x": normal(2, 4, 3, seed=1)},
            run_ort,
        )
    scan.input[0] = "lengths"
    with pytest.raises(ModelError, match="sequence_lens is not supported"):
        nx.load(model([scan], [info("lengths", [2], INT64), *inputs], outputs, opset=8))


def test_scanned_sequences_must_be_of_one_length(normal):
    feeds = scan_feeds() | {"z": normal(5, 3)}
    with pytest.raises(NnliteError, match=r"scan: the sequences are of lengths \[4, 5\]"):
        nx.load(scan_model()).run(feeds)


# ------------------------------------------------------------------------------------ sequences


def test_sequences_go_in_and_out(run_ort, normal):
    nodes = [
        node("SequenceLength", ["s"], ["n"]), node("SequenceAt", ["s", "at"], ["a"]),
        node("SequenceInsert", ["s", "x"], ["s1"]), node("SequenceInsert", ["s1", "a", "at"], ["s2"]),
        node("SequenceErase", ["s2", "first"], ["s3"]), node("SequenceErase", ["s3"], ["s4"]),
        node("ConcatFromSequence", ["s4"], ["c"], axis=0), node("SequenceEmpty", [], ["e"], dtype=FLOAT),
        node("SequenceInsert", ["e", "x"], ["e1"]), node("Identity", ["e1"], ["e2"]),
    ]  # fmt: skip
    outputs = [info("n", [], INT64), info("a", None), sequence("s3"), info("c", None), sequence("e2")]
    proto = model(
        nodes, [sequence("s"), info("x", None)], outputs, {"at": np.array(-1), "first": np.array(0)}
    )
    feeds = {"s": [normal(2, 3), normal(1, 3, seed=1)], "x": normal(4, 3, seed=2)}
    agree(proto, feeds, run_ort)


@pytest.mark.parametrize(
    ("sizes", "keepdims"), [(None, 0), (None, 1), (np.array(2), 1), (np.array([1, 4]), 1)]
)
@pytest.mark.parametrize("new_axis", [0, 1])
def test_cut_into_a_sequence_and_joined_again(run_ort, normal, sizes, keepdims, new_axis):
    names = ["x"] if sizes is None else ["x", "sizes"]
    nodes = [node("SplitToSequence", names, ["s"], axis=1, keepdims=keepdims)]
    outputs = [sequence("s")]
    if not (new_axis and sizes is not None):
        nodes.append(node("ConcatFromSequence", ["s"], ["y"], axis=1, new_axis=new_axis))
        outputs.append(info("y", None))
    proto = model(nodes, [info("x", None)], outputs, {} if sizes is None else {"sizes": sizes})
    agree(proto, {"x": normal(2, 5, 3)}, run_ort)


def collecting():
    """A loop that collects x * i in a sequence, and the stack of it."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    body = helper.make_graph(
        [node("Cast", ["i"], ["f"], to=FLOAT), node("Mul", ["x", "f"], ["m"]),
         node("SequenceInsert", ["s", "m"], ["s2"]), node("Identity", ["c"], ["c2"])],
        "body", [*COUNTED, helper.make_value_info("s", kind)],
        [GO, helper.make_value_info("s2", kind)],
    )  # fmt: skip
    nodes = [node("SequenceEmpty", [], ["s0"]), node("Loop", ["n", "", "s0"], ["s9"], body=body),
             node("ConcatFromSequence", ["s9"], ["y"], axis=0, new_axis=1)]  # fmt: skip
    return model(nodes, [info("n", [], INT64), info("x", [None])], [info("y", None)])


def test_keepdims_says_nothing_where_sizes_are_given(normal):
    nodes = [node("SplitToSequence", ["x", "two"], ["s"], keepdims=0)]
    (parts,) = nx.load(model(nodes, [info("x", None)], [sequence("s")], {"two": np.array(2)})).run(
        [normal(3, 2)]
    )
    assert [part.shape for part in parts] == [(2, 2), (1, 2)]


def test_a_loop_that_collects(run_ort, normal):
    proto, x = collecting(), normal(3)
    agree(proto, {"n": np.array(4), "x": x}, run_ort)
    leaf = Tensor(x, requires_grad=True)
    nx.load(proto)(Tensor(np.array(4)), leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), [6, 6, 6])


def test_a_sequence_stays_within_the_budget(monkeypatch):
    monkeypatch.setenv("NNLITE_MAX_TENSOR_BYTES", "4000")
    with pytest.raises(NnliteError, match="sequence: 11 tensors of 4400 bytes are beyond the budget"):
        nx.load(collecting()).run({"n": np.array(100), "x": np.ones(100, np.float32)})


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ([("SequenceConstruct", ["x"], ["s"]), ("SequenceAt", ["s", "two"], ["y"])],
         "position 2 is out of range for 1"),
        ([("SequenceConstruct", ["x"], ["s"]), ("SequenceInsert", ["s", "n"], ["y"])],
         "it holds float32, so that int64 does not fit in"),
        ([("SequenceConstruct", ["x"], ["s"]), ("SequenceErase", ["s", "two"], ["y"])], "out of range"),
        ([("SequenceConstruct", ["x"], ["s"]), ("SequenceInsert", ["s", "x", "two"], ["y"])], "out of range"),
        ([("SequenceConstruct", ["x", "n"], ["y"])], "float and int64 but must be of one type"),
        ([("SequenceEmpty", [], ["s"]), ("ConcatFromSequence", ["s"], ["y"], dict(axis=0))],
         "an empty sequence"),
        ([("SequenceAt", ["x", "two"], ["y"])], "input_sequence must not be of type float32"),
        ([("Optional", ["x"], ["o"]), ("SequenceLength", ["o"], ["y"])],
         "a sequence is wanted, not a tensor"),
        ([("SplitToSequence", ["x"], ["y"], dict(axis=3))], "axis 3 is not one of"),
        ([("SplitToSequence", ["x", "two_and_two"], ["y"])], "do not add up to 2"),
        ([("SplitToSequence", ["wide"], ["y"], dict(axis=0))], "40000 parts are more than 32768"),
        ([("Optional", [], ["o"]), ("OptionalGetElement", ["o"], ["y"])], "the optional value is absent"),
    ],
)  # fmt: skip
def test_what_sequences_refuse(onnx_model, nodes, match):
    arrays = {"two": np.array(2), "two_and_two": np.array([2, 2]), "wide": np.zeros(40000, np.float32)}
    proto = onnx_model(nodes, {"x": [2, 3], "n": ([2], np.int64)}, ["y"], arrays)
    with pytest.raises(NnliteError, match=match):
        nx.load(proto).run([np.ones((2, 3), np.float32), np.array([1, 2])])


def test_a_number_in_a_sequence_comes_out():
    """ONNX's test_loop16_seq_none, which its runner cannot compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of ONNX's tests overflow while they are made
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    case = next(c for c in cases if c.name == "test_loop16_seq_none")
    if case.data_sets is None:
        pytest.skip(f"onnx {onnx.__version__} brings this case without its data")
    inputs, outputs = case.data_sets[0]
    for a, e in zip(backend.run_model(case.model, inputs), outputs, strict=True):
        same(a, e)


def test_optional_values_that_are_absent():
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2]))
    proto = model([node("OptionalHasElement", ["x"], ["y"])], [helper.make_value_info("x", kind)],
                  [info("y", [], BOOL)], opset=18)  # fmt: skip
    for given, expected in ((None, False), (np.ones(2, np.float32), True)):
        (y,) = nx.load(proto).run([given])
        assert y.dtype == bool
        assert bool(y) is expected


def test_passes_leave_control_flow_alone(run_ort, normal):
    """A graph with a loop can be fused: captured values are renamed with everything else."""
    body = helper.make_graph(
        [node("Conv", ["s", "w"], ["k"]), node("Relu", ["k"], ["s2"]), node("Identity", ["c"], ["c2"])],
        "body", [*COUNTED, info("s", [1, 2, 3, 3])],
        [GO, info("s2", [1, 2, 3, 3])],
    )  # fmt: skip
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]),
             node("Loop", ["n", "", "r"], ["y"], body=body)]  # fmt: skip
    proto = model(nodes, [info("x", [1, 2, 3, 3])], [info("y", [1, 2, 3, 3])],
                  {"w": normal(2, 2, 1, 1), "n": np.array(2)})  # fmt: skip
    x = normal(1, 2, 3, 3)
    agree(proto, [x], run_ort)
    np.testing.assert_allclose(nx.load(proto).fused().run([x])[0], nx.load(proto).run([x])[0], rtol=1e-6)


def test_plans_run_control_flow_too(normal):
    """No program can be made of what depends on data: it is run node by node."""
    proto, feeds = loop_model()
    plan = nnlite.graph.compile(nx.load(proto))
    for a, e in zip(plan.run(*feeds.values()), nx.load(proto).run(feeds), strict=True):
        same(a, e)
    proto = collecting()
    x = normal(3)
    (y,) = nnlite.graph.compile(nx.load(proto)).run(np.array(4), x)
    same(y, nx.load(proto).run([np.array(4), x])[0])
