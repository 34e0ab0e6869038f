"""ONNX in: a model file becomes a graph of the same ops that the rest of nnlite uses.

Right, or a clear refusal. Each op's record reads its own ONNX operators (``Op.reads``); what is
checked here holds for all of them: operator versions, attributes that no reader looked at, names,
order, sizes. Everything unsupported is collected, so that one error lists it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nnlite.errors import ModelError, NnliteError
from nnlite.graph import Graph, GraphModule, make_node
from nnlite.graph.module import Sizes
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.onnx.files import Source, parse
from nnlite.onnx.schema import LISTS, check_node
from nnlite.onnx.tensors import array_of, check_budget, element_type, is_half
from nnlite.ops import OPS, READERS, ArrayType, Context

OLDEST_OPSET = 7
"""Before operator set 7 broadcasting and batch normalisation meant something else."""
FOLD_LIMIT = 1 << 16
"""Constant results up to this many elements are computed while reading."""


MALFORMED = (TypeError, ValueError, LookupError, ArithmeticError)
"""What NumPy and Python raise where a file's numbers make no sense, such as a shape of three axes."""


@dataclass(frozen=True)
class Problem:
    """One node that cannot be read, and why."""

    op_type: str
    domain: str
    node: str
    reason: str

    def __str__(self) -> str:
        operator = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        return f"{operator} ({self.node}): {self.reason}"


@dataclass
class Origin:
    """What a graph was read from, kept untouched for writing it back."""

    model: onnx.ModelProto
    constants: dict[str, int] = field(default_factory=dict)
    """Name of a tensor that a Constant node holds -> index of that node."""
    external: dict[str, Array] = field(default_factory=dict)
    """Tensors that lie in other files, as they are there."""

    @property
    def metadata(self) -> dict[str, str]:
        """The file's ``metadata_props``."""
        return {entry.key: entry.value for entry in self.model.metadata_props}


class _NodeView:
    """One node of the file as an op's reader sees it (``ops.record.OnnxNode``)."""

    def __init__(self, reading: _Reading, proto: onnx.NodeProto) -> None:
        self._reading = reading
        self._proto = proto
        self._attributes = {a.name: a for a in proto.attribute}
        self._looked_at: set[str] = set()
        self.op_type = proto.op_type
        self.version = reading.opset
        self.inputs = tuple(reading.value(name) for name in proto.input)
        self.outputs = sum(bool(name) for name in proto.output)
        self.name = proto.name or (proto.output[0] if proto.output else proto.op_type)
        self.made: list[Node] = []

    def attribute(self, name: str, default: Any = None) -> Any:
        self._looked_at.add(name)
        if name not in self._attributes:
            return default
        value = onnx.helper.get_attribute_value(self._attributes[name])
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, onnx.TensorProto):
            return array_of(value)
        return value if isinstance(value, (int, float)) else tuple(value)

    def unread(self) -> list[str]:
        """Attributes that no reader asked for: something about this node was not understood."""
        return sorted(set(self._attributes) - self._looked_at)

    def constant(self, index: int) -> Array | None:
        value = self.inputs[index] if index < len(self.inputs) else None
        return None if value is None else self._reading.arrays.get(value)

    def host(self, index: int, default: Any = None) -> Any:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            return default
        array = self._reading.arrays.get(value)
        if array is None:
            return value
        if index in LISTS.get(self.op_type, ()):
            if array.ndim > 1:
                raise self.refuse(
                    f"malformed: input {index} has shape {list(array.shape)} but must be a list"
                )
            return tuple(array.reshape(-1).tolist())
        return tuple(array.tolist()) if array.ndim else array.item()

    def known(self, value: Value | None) -> ArrayType | None:
        array = None if value is None else self._reading.arrays.get(value)
        return None if array is None else ArrayType(array.shape, array.dtype)

    def emit(self, op: str, *inputs: Value | None, **params: Any) -> Any:
        folded = self._reading.fold(op, inputs, params)
        if folded is not None:
            return self.leaf(folded)
        outputs = (Value(name=f"{self.name}:{len(self.made)}"),)
        self.made.append(make_node(op, inputs, params, outputs, self.name))
        return outputs[0]

    def leaf(self, array: Array) -> Value:
        value = Value(name=f"{self.name}:constant_{len(self._reading.arrays)}")
        self._reading.arrays[value] = array
        self._reading.foldable.add(value)
        return value

    def refuse(self, reason: str) -> NnliteError:
        return ModelError(reason)


class _Reading:
    """The state of reading one model."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.origin = Origin(source.model)
        self.opset = 0
        self.values: dict[str, Value] = {}
        self.arrays: dict[Value, Array] = {}
        self.foldable: set[Value] = set()
        self.nodes: list[Node] = []
        self.problems: list[Problem] = []

    # -------------------------------------------------------------------------- the file

    def check_opset(self) -> None:
        model = self.source.model
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST_OPSET <= self.opset <= newest:
            raise ModelError(
                f"{self.source}: operator set {self.opset} is not supported (only {OLDEST_OPSET} to "
                f"{newest}); export the model anew, for example with opset 17"
            )

    def read_leaves(self) -> tuple[list[Value], list[Sizes]]:
        graph = self.source.model.graph
        if graph.sparse_initializer:
            raise ModelError(f"{self.source}: sparse initializers are not supported")
        for tensor in graph.initializer:
            array = self.source.array(tensor)
            self._define(tensor.name, array)
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                self.origin.external[tensor.name] = array
        inputs, sizes = [], []
        for entry in graph.input:
            # Before IR version 4 initializers are listed as inputs too.
            if self.values.get(entry.name) in self.arrays:
                continue
            value = self._define(entry.name, None)
            value.type = ArrayType((), self._input_dtype(entry))
            inputs.append(value)
            sizes.append(declared_sizes(entry))
        return inputs, sizes

    def _input_dtype(self, entry: onnx.ValueInfoProto) -> np.dtype[Any]:
        if not entry.type.HasField("tensor_type"):
            raise ModelError(f"{self.source}: input {entry.name} is not a tensor")
        dtype = element_type(entry.type.tensor_type.elem_type, f"{self.source}: input {entry.name}")
        return np.dtype(np.float32) if is_half(dtype) else dtype

    def _define(self, name: str, array: Array | None) -> Value:
        if name in self.values:
            raise ModelError(f"{self.source}: the name {name!r} is defined twice")
        value = self.values[name] = Value(name=name)
        if array is not None:
            self.arrays[value] = array
            if array.dtype.kind != "f":  # shapes, axes, indices: never trained
                self.foldable.add(value)
        return value

    def value(self, name: str) -> Value | None:
        """The value called ``name``; None for an absent optional input."""
        if not name:
            return None
        if name not in self.values:
            raise ModelError(f"{self.source}: {name!r} is used before anything computes it")
        return self.values[name]

    # --------------------------------------------------------------------------- the nodes

    def read_node(self, proto: onnx.NodeProto, index: int) -> None:
        view: _NodeView | None = None
        try:
            view = _NodeView(self, proto)
            results = self._read(view, proto, index)
        except NnliteError as error:
            name = proto.name or (proto.output[0] if proto.output else "?")
            self.problems.append(Problem(proto.op_type, proto.domain, name, str(error)))
            results = [Value() for _ in proto.output]  # go on, to find all problems at once
            view = None
        for name, value in zip(proto.output, results, strict=False):
            if not name:
                continue
            if name in self.values:
                raise ModelError(f"{self.source}: the name {name!r} is defined twice")
            if value.node is not None:
                value.name = name
            self.values[name] = value
        if view is not None:
            self.nodes.extend(view.made)

    def _read(self, view: _NodeView, proto: onnx.NodeProto, index: int) -> list[Value]:
        if proto.domain not in ("", "ai.onnx"):
            raise ModelError(f"operators of domain {proto.domain!r} are not supported")
        if proto.op_type not in READERS and proto.op_type != "Constant":
            raise ModelError(f"not supported (operator set {self.opset})")
        check_node(proto, self.opset, [None if v is None else self.arrays.get(v) for v in view.inputs])
        if proto.op_type == "Constant":
            return [self._read_constant(view, proto, index)]
        try:
            result = READERS[proto.op_type][1](view)
        except NnliteError:  # some are ValueErrors too
            raise
        except MALFORMED as error:
            raise ModelError(f"malformed: {type(error).__name__}: {error}") from error
        if unread := view.unread():
            raise ModelError(f"attribute {', '.join(unread)} is not understood (operator set {self.opset})")
        results = list(result) if isinstance(result, tuple) else [result]
        if view.outputs > len(results):
            raise ModelError(f"{view.outputs} outputs are asked for, {len(results)} are supported")
        # A file may name one value twice (Identity of a leaf, a folded result); one name, one value.
        return [self._fresh(value, view) for value in results]

    def _fresh(self, value: Value, view: _NodeView) -> Value:
        if value.node is not None and value.node in view.made:
            return value
        alias = Value(name=value.name)
        if value in self.arrays and value in self.foldable:
            self.arrays[alias] = self.arrays[value]
            self.foldable.add(alias)
            return alias
        view.made.append(make_node("identity", [value], {}, [alias], view.name))
        return alias

    def _read_constant(self, view: _NodeView, proto: onnx.NodeProto, index: int) -> Value:
        name = proto.output[0]
        for kind, dtype in (("value_float", np.float32), ("value_floats", np.float32),
                            ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
            if (number := view.attribute(kind)) is not None:
                array = np.asarray(number, dtype)
                break
        else:
            tensor = next((a.t for a in proto.attribute if a.name == "value"), None)
            if tensor is None:
                raise ModelError("only numbers are supported as constants")
            array = self.source.array(tensor)
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                self.origin.external[name] = array
        value = Value(name=name)
        self.arrays[value] = array
        if array.dtype.kind != "f" or array.size == 1:  # larger ones may be weights, which training changes
            self.foldable.add(value)
        self.origin.constants[name] = index
        return value

    def fold(self, op: str, inputs: Sequence[Value | None], params: Mapping[str, Any]) -> Array | None:
        """The result when everything is a constant that training will never change, and small."""
        if any(isinstance(param, Value) for param in params.values()):
            return None
        if (
            any(value is not None and value not in self.foldable for value in inputs)
            or OPS[op].layout != "any"
        ):
            return None
        operands = [None if value is None else self.arrays[value] for value in inputs]
        types = [None if a is None else ArrayType(a.shape, a.dtype) for a in operands]
        (result_type,) = OPS[op].output_types(types, params)
        check_budget(f"the result of {op}", result_type.shape, result_type.dtype)
        if math.prod(result_type.shape) > FOLD_LIMIT:
            return None
        with np.errstate(all="ignore"):
            result = OPS[op].forward(Context(params, (False,) * len(operands)), *operands, **params)
        assert isinstance(result, np.ndarray)
        return result


def declared_sizes(entry: onnx.ValueInfoProto) -> Sizes:
    """Sizes that an input or output declares; None for a symbol, nothing, 0 or Paddle's -1."""
    dims = entry.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def read(model: str | Path | bytes | onnx.ModelProto) -> tuple[GraphModule | None, Origin, list[Problem]]:
    """The model as a module, where it came from, and what is not supported (then there is no module).

    Raises ModelError when the file cannot be read at all.
    """
    source = parse(model)
    reading = _Reading(source)
    reading.check_opset()
    proto = source.model.graph
    inputs, sizes = reading.read_leaves()
    for index, node in enumerate(proto.node):
        reading.read_node(node, index)
    if reading.problems:
        return None, reading.origin, reading.problems
    outputs = []
    for entry in proto.output:
        value = reading.value(entry.name)
        if value is None:
            raise ModelError(f"{source}: an output has no name")
        outputs.append(value)
    if not outputs:
        raise ModelError(f"{source}: the model has no outputs")
    graph = Graph(tuple(inputs), tuple(outputs), tuple(reading.nodes), reading.arrays)
    graph = graph.between(graph.inputs, graph.outputs)
    module = GraphModule(graph, input_sizes=sizes, origin=reading.origin)
    module.eval()
    return module, reading.origin, []


def load(
    model: str | Path | bytes | onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
) -> GraphModule:
    """Read an ONNX model (a path, its bytes or a ModelProto) as a module, in evaluation mode.

    Parameters are named as in the file. ``input_shapes`` replaces declared sizes (None: any).
    Raises ModelError when the file cannot be read, naming every node that is not supported.
    """
    module, _, problems = read(model)
    if module is None:
        listed = "\n  ".join(map(str, problems[:50]))
        more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
        what = model if isinstance(model, (str, Path)) else "the model"
        raise ModelError(f"{what}: {len(problems)} nodes are not supported:\n  {listed}{more}")
    if input_shapes is not None:
        if unknown := set(input_shapes) - set(module.inputs):
            raise ModelError(f"input_shapes names {sorted(unknown)}; the inputs are {list(module.inputs)}")
        assert module.input_sizes is not None
        module.input_sizes = tuple(
            tuple(input_shapes[name]) if name in input_shapes else sizes
            for name, sizes in zip(module.inputs, module.input_sizes, strict=True)
        )
    return module
