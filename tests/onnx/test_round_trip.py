"""Every op that can be written x every sample x operator sets: written, checked, run elsewhere, read back.

A new op is tested by being registered. The oracles are ONNX Runtime, which runs every case, and ONNX's
own reference evaluator where it is right.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from nnlite import onnx as nx
from nnlite.errors import NnliteError
from nnlite.graph import Graph, Value, make_node
from nnlite.onnx.serialise import serialise
from nnlite.ops import OPS, ArrayType
from nnlite.tensors import Tensor, apply_many

OPSETS = [13, 17, 18, 21, "newest"]
CASES = [
    pytest.param(op, sample, opset, id=f"{name}-{i}-opset_{opset}")
    for name, op in OPS.items()
    if op.writes is not None
    for i, sample in enumerate(op.samples())
    if sample.onnx
    for opset in OPSETS
]
REDUCING = (
    lambda params: 16 if params["reduction"] in ("add", "mul") else 18,
    lambda params: params.get("reduction", "none") != "none",
)
NOT_IN_OLD_OPSETS = {
    # (op, oldest operator set that can say it): the writer must refuse below
    "avg_pool2d": (19, lambda params: tuple(params["dilation"]) != (1, 1)),
    "shape_of": (15, lambda params: params.get("start", 0) or params.get("end") is not None),
    "pad": (19, lambda params: params.get("mode") == "wrap"),
    "roi_align": (16, lambda params: params["half_pixel"]),
    "grid_sample": (16, lambda params: True),
    "fold": (18, lambda params: True),
    "deform_conv2d": (19, lambda params: True),
    "scatter_nd": REDUCING,
    "scatter_elements": REDUCING,
    "resize": (18, lambda params: any(map(params.get, ("antialias", "axes", "policy")))),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"), (18, lambda params: True)),
    "trilu": (14, lambda params: True),
    "cumprod": (26, lambda params: True),
    "bit_cast": (26, lambda params: True),
    "quantize": (21, lambda params: params.get("block_size")),
    "dequantize": (21, lambda params: params.get("block_size")),
    "cross_entropy": (99, lambda params: params["label_smoothing"]),
}

NEWEST_IN_ONNXRUNTIME = {"roi_align": 21, "quantize": 24, "dequantize": 24, "fake_quantize": 24}
"""Operators of which ONNX Runtime has no newer version."""

EVALUATOR_ERRS = {
    # cases where ONNX's reference evaluator differs from ONNX Runtime and PyTorch alike
    "conv_transpose2d-2": "it mistakes asymmetric pads with groups",
    "max_pool2d-4": "it pads SAME_LOWER at the wrong end",
    "pad-1": "it knows no negative pads",
    "local_response_norm-0": "it takes the batch's size for the number of channels",
    "gather_elements-1": "it wants indices as large as the operand",
    "conv_transpose_nd-1": "it does not know groups along three axes",
    **dict.fromkeys(
        [f"grid_sample-{i}" for i in (*range(6), *range(12, 18))], "it knows only the newest names of modes"
    ),
    **dict.fromkeys(
        [*(f"dequantize-{i}" for i in range(3)), "fake_quantize-0", "fake_quantize-1"],
        "it has no DequantizeLinear of before operator set 19",
    ),
    "nll_loss-6": "without class weights its mean counts ignored labels",
    "max_unpool2d-0": "it ignores output_shape while it places elements",
    "softsign-2": "it gives a number an axis",
    **dict.fromkeys(
        [
            f"{cell}-{i}"
            for cell, cases in (("rnn", (1, 2, 3, 5)), ("gru", range(1, 7)), ("lstm", (*range(1, 7), 8)))
            for i in cases
        ],
        "it knows one direction, the default activations and no lengths",
    ),
}


@cache
def newest_of_onnxruntime() -> int:
    """The newest operator set for which ONNX Runtime promises support, found by asking it."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle here; install nnlite[oracle]")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    x = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", x[:1], x[1:])
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # its own type is not public
            continue
        return opset
    raise AssertionError("ONNX Runtime runs nothing")


def one_node(op, sample, opset):
    """A model of one node, its inputs, and what nnlite computes."""
    arrays = sample.arrays(dtype=np.float32)
    types = [None if a is None else ArrayType(a.shape, a.dtype) for a in arrays]
    values = [None if t is None else Value(name=f"x{i}", type=t) for i, t in enumerate(types)]
    outputs = [Value(name=f"y{i}", type=t) for i, t in enumerate(op.output_types(types, sample.params))]
    node = make_node(op.name, values, sample.params, outputs, "node")
    graph = Graph(tuple(v for v in values if v is not None), tuple(outputs), (node,))
    model = serialise(graph, {}, opset)
    expected = apply_many(op, *[None if a is None else Tensor(a) for a in arrays], **sample.params)
    feeds = {v.name: a for v, a in zip(values, arrays, strict=True) if v is not None}
    return model, feeds, [t.numpy() for t in expected]


def assert_close(actual, expected, tolerance=1e-5):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        a = np.asarray(a)
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        scale = max(1.0, float(np.abs(e).max(initial=0)))
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale)


def refused_below(op, sample):
    oldest, applies = NOT_IN_OLD_OPSETS.get(op.name, (0, lambda params: False))
    if not applies(sample.params):
        return 0
    return oldest(sample.params) if callable(oldest) else oldest


@pytest.mark.parametrize(("op", "sample", "opset"), CASES)
def test_written_run_and_read_back(op, sample, opset, run_ort):
    if opset == "newest":
        opset = min(newest_of_onnxruntime(), NEWEST_IN_ONNXRUNTIME.get(op.name, 1000))
    if opset < refused_below(op, sample):
        with pytest.raises(NnliteError, match=op.name):
            one_node(op, sample, opset)
        return
    model, feeds, expected = one_node(op, sample, opset)
    onnx.checker.check_model(model, full_check=True)
    assert_close(run_ort(model, feeds), expected)
    module = nx.load(model)
    assert list(module.inputs) == list(feeds)
    assert_close(module.run(feeds), expected)


@pytest.mark.parametrize(("op", "sample", "opset"), [case for case in CASES if case.values[2] == 17])
def test_the_reference_evaluator_agrees(op, sample, opset, request):
    case = request.node.callspec.id.removesuffix("-opset_17")
    if case in EVALUATOR_ERRS:
        pytest.skip(f"ONNX's reference evaluator: {EVALUATOR_ERRS[case]}")
    if opset < refused_below(op, sample):
        pytest.skip("operator set 17 cannot say it; test_written_run_and_read_back sees it refused")
    model, feeds, expected = one_node(op, sample, opset)
    assert_close(ReferenceEvaluator(model).run(None, feeds), expected)


@pytest.mark.parametrize("opset", [12, 10_000])
def test_operator_sets_that_cannot_be_written_are_refused(opset):
    with pytest.raises(nx.reader.ModelError, match=f"opset={opset} must be 13 to"):
        one_node(OPS["relu"], next(iter(OPS["relu"].samples())), opset)


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.writes is None])
def test_ops_of_training_are_refused_by_name(name):
    op = OPS[name]
    with pytest.raises(nx.reader.ModelError, match=f"{name} is a training-time operation"):
        one_node(op, next(iter(op.samples())), 17)


def test_every_operator_that_is_written_is_read_by_some_record():
    written = set()
    for case in CASES:
        op, sample, _ = case.values
        try:
            written |= {node.op_type for node in one_node(op, sample, 21)[0].graph.node}
        except NnliteError:
            continue
    assert written <= set(nx.reader.READERS)
