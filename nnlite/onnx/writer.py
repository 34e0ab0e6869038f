"""ONNX out: a model that was read is patched, any other module is traced and serialised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nnlite.errors import ModelError, NnliteError
from nnlite.files import write_atomically
from nnlite.graph import GraphModule, infer_types, make_node, trace
from nnlite.graph.ir import Graph
from nnlite.layout import Array
from nnlite.nn import Module
from nnlite.node import Node, Value
from nnlite.onnx.inspect import concrete_sizes
from nnlite.onnx.reader import Origin
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

DEFAULT_OPSET = 17
OLDEST_OPSET = 13
IR_VERSION = 8
"""What operator set 17 came with; older runtimes refuse files that claim to be newer than they are."""


def save(
    module: Module,
    path: str | Path,
    *,
    inputs: Sequence[Tensor | Array] | None = None,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    input_sizes: Sequence[Sequence[int | str | None]] | None = None,
) -> None:
    """Write ``module`` as an ONNX file, checked and then moved into place.

    A module that was read from ONNX is written back with only what changed: trained tensors, the
    head, ``metadata`` and, if given, the declared ``input_sizes``; one that did not change gives the same
    bytes (tensors in other files move into the file). Any other module needs example
    ``inputs`` to be traced with; the first axis becomes dynamic.
    Raises ModelError when the module cannot be expressed or the file cannot be written.
    """
    model = _model(module, inputs, opset, metadata, input_sizes)
    origin = module.origin if isinstance(module, GraphModule) else None
    if isinstance(origin, Origin) and origin.data is not None and model == origin.model:
        data = origin.data  # unchanged: the very bytes that were read
    else:
        data = model.SerializeToString()
    del model  # the checker makes one of its own
    _check(data)
    write_atomically(Path(path), data)


def to_model(
    module: Module,
    *,
    inputs: Sequence[Tensor | Array] | None = None,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    input_sizes: Sequence[Sequence[int | str | None]] | None = None,
) -> onnx.ModelProto:
    """The ModelProto that :func:`save` writes."""
    model = _model(module, inputs, opset, metadata, input_sizes)
    _check(model)
    return model


def _check(model: onnx.ModelProto | bytes) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the ONNX checker refuses the model: {error}") from error


def _model(
    module: Module,
    inputs: Sequence[Tensor | Array] | None,
    opset: int | None,
    metadata: Mapping[str, str] | None,
    input_sizes: Sequence[Sequence[int | str | None]] | None,
) -> onnx.ModelProto:
    if isinstance(module, GraphModule) and isinstance(module.origin, Origin):
        if opset is not None:
            raise ModelError("a model that was read from ONNX keeps its operator set; leave opset out")
        model = _patched(module, module.origin)
    else:
        if inputs is None:
            raise ModelError("to write a module as ONNX, give example inputs to trace it with")
        model = _serialised(module, inputs, opset or DEFAULT_OPSET)
    for key, value in (metadata or {}).items():
        entry = next((e for e in model.metadata_props if e.key == key), None) or model.metadata_props.add(
            key=key
        )
        entry.value = value
    for entry, sizes in zip(model.graph.input, input_sizes or (), strict=False):
        _set_sizes(entry, sizes)
    return model


def _set_sizes(entry: onnx.ValueInfoProto, sizes: Sequence[int | str | None]) -> None:
    shape = entry.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        dim = shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size


# ----------------------------------------------------------------------- a model that was read


def _patched(module: GraphModule, origin: Origin) -> onnx.ModelProto:
    model = origin.model
    graph = model.graph
    _update_tensors(model, module, origin)
    names = [value.name for value in module.graph.outputs]
    if names != [entry.name for entry in graph.output]:
        _replace_outputs(graph, names)
    _declare_sizes(graph, module)
    return model


def _update_tensors(model: onnx.ModelProto, module: GraphModule, origin: Origin) -> None:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, index in origin.constants.items():
        for attribute in model.graph.node[index].attribute:
            if attribute.name == "value":
                stored[name] = attribute.t
    for name, array in origin.external.items():  # the new file may lie elsewhere: it holds them itself
        _store(stored[name], array)
    for value, original in module.graph.arrays.items():
        current = module.leaf(value).numpy()
        if current.shape == original.shape and np.array_equal(current, original):
            continue
        if value.name not in stored:
            raise ModelError(f"{value.name} was trained, but the file that was read holds no such tensor")
        _store(stored[value.name], current)


def _store(tensor: TensorProto, array: Array) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).astype(dtype), tensor.name))


def _replace_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Make ``names`` the outputs and drop what no longer leads to one."""
    computed = {name for node in graph.node for name in node.output}
    if unknown := [name for name in names if name not in computed]:
        raise ModelError(f"the file that was read has no result {unknown[0]!r} to end in; name another head")
    known = {entry.name: entry for entry in (*graph.value_info, *graph.output)}
    kinds = {entry.type.tensor_type.elem_type for entry in graph.output}
    kind = kinds.pop() if len(kinds) == 1 else TensorProto.FLOAT
    entries = [onnx.ValueInfoProto(name=name) for name in names]
    for entry in entries:
        if entry.name in known:
            entry.CopyFrom(known[entry.name])
        else:
            entry.type.tensor_type.elem_type = kind
    del graph.output[:]
    graph.output.extend(entries)
    needed = set(names)
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    _keep(graph.node, kept[::-1])
    gone = {tensor.name for tensor in graph.initializer} - needed
    _keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in gone])
    # Before IR version 4 initializers are inputs too; without its tensor an input would be asked for.
    _keep(graph.input, [entry for entry in graph.input if entry.name not in gone])


def _keep(field: Any, kept: Sequence[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in kept]
    del field[:]
    field.extend(copies)


def _declare_sizes(graph: onnx.GraphProto, module: GraphModule) -> None:
    """Where a head changed, the old sizes that the file states are no longer true."""
    changed = [v for v, a in module.graph.arrays.items() if module.leaf(v).shape != a.shape]
    after = {v.name for node in module.graph.dependents(changed) for v in node.outputs}
    if after:
        _keep(graph.value_info, [entry for entry in graph.value_info if entry.name not in after])
    shapes = {value.name: module.leaf(value).shape for value in changed}
    for entry in graph.input:
        if entry.name in shapes:
            _set_sizes(entry, shapes[entry.name])
    for entry, value in zip(graph.output, module.graph.outputs, strict=True):
        if entry.name in after or not entry.type.tensor_type.HasField("shape"):
            sizes = output_sizes(module, value)
            if sizes is not None:
                entry.type.tensor_type.shape.SetInParent()  # also where there are no axes to add
                _set_sizes(entry, sizes)


def output_sizes(module: GraphModule, value: Value) -> list[int | str | None] | None:
    """What can be said of an output's shape: batch and pixels stay open, the channels are known."""
    sizes = [concrete_sizes(item) for item in module.input_sizes or ()]
    graph = module.current_graph()
    inputs = {
        v: ArrayType(s, v.type.dtype if v.type else np.dtype(np.float32))
        for v, s in zip(graph.inputs, sizes, strict=False)
    }
    try:
        shape = infer_types(graph, inputs)[value].shape
    except (NnliteError, NotImplementedError, KeyError):
        return None
    return [("N", size, None)[min(axis, 2)] for axis, size in enumerate(shape)]


# --------------------------------------------------------------------------- any other module


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


def serialise(graph: Graph, arrays: Mapping[Value, Array], opset: int) -> onnx.ModelProto:
    """A graph as a model: every node through its op's own writer."""
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
        stem = "output" if len(graph.outputs) == 1 else f"output_{i}"
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


def _serialised(module: Module, inputs: Sequence[Tensor | Array], opset: int) -> onnx.ModelProto:
    tensors = [item if isinstance(item, Tensor) else Tensor(np.asarray(item)) for item in inputs]
    graph, leaves = trace(module, tensors)
    return serialise(graph, {value: leaves[value].numpy() for value in graph.arrays}, opset)
