"""ONNX out: a model that was read is patched, any other module is traced and serialised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnlite.device import CPU
from nnlite.errors import ModelError, NnliteError
from nnlite.files import atomic_file
from nnlite.graph import GraphModule, infer_types, trace
from nnlite.graph.ir import Graph
from nnlite.graph.passes import FOLDS, annotate
from nnlite.layout import Array
from nnlite.nn import Module
from nnlite.onnx.beside import save_beside
from nnlite.onnx.checker import check
from nnlite.onnx.inspect import concrete_sizes
from nnlite.onnx.origin import Origin
from nnlite.onnx.patch import Patch, patched, set_sizes
from nnlite.onnx.proto import ModelProto
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
    """Write ``module`` as an ONNX file, under another name first.

    A module that was read from ONNX is written back with only what changed: trained tensors, the
    head, ``metadata`` and, if given, the declared ``input_sizes``; one that did not change gives the same
    bytes (tensors in other files move into the file). Any other module needs example ``inputs`` to be
    traced with; the first axis becomes dynamic, and ONNX's checker sees the model first. With ``fold`` a
    graph is written anew, with constants and batch normalisation folded into the layers: for inference,
    no longer for training.
    Weights of more than 2 GB together lie in a file beside, ``<name>.<hash>.data``.
    Raises ModelError when the module cannot be expressed or the file cannot be written.
    """
    patch = _patch(module, inputs, opset, metadata, input_sizes, fold)
    if patch.size() > LARGEST:
        save_beside(patch.whole(), Path(path))
        return
    _check(patch)
    with atomic_file(Path(path)) as file:
        for piece in patch.pieces():
            file.write(piece)


def to_model(
    module: Module,
    *,
    inputs: Sequence[Tensor | Array] | None = None,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    input_sizes: Sequence[Sequence[int | str | None]] | None = None,
    fold: bool = False,
) -> ModelProto:
    """The ModelProto that :func:`save` writes."""
    patch = _patch(module, inputs, opset, metadata, input_sizes, fold)
    _check(patch)
    return patch.whole()


def _check(patch: Patch) -> None:
    """What has the nodes of a file that was read was checked then, and lets ONNX's package rest."""
    if patch.anew:
        check(patch.model)


def _patch(
    module: Module,
    inputs: Sequence[Tensor | Array] | None,
    opset: int | None,
    metadata: Mapping[str, str] | None,
    input_sizes: Sequence[Sequence[int | str | None]] | None,
    fold: bool,
) -> Patch:
    if isinstance(module, GraphModule) and fold:
        patch = _as_patch(_folded(module, opset or DEFAULT_OPSET))
    elif isinstance(module, GraphModule) and isinstance(module.origin, Origin):
        if opset is not None:
            raise ModelError("a model that was read from ONNX keeps its operator set; leave opset out")
        patch = patched(module, module.origin)
    else:
        if inputs is None:
            raise ModelError("to write a module as ONNX, give example inputs to trace it with")
        patch = _as_patch(_serialised(module, inputs, opset or DEFAULT_OPSET, fold))
    model = patch.model
    for key, value in (metadata or {}).items():
        entry = next((e for e in model.metadata_props if e.key == key), None) or model.metadata_props.add(
            key=key
        )
        entry.value = value
    for entry, sizes in zip(model.graph.input, input_sizes or (), strict=False):
        set_sizes(entry, sizes)
    return patch


def _as_patch(model: ModelProto) -> Patch:
    """A model that was not read."""
    return Patch(model, Origin(model), anew=True)


# --------------------------------------------------------------------------- any other module


def _serialised(module: Module, inputs: Sequence[Tensor | Array], opset: int, fold: bool) -> ModelProto:
    tensors = [item if isinstance(item, Tensor) else Tensor(np.asarray(item)) for item in inputs]
    graph, leaves = trace(module, tensors)
    if fold:
        graph = _fold(graph)
    arrays = {v: leaves[v].to(CPU).numpy() if v in leaves else array for v, array in graph.arrays.items()}
    from nnlite.onnx.serialise import serialise

    return serialise(graph, arrays, opset)


def _fold(graph: Graph) -> Graph:
    for one in FOLDS:
        graph = one(graph)
    return graph


def _folded(module: GraphModule, opset: int) -> ModelProto:
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
    from nnlite.onnx.serialise import serialise

    model = serialise(graph, graph.arrays, opset, list(module.outputs))
    for entry, sizes in zip(model.graph.input, declared, strict=True):
        set_sizes(entry, sizes)
    if any(size is None for sizes in declared for size in sizes[1:]):
        for entry in model.graph.output:  # they were inferred for one size of several
            dims = entry.type.tensor_type.shape.dim
            set_sizes(entry, [("N", dim.dim_value, None)[min(axis, 2)] for axis, dim in enumerate(dims)])
    if isinstance(module.origin, Origin):
        model.metadata_props.extend(module.origin.outline.metadata_props)
    return model
