"""ONNX out: a model that was read is patched, any other module is traced and serialised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nnlite.errors import ModelError, NnliteError
from nnlite.files import write_atomically
from nnlite.graph import GraphModule, infer_types, trace
from nnlite.graph.ir import Graph
from nnlite.graph.passes import FOLDS, annotate
from nnlite.layout import Array
from nnlite.nn import Module
from nnlite.node import Value
from nnlite.onnx.beside import save_beside
from nnlite.onnx.inspect import concrete_sizes
from nnlite.onnx.reader import Origin
from nnlite.onnx.serialise import serialise
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

DEFAULT_OPSET = 17
LARGEST = (1 << 31) - (1 << 20)
"""Bytes of a protobuf message, with room for its own bookkeeping."""


def save(
    module: Module,
    path: str | Path,
    *,
    inputs: Sequence[Tensor | Array] | None = None,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    input_sizes: Sequence[Sequence[int | str | None]] | None = None,
    fold: bool = False,
) -> None:
    """Write ``module`` as an ONNX file, checked and then moved into place.

    A module that was read from ONNX is written back with only what changed: trained tensors, the
    head, ``metadata`` and, if given, the declared ``input_sizes``; one that did not change gives the same
    bytes (tensors in other files move into the file). Any other module needs example
    ``inputs`` to be traced with; the first axis becomes dynamic. With ``fold`` a graph is written anew, with
    constants and batch normalisation folded into the layers: for inference, no longer for training.
    Weights of more than 2 GB together lie in a file beside, ``<name>.<hash>.data``.
    Raises ModelError when the module cannot be expressed or the file cannot be written.
    """
    model = _model(module, inputs, opset, metadata, input_sizes, fold)
    if model.ByteSize() > LARGEST:
        save_beside(model, Path(path))
        return
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
    fold: bool = False,
) -> onnx.ModelProto:
    """The ModelProto that :func:`save` writes."""
    model = _model(module, inputs, opset, metadata, input_sizes, fold)
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
    fold: bool,
) -> onnx.ModelProto:
    if isinstance(module, GraphModule) and fold:
        model = _folded(module, opset or DEFAULT_OPSET)
    elif isinstance(module, GraphModule) and isinstance(module.origin, Origin):
        if opset is not None:
            raise ModelError("a model that was read from ONNX keeps its operator set; leave opset out")
        model = _patched(module, module.origin)
    else:
        if inputs is None:
            raise ModelError("to write a module as ONNX, give example inputs to trace it with")
        model = _serialised(module, inputs, opset or DEFAULT_OPSET, fold)
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


def _serialised(module: Module, inputs: Sequence[Tensor | Array], opset: int, fold: bool) -> onnx.ModelProto:
    tensors = [item if isinstance(item, Tensor) else Tensor(np.asarray(item)) for item in inputs]
    graph, leaves = trace(module, tensors)
    if fold:
        graph = _fold(graph)
    arrays = {v: leaves[v].numpy() if v in leaves else array for v, array in graph.arrays.items()}
    return serialise(graph, arrays, opset)


def _fold(graph: Graph) -> Graph:
    for one in FOLDS:
        graph = one(graph)
    return graph


def _folded(module: GraphModule, opset: int) -> onnx.ModelProto:
    """The graph of ``module`` folded and written anew, with the file's names, sizes and metadata."""
    graph = module.current_graph()
    declared = module.input_sizes or [() if v.type is None else v.type.shape for v in graph.inputs]
    types = {
        value: ArrayType(concrete_sizes(sizes), value.type.dtype if value.type else np.dtype(np.float32))
        for value, sizes in zip(graph.inputs, declared, strict=True)
    }
    try:
        graph = annotate(graph, infer_types(graph, types))
    except (NnliteError, NotImplementedError) as error:
        raise ModelError(f"fold: the shapes of the model's values are not known: {error}") from error
    graph = _fold(graph)
    model = serialise(graph, graph.arrays, opset, list(module.outputs))
    for entry, sizes in zip(model.graph.input, declared, strict=True):
        _set_sizes(entry, sizes)
    if any(size is None for sizes in declared for size in sizes[1:]):
        for entry in model.graph.output:  # they were inferred for one size of several
            dims = entry.type.tensor_type.shape.dim
            _set_sizes(entry, [("N", dim.dim_value, None)[min(axis, 2)] for axis, dim in enumerate(dims)])
    if isinstance(module.origin, Origin):
        model.metadata_props.extend(module.origin.outline.metadata_props)
    return model
