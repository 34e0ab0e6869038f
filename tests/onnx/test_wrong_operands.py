"""Sequences where tensors are wanted, tensors where sequences are, and nothing where something must be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nnlite import onnx as nx
from nnlite.errors import DTypeError, ModelError, NnliteError


def _sequences(nodes, opset=21):
    """A model whose one input is a sequence of tensors."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes, "g", [helper.make_value_info("s", kind)], [helper.make_value_info("y", onnx.TypeProto())]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_a_sequence_where_a_tensor_is_wanted():
    module = nx.load(_sequences([helper.make_node("Shape", ["s"], ["y"])]))
    with pytest.raises(DTypeError, match="a tensor is wanted, not a sequence"):
        module.run([[np.ones(2, np.float32)]])
    with pytest.raises(DTypeError, match="holds Python objects"):
        module.run([np.ones(1, object)])
    with pytest.raises(DTypeError, match="runs without a plan"):
        module.compile().run(np.ones(1, object))


def test_a_sequence_where_a_number_of_iterations_is_wanted():
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["i"], ["j"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []),
         helper.make_tensor_value_info("j", TensorProto.INT64, [])],
    )  # fmt: skip
    module = nx.load(_sequences([helper.make_node("Loop", ["s", ""], ["y"], body=body)]))
    with pytest.raises(DTypeError, match="a tensor is wanted, not a sequence"):
        module.run([[np.ones(2, np.float32)]])


def test_a_tensor_where_a_sequence_is_wanted(onnx_model):
    model = onnx_model([("SequenceAt", ["x", "i"], ["y"])], {"x": [2], "i": ([], np.int64)}, ["y"], opset=21)
    with pytest.raises(NnliteError, match="sequence"):
        nx.load(model).run([np.ones(2, np.float32), np.array(0)])


def test_an_input_that_must_be_given_is_absent_within_a_function():
    function = helper.make_function(
        "f", "F", ["a", "b"], ["c"], [helper.make_node("Add", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("F", ["x"], ["y"], domain="f")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    model = helper.make_model(
        graph, functions=[function], opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    )
    with pytest.raises(ModelError, match="its input B is empty but must be given"):
        nx.load(model)
