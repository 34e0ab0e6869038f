"""Reading a model: names become values, nodes become nodes of nnlite's ops, in the file's order.

What is checked here holds for all operators: names, types, versions, attributes that no reader looked
at, sizes. Functions are read where they are called; a branch of If that is known is read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnlite.errors import ModelError, NnliteError
from nnlite.graph import make_node
from nnlite.graph.module import Sizes
from nnlite.graph.sequences import SEQUENCE
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.onnx import control
from nnlite.onnx.definitions import definition, schema_defaults
from nnlite.onnx.files import Source
from nnlite.onnx.fold import folded
from nnlite.onnx.functions import DOMAINS, Functions
from nnlite.onnx.legacy import modernise
from nnlite.onnx.origin import MALFORMED, Origin, Problem
from nnlite.onnx.proto import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
)
from nnlite.onnx.schema import check_node
from nnlite.onnx.schemas import newest_opset
from nnlite.onnx.scope import Scope
from nnlite.onnx.tensors import declared_sizes, dense_array_of, element_type, is_half
from nnlite.onnx.types import check_kinds, result_kinds
from nnlite.onnx.view import NodeView
from nnlite.ops import READERS, ArrayType

OLDEST_OPSET = 1


class Reading:
    """The state of reading one model."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.origin = Origin(source.model, data=source.data, places=source.places())
        version = self.version_of(source.model.opset_import, 0)
        newest = newest_opset(version)
        if not OLDEST_OPSET <= version <= newest:
            raise ModelError(
                f"{source}: operator set {version} is not supported (only {OLDEST_OPSET} to {newest}); "
                "export the model anew, for example with opset 17"
            )
        self.functions = Functions(source.model, str(source))
        self.scope = Scope(version)
        self.arrays: dict[Value, Array] = {}
        self.foldable: set[Value] = set()
        self.kinds: dict[Value, int] = {}
        self.ranks: dict[Value, int] = {}
        self.nodes: list[Node] = []
        self.problems: list[Problem] = []
        self._names: set[str] = set()
        self._declared = {
            entry.name: len(entry.type.tensor_type.shape.dim)
            for entry in (*source.model.graph.value_info, *source.model.graph.output)
            if entry.type.tensor_type.HasField("shape")
        }

    @staticmethod
    def version_of(imports: Sequence[OperatorSetIdProto], default: int) -> int:
        """The version of ONNX's own operator set among ``imports``."""
        return next((o.version for o in imports if o.domain in DOMAINS), default)

    # -------------------------------------------------------------------------------- leaves

    def read_leaves(self) -> tuple[list[Value], list[Sizes]]:
        """The graph's constants and inputs."""
        graph = self.source.model.graph
        self.read_constants(graph)
        inputs: list[Value] = []
        sizes: list[Sizes] = []
        for entry in graph.input:
            # Before IR version 4 initializers are listed as inputs too.
            if self.scope.values.get(entry.name) in self.arrays:
                continue
            value = self.define(entry.name, None)
            if entry.type.HasField("sequence_type") or entry.type.HasField("optional_type"):
                value.type = SEQUENCE
                inputs.append(value)
                sizes.append(())
                continue
            kind = entry.type.tensor_type.elem_type
            value.type = ArrayType((), self._input_dtype(entry))
            self.kinds[value] = kind
            if entry.type.tensor_type.HasField("shape") and len(entry.type.tensor_type.shape.dim):
                self.ranks[value] = len(entry.type.tensor_type.shape.dim)
            inputs.append(value)
            sizes.append(declared_sizes(entry))
        return inputs, sizes

    def read_constants(self, graph: GraphProto) -> None:
        """The initializers of ``graph``, in the current scope."""
        for sparse in graph.sparse_initializer:
            value = self.define(sparse.values.name, dense_array_of(sparse))
            self.kinds[value] = sparse.values.data_type
        for tensor, array in self.source.initializers(graph):
            value = self.define(tensor.name, array)
            self.kinds[value] = tensor.data_type
            if tensor.data_location == TensorProto.EXTERNAL and self.scope.outer is None:
                self.origin.external[tensor.name] = array

    def _input_dtype(self, entry: ValueInfoProto) -> np.dtype[Any]:
        where = f"{self.source}: input {entry.name}"
        if not entry.type.HasField("tensor_type"):
            raise ModelError(f"{where} is not a tensor")
        dtype = element_type(entry.type.tensor_type.elem_type, where)
        return np.dtype(np.float32) if is_half(dtype) else dtype

    def define(self, name: str, array: Array | None) -> Value:
        """A new leaf called ``name`` in the current scope."""
        if name in self.scope.values:
            raise ModelError(f"{self.source}: the name {name!r} is defined twice")
        value = self.scope.values[name] = Value(name=self.unique(self.scope.prefix + name))
        if array is not None:
            self.arrays[value] = array
            if array.dtype.kind != "f":  # shapes, axes, indices: never trained
                self.foldable.add(value)
        return value

    def unique(self, name: str) -> str:
        """``name``, or that with a number where another scope has one of the same name."""
        count, candidate = 1, name
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    def value(self, name: str) -> Value | None:
        """The value called ``name``; None for an absent optional input."""
        if not name:
            return None
        try:
            return self.scope.find(name)
        except KeyError:
            raise ModelError(f"{self.source}: {name!r} is used before anything computes it") from None

    def _at_top(self) -> bool:
        """Whether names are the file's own: neither in a function nor in a branch."""
        return self.scope.outer is None and not self.scope.in_function

    def rank(self, value: Value) -> int | None:
        """The number of axes of ``value``, where the file tells it."""
        return self.arrays[value].ndim if value in self.arrays else self.ranks.get(value)

    @contextmanager
    def within(self, scope: Scope) -> Iterator[Scope]:
        """Read in ``scope`` for the duration of the block."""
        before, self.scope = self.scope, scope
        try:
            yield scope
        finally:
            self.scope = before

    # --------------------------------------------------------------------------------- nodes

    def read_nodes(self, protos: Sequence[NodeProto]) -> None:
        """Nodes one by one; what is not supported gathers in ``problems``."""
        for index, proto in enumerate(protos):
            before = len(self.nodes)
            try:
                results = self._read(proto, index)
            except NnliteError as error:
                del self.nodes[before:]
                name = self.scope.prefix + (proto.name or (proto.output[0] if proto.output else "?"))
                self.problems.append(Problem(proto.op_type, proto.domain, name, str(error)))
                results = [Value() for _ in proto.output]  # go on, to find all problems at once
            for name, value in zip(proto.output, results, strict=False):
                if not name:
                    continue
                if name in self.scope.values:
                    raise ModelError(f"{self.source}: the name {name!r} is defined twice")
                if value is not None and value.node is not None and self._at_top():
                    value.name = self.unique(name)
                    if name in self._declared:
                        self.ranks.setdefault(value, self._declared[name])
                self.scope.values[name] = value

    def _read(self, proto: NodeProto, index: int) -> Sequence[Value | None]:
        if (function := self.functions.find(proto)) is not None:
            return self._call(proto, function, self._attributes(proto))
        if proto.domain not in DOMAINS:
            raise ModelError(f"operators of domain {proto.domain!r} are not supported")
        attributes, version = self._attributes(proto), self.scope.version
        if proto.op_type in control.READERS:
            return self._checked(proto, attributes, control.READERS[proto.op_type], index)
        if proto.op_type == "Constant":
            return self._checked(proto, attributes, None, index)
        if proto.op_type not in READERS:
            if (body := self._definition(proto, attributes)) is not None:
                return self._call(proto, body, schema_defaults(proto.op_type, version) | attributes)
            raise ModelError(f"not supported (operator set {version})")
        return self._checked(proto, attributes, READERS[proto.op_type][1], index)

    def _attributes(self, proto: NodeProto) -> dict[str, AttributeProto]:
        """The attributes by name; within a function references are replaced by what it was called with."""
        if not self.scope.in_function:
            return {attribute.name: attribute for attribute in proto.attribute}
        found = {}
        for attribute in proto.attribute:
            if not attribute.ref_attr_name:
                found[attribute.name] = attribute
            elif attribute.ref_attr_name in self.scope.attributes:
                given = AttributeProto()
                given.CopyFrom(self.scope.attributes[attribute.ref_attr_name])
                given.name = attribute.name
                found[attribute.name] = given
        return found

    def _checked(
        self, proto: NodeProto, attributes: Mapping[str, AttributeProto], reader: Any, index: int
    ) -> list[Value]:
        version, view = (
            self.scope.version,
            NodeView(self, proto, attributes, self.scope.version, self.scope.prefix),
        )
        check_node(proto, version, attributes)
        kinds = [None if value is None else self.kinds.get(value) for value in view.inputs]
        check_kinds(proto.op_type, version, [value is not None for value in view.inputs], kinds)
        try:
            if reader is None:
                result: Any = self._constant(view, proto, attributes, index)
            else:
                modernise(view)
                result = reader(view)
        except NnliteError:  # some are ValueErrors too
            raise
        except MALFORMED as error:
            raise ModelError(f"malformed: {type(error).__name__}: {error}") from error
        if reader is not None and (unread := view.unread()):
            raise ModelError(f"attribute {', '.join(unread)} is not understood (operator set {version})")
        results = list(result) if isinstance(result, tuple) else [result]
        if view.outputs > len(results):
            raise ModelError(f"{view.outputs} outputs are asked for, {len(results)} are supported")
        if reader is not None:
            results = self._fresh(results[: len(proto.output)], view)
        self.nodes.extend(view.made)
        for value, kind in zip(results, result_kinds(proto, version, kinds, attributes), strict=False):
            if kind is not None:
                self.kinds.setdefault(value, kind)
        return results

    def _fresh(self, values: Sequence[Value], view: NodeView) -> list[Value]:
        """A file may name one value twice (Identity of a leaf, a folded result); one name, one value."""
        result: list[Value] = []
        for value in values:
            if value.node is None or value.node not in view.made or value in result:
                alias = Value(name=value.name)
                self.copy_kind(value, alias)
                if value in self.arrays and value in self.foldable:
                    self.arrays[alias] = self.arrays[value]
                    self.foldable.add(alias)
                else:
                    view.made.append(make_node("identity", [value], {}, [alias], view.name))
                value = alias
            result.append(value)
        return result

    def _constant(
        self,
        view: NodeView,
        proto: NodeProto,
        attributes: Mapping[str, AttributeProto],
        index: int,
    ) -> Value:
        name = proto.output[0]
        for kind, dtype in (("value_float", np.float32), ("value_floats", np.float32),
                            ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
            if (number := view.attribute(kind)) is not None:
                array = np.asarray(number, dtype)
                code: int = TensorProto.FLOAT if array.dtype.kind == "f" else TensorProto.INT64
                break
        else:
            if "sparse_value" in attributes:
                sparse = attributes["sparse_value"].sparse_tensor
                array, code = dense_array_of(sparse), sparse.values.data_type
            elif "value" in attributes:
                tensor = attributes["value"].t
                array, code = self.source.array(tensor), tensor.data_type
                if tensor.data_location == TensorProto.EXTERNAL:
                    self.origin.external[name] = array
            else:
                raise ModelError("only numbers are supported as constants")
        value = Value(name=self.scope.prefix + name)
        self.arrays[value] = array
        self.kinds[value] = code
        if array.dtype.kind != "f" or array.size == 1:  # larger ones may be weights, which training changes
            self.foldable.add(value)
        if self._at_top():
            self.origin.constants[name] = index
        else:
            value.name = self.unique(value.name)
        return value

    # ------------------------------------------------------------------ functions and branches

    def read_graph(
        self, graph: GraphProto, prefix: str, given: Sequence[Value | None]
    ) -> tuple[list[Value], list[Node], list[Value]]:
        """Inputs, nodes and outputs of a graph within a node."""
        outer = self.scope
        scope = Scope(outer.version, outer, prefix, outer.attributes, outer.in_function)
        nodes, self.nodes = self.nodes, []
        problems = len(self.problems)
        try:
            with self.within(scope):
                self.read_constants(graph)
                formals = self._formals(graph, given)
                self.read_nodes(graph.node)
                outputs = [self.value(entry.name) for entry in graph.output]
        finally:
            inner, self.nodes = self.nodes, nodes
        if len(self.problems) > problems:
            raise ModelError("the graph within it holds nodes that are not supported")
        if any(value is None for value in outputs):
            raise ModelError("malformed: an output of the graph within it has no name")
        return formals, inner, [value for value in outputs if value is not None]

    def _formals(self, graph: GraphProto, given: Sequence[Value | None]) -> list[Value]:
        """The inputs of a graph within a node."""
        formals = []
        for i, entry in enumerate(graph.input):
            formal = self.define(entry.name, None)
            operand = given[i] if i < len(given) else None
            if kind := entry.type.tensor_type.elem_type:
                self.kinds[formal] = kind
            elif operand is not None:
                self.copy_kind(operand, formal)
            formals.append(formal)
        return formals

    def _call(
        self,
        proto: NodeProto,
        function: FunctionProto,
        attributes: Mapping[str, AttributeProto],
    ) -> list[Value | None]:
        """Read a function's body in the place of the node that calls it."""
        if len(proto.input) > len(function.input) or len(proto.output) > len(function.output):
            raise ModelError(
                f"malformed: it has {len(proto.input)} inputs and {len(proto.output)} outputs but the "
                f"function takes {len(function.input)} and has {len(function.output)}"
            )
        given = {a.name: a for a in function.attribute_proto} | dict(attributes)
        if unknown := set(attributes) - {*function.attribute, *(a.name for a in function.attribute_proto)}:
            raise ModelError(f"malformed: the function has no attribute {', '.join(sorted(unknown))}")
        name = proto.name or next(iter(proto.output), proto.op_type)
        version = self.version_of(function.opset_import, self.scope.version)
        scope = Scope(version, None, f"{self.scope.prefix}{name}/", given, True)
        for i, formal in enumerate(function.input):
            scope.values[formal] = self.value(proto.input[i]) if i < len(proto.input) else None
        problems = len(self.problems)
        with self.within(scope):
            self.read_nodes(function.node)
            if len(self.problems) > problems:
                return [Value() for _ in proto.output]
            pairs = zip(function.output, proto.output, strict=False)
            return [self.value(inner) if outer else None for inner, outer in pairs]

    def _definition(self, proto: NodeProto, attributes: Mapping[str, AttributeProto]) -> FunctionProto | None:
        """ONNX's own definition of an operator by simpler ones, where there is one."""
        values = [self.value(name) for name in proto.input]
        kinds = [None if value is None else self.kinds.get(value) for value in values]
        version = self.scope.version
        ranks = [None if value is None else self.rank(value) for value in values]
        body = definition(proto, version, attributes, kinds, ranks)
        if body is not None:
            check_node(proto, version, attributes)
            check_kinds(proto.op_type, version, [value is not None for value in values], kinds)
        return body

    def copy_kind(self, value: Value, other: Value) -> None:
        """Say of ``other`` that it has the element type of ``value``."""
        if value in self.kinds:
            self.kinds[other] = self.kinds[value]

    def fold(
        self, op: str, inputs: Sequence[Value | None], params: Mapping[str, Any]
    ) -> tuple[Array, ...] | None:
        """The results when everything is a constant that training will never change, and small."""
        if any(value is not None and value not in self.foldable for value in inputs):
            return None
        return folded(op, [None if value is None else self.arrays[value] for value in inputs], params)
