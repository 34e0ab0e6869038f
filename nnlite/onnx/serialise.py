"""A graph as a new file: every node through its op's own writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nnlite.errors import ModelError
from nnlite.graph import make_node
from nnlite.graph.ir import Graph
from nnlite.layout import Array
from nnlite.node import Node, Value

OLDEST_OPSET = 13
IR_VERSION = 8
"""What operator set 17 came with; older runtimes refuse files that claim to be newer than they are."""


class _Writing:
    """The file being written, as an op's writer sees it (``ops.record.OnnxWriter``)."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names: dict[Value, str] = {}
        self.op = ""
        """The op that is being written."""
        self.taken: set[str] = set()
        """Names of inputs and parameters."""
        self._count = 0

    def fresh(self, stem: str) -> str:
        self._count += 1
        name = f"{stem}_{self._count}"
        return name if name not in self.taken else self.fresh(stem)

    def add_array(self, name: str, array: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _name(self, item: Value | Array | str | None) -> str:
        if item is None:
            return ""
        if isinstance(item, str):
            return item
        if isinstance(item, Value):
            return self.names[item]
        return self.add_array(self.fresh("constant"), np.asarray(item))

    def add(self, op_type: str, inputs: Sequence[Value | Array | str | None], **attributes: Any) -> str:
        return self.add_many(op_type, inputs, 1, **attributes)[0]

    def add_many(
        self, op_type: str, inputs: Sequence[Value | Array | str | None], outputs: int, **attributes: Any
    ) -> list[str]:
        given = tuple(key for key, value in attributes.items() if value is not None)
        since = _first_version(op_type, given)
        if since > self.version:
            what = (
                op_type
                if _first_version(op_type, ()) > self.version
                else f"{op_type} with {', '.join(given)}"
            )
            raise ModelError(
                f"{self.op}: ONNX has {what} from operator set {since} on; export with opset={since}"
            )
        names = [self._name(item) for item in inputs]
        while names and not names[-1]:
            names.pop()
        results = [self.fresh(op_type.lower()) for _ in range(outputs)]
        plain = {key: _attribute(value) for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op_type, names, results, name=results[0], **plain))
        return results

    def host(self, value: Any, dtype: Any = np.int64) -> Value | Array:
        return value if isinstance(value, Value) else np.asarray(value, dtype)


@lru_cache(maxsize=2048)
def _first_version(op_type: str, attributes: tuple[str, ...]) -> int:
    """The operator set that an operator, or its attributes, came with."""
    for version in range(1, onnx.defs.onnx_opset_version() + 1):
        if onnx.defs.has(op_type, version, ""):
            schema = onnx.defs.get_schema(op_type, version, "")
            if set(attributes) <= set(schema.attributes):
                return version
    raise AssertionError(f"{op_type} has no attributes {attributes}")


def _attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    return list(value) if isinstance(value, tuple) else value


def serialise(
    graph: Graph, arrays: Mapping[Value, Array], opset: int, called: Sequence[str] | None = None
) -> onnx.ModelProto:
    """A graph as a model with outputs ``called`` so, or output, output_1, ...

    Raises ModelError where an op has no place in a file, or not in this operator set.
    """
    if not OLDEST_OPSET <= opset <= onnx.defs.onnx_opset_version():
        raise ModelError(f"opset={opset} must be {OLDEST_OPSET} to {onnx.defs.onnx_opset_version()}")
    graph = _with_own_outputs(graph)
    w = _Writing(opset)
    w.taken.update(value.name for value in (*graph.inputs, *arrays))
    w.names.update({value: value.name for value in graph.inputs})
    for value, array in arrays.items():
        w.names[value] = w.add_array(value.name, array)
    for node in graph.nodes:
        _write_node(w, node)
    renames = {}
    for i, value in enumerate(graph.outputs):
        stem = called[i] if called else "output" if len(graph.outputs) == 1 else f"output_{i}"
        renames[w.names[value]] = stem if stem not in w.taken else w.fresh(stem)
    for proto in w.nodes:
        for names in (proto.input, proto.output):
            for i, name in enumerate(names):
                names[i] = renames.get(name, name)
    inputs = [_value_info(value, value.name, "N") for value in graph.inputs]
    outputs = [_value_info(value, renames[w.names[value]], "N") for value in graph.outputs]
    body = helper.make_graph(w.nodes, "nnlite", inputs, outputs, w.initializers)
    version = max(IR_VERSION, helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))
    return helper.make_model(
        body, opset_imports=[helper.make_opsetid("", opset)], producer_name="nnlite", ir_version=version
    )


def _with_own_outputs(graph: Graph) -> Graph:
    """The graph with a node of its own behind each output: not an input, a constant, or another output."""
    nodes, outputs = list(graph.nodes), []
    for value in graph.outputs:
        if value.node is None or value in outputs:
            copy = Value(name=f"{value.name}.copy", type=value.type)
            nodes.append(make_node("identity", [value], {}, [copy], copy.name))
            value = copy
        outputs.append(value)
    return replace(graph, nodes=tuple(nodes), outputs=tuple(outputs))


def _write_node(w: _Writing, node: Node) -> None:
    if node.op.writes is None:
        raise ModelError(f"{node.op.name} is a training-time operation and has no place in an ONNX file")
    w.op = node.op.name
    names = node.op.writes(w, node)
    for value, name in zip(node.outputs, [names] if isinstance(names, str) else names, strict=True):
        w.names[value] = name


def _value_info(value: Value, name: str, batch: str) -> onnx.ValueInfoProto:
    assert value.type is not None
    kind = helper.np_dtype_to_tensor_dtype(value.type.dtype)
    sizes: list[int | str] = list(value.type.shape)
    if sizes:
        sizes[0] = batch
    return helper.make_tensor_value_info(name, kind, sizes)
