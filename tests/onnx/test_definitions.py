"""Operators that are read by ONNX's own definitions: they can be trained, and need their types."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import nnlite.onnx as nx
from nnlite.errors import ModelError
from nnlite.tensors import Tensor
from nnlite.testing import gradcheck

HEADS = (2, 3, 5, 4)
CASES = {
    "attention": ("Attention", 23, [HEADS] * 3, {}),
    "attention, causal, capped": ("Attention", 23, [HEADS] * 3, dict(is_causal=1, softcap=2.0, scale=0.3)),
    "attention of three axes": (
        "Attention", 23, [(2, 5, 8), (2, 6, 4), (2, 6, 4)], dict(q_num_heads=4, kv_num_heads=2)
    ),
    "attention, masked": ("Attention", 24, [HEADS, HEADS, HEADS, (5, 5)], {}),
    "attention, windowed": ("Attention", 25, [HEADS] * 3, dict(is_causal=1, left_window_size=2)),
    "RMS normalisation": ("RMSNormalization", 23, [(3, 4, 5), (4, 5)], dict(axis=1, stash_type=11)),
    "swish": ("Swish", 24, [(3, 4)], dict(alpha=1.5)),
}  # fmt: skip


def model(operator, opset, shapes, attributes):
    names = [f"x{i}" for i in range(len(shapes))]
    node = helper.make_node(operator, names, ["y"], **attributes)
    kind = TensorProto.DOUBLE
    entries = [helper.make_tensor_value_info(n, kind, s) for n, s in zip(names, shapes, strict=True)]
    graph = helper.make_graph([node], "test", entries, [helper.make_tensor_value_info("y", kind, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_differences(case):
    operator, opset, shapes, attributes = CASES[case]
    module = nx.load(model(operator, opset, shapes, attributes))
    rng = np.random.default_rng(0)
    gradcheck(module, [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes])


def test_types_that_are_not_known_are_said():
    made = model("Attention", 23, [HEADS] * 3, {})
    made.graph.node[0].input[0] = "copied"
    made.graph.node.insert(0, helper.make_node("Unknown", ["x0"], ["copied"]))
    with pytest.raises(ModelError, match="the element type of its input copied is not known"):
        nx.load(made)
