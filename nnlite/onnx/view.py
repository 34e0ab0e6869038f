"""One node of a file as an op's reader sees it (``nnlite.ops.record.OnnxNode``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.errors import ModelError, NnliteError
from nnlite.graph import make_node
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.onnx.proto import AttributeProto, GraphProto, NodeProto, TensorProto
from nnlite.onnx.schema import LISTS
from nnlite.onnx.tensors import array_of
from nnlite.ops import ArrayType

if TYPE_CHECKING:
    from nnlite.onnx.reading import Reading

FIELDS: dict[int, str] = {
    AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t", AttributeProto.GRAPH: "g", AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp", AttributeProto.FLOATS: "floats", AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings", AttributeProto.TENSORS: "tensors", AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors", AttributeProto.TYPE_PROTOS: "type_protos",
}  # fmt: skip
"""Where an attribute of each type has its value."""


class NodeView:
    """Inputs, attributes and constants of one node; what is emitted for it gathers in ``made``."""

    def __init__(
        self,
        reading: Reading,
        proto: NodeProto,
        attributes: Mapping[str, AttributeProto],
        version: int,
        prefix: str,
    ) -> None:
        self._reading = reading
        self._attributes = attributes
        self._looked_at: set[str] = set()
        self.op_type = proto.op_type
        self.version = version
        self.inputs = tuple(reading.value(name) for name in proto.input)
        self.outputs = len(proto.output)
        while self.outputs and not proto.output[self.outputs - 1]:
            self.outputs -= 1
        self.name = prefix + (proto.name or (proto.output[0] if proto.output else proto.op_type))
        self.made: list[Node] = []

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute as a Python value, or ``default``."""
        self._looked_at.add(name)
        if name not in self._attributes:
            return default
        given = self._attributes[name]
        value = getattr(given, FIELDS[given.type])
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, TensorProto):
            return array_of(value)
        if isinstance(value, (int, float)):
            return value
        return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value)

    def unread(self) -> list[str]:
        """Attributes that no reader asked for: something about this node was not understood."""
        return sorted(set(self._attributes) - self._looked_at)

    def input(self, index: int) -> Value | None:
        """Input ``index``; None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int) -> Array | None:
        """The array behind input ``index``, where known at load time."""
        value = self.input(index)
        return None if value is None else self._reading.arrays.get(value)

    def host(self, index: int, default: Any = None) -> Any:
        """Input ``index`` as a param: a tuple or number where known, else the Value to read at run time."""
        value = self.input(index)
        if value is None:
            return default
        array = self._reading.arrays.get(value)
        listed = index in LISTS.get(self.op_type, ())
        if array is None:
            if listed and self.rank(index) != 1:  # a number stands for a list of one
                listed_value: Value = self.emit("reshape", value, shape=(-1,))
                listed_value.name = value.name
                return listed_value
            return value
        if listed:
            if array.ndim > 1:
                raise self.refuse(
                    f"malformed: input {index} has shape {list(array.shape)} but must be a list"
                )
            return tuple(array.reshape(-1).tolist())
        return tuple(array.tolist()) if array.ndim else array.item()

    def scalar(self, index: int, default: Any = None) -> Any:
        """Like :meth:`host`, for an input that holds one number in whatever shape."""
        value, array = self.input(index), self.constant(index)
        if value is None:
            return default
        if array is None:
            return value if self.rank(index) == 0 else self.emit("reshape", value, shape=())
        if array.size != 1:
            raise self.refuse(f"malformed: input {index} has {array.size} elements but must be one number")
        return array.item()

    def array(self, value: Value) -> Array | None:
        """The array behind any value, where known at load time."""
        return self._reading.arrays.get(value)

    def known(self, value: Value | None) -> ArrayType | None:
        """Shape and type of a constant."""
        array = None if value is None else self._reading.arrays.get(value)
        return None if array is None else ArrayType(array.shape, array.dtype)

    def rank(self, index: int) -> int | None:
        """The number of axes of input ``index``, where the file tells it."""
        value = self.input(index)
        return None if value is None else self._reading.rank(value)

    def kind(self, index: int) -> int | None:
        """ONNX's code of the element type of input ``index``, where known."""
        value = self.input(index)
        return None if value is None else self._reading.kinds.get(value)

    def emit(self, op: str, *inputs: Value | None, outputs: int = 1, **params: Any) -> Any:
        """Add a node, or compute it at once where all is constant; the Value or the tuple of Values."""
        folded = self._reading.fold(op, inputs, params)
        if folded is not None:
            leaves = tuple(self.leaf(array) for array in folded)
            return leaves[0] if len(leaves) == 1 and outputs == 1 else leaves
        names = [f"{self.name}:{len(self.made)}"]
        if outputs > 1:
            names = [f"{names[0]}.{i}" for i in range(outputs)]
        results = tuple(Value(name=name) for name in names)
        self.made.append(make_node(op, inputs, params, results, self.name))
        return results[0] if outputs == 1 else results

    def add_node(self, node: Node) -> None:
        """Add a node that is no op of the registry (control flow)."""
        self.made.append(node)

    def copy_kind(self, value: Value, other: Value) -> None:
        """Say of ``other`` that it has the element type of ``value``."""
        self._reading.copy_kind(value, other)

    def graph(self, name: str) -> GraphProto:
        """The graph that an attribute holds."""
        self._looked_at.add(name)
        return self._attributes[name].g

    def look_at(self, name: str) -> None:
        """Say that the attribute, of whatever kind, is understood."""
        self._looked_at.add(name)

    def read_graph(
        self, graph: GraphProto, given: Sequence[Value | None] = ()
    ) -> tuple[list[Value], list[Node], list[Value]]:
        """Inputs, nodes and outputs of a graph within this node, which sees all names that are known here.

        Inputs of which the file does not say the element type have those of ``given``.
        """
        return self._reading.read_graph(graph, f"{self.name}/", given)

    def leaf(self, array: Array) -> Value:
        """A constant."""
        value = Value(name=f"{self.name}:constant_{len(self._reading.arrays)}")
        self._reading.arrays[value] = np.asarray(array)
        self._reading.foldable.add(value)
        return value

    def refuse(self, reason: str) -> NnliteError:
        """The error that says why this node is not supported; raise it."""
        return ModelError(reason)
