"""A model that was read, written back with only what changed.

The file's large tensors are neither parsed nor copied: the small rest of the model is patched, and the
bytes of what did not change go from file to file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlite.device import CPU
from nnlite.errors import ModelError, NnliteError
from nnlite.graph import GraphModule, infer_types
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.onnx.content import Content, forget
from nnlite.onnx.inspect import concrete_sizes
from nnlite.onnx.origin import Origin
from nnlite.onnx.proto import GraphProto, ModelProto, TensorProto, ValueInfoProto
from nnlite.onnx.tensors import tensor_of
from nnlite.onnx.wire import LEAST, inlined
from nnlite.ops import ArrayType
from nnlite.ops.element_types import dtype_of
from nnlite.ops.storage import is_storage

CHUNK = 1 << 20
"""Bytes that go from file to file at a time."""


@dataclass
class Patch:
    """A model, of which the numbers of some initializers lie elsewhere: as they were read, or changed."""

    model: ModelProto
    origin: Origin
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Tensors as they stand in the origin's bytes."""
    changed: dict[str, Array] = field(default_factory=dict)
    """The numbers of others, in the type that the file has them in."""
    anew: bool = False
    """Whether its nodes were written here, and not read from a file."""

    def unchanged(self) -> bool:
        """Whether the very bytes that were read say the same."""
        return self.origin.data is not None and not self.changed and self.model == self.origin.outline

    def _elsewhere(self) -> dict[int, str]:
        names = self.kept.keys() | self.changed.keys()
        return {i: t.name for i, t in enumerate(self.model.graph.initializer) if t.name in names}

    def _length(self, name: str) -> int:
        if name in self.changed:
            return self.changed[name].nbytes
        start, end = self.kept[name]
        return end - start

    def size(self) -> int:
        """Bytes of the whole model, but for the lengths that protobuf writes."""
        return int(self.model.ByteSize()) + sum(map(self._length, self._elsewhere().values()))

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the whole model."""
        if self.unchanged():
            assert self.origin.data is not None
            yield from _chunks(self.origin.data, 0, len(self.origin.data))
            return
        elsewhere = self._elsewhere()
        if not elsewhere:
            yield self.model.SerializeToString()
            return
        lengths = {number: self._length(name) for number, name in elsewhere.items()}
        for piece in inlined(self.model.SerializeToString(), lengths):
            if isinstance(piece, bytes):
                yield piece
            elif (name := elsewhere[piece]) in self.changed:
                yield self._changed_bytes(name)
            else:
                assert self.origin.data is not None
                yield from _chunks(self.origin.data, *self.kept[name])

    def _changed_bytes(self, name: str) -> bytes:
        array = self.changed[name]
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()

    def whole(self) -> ModelProto:
        """The model with all numbers."""
        for number, name in self._elsewhere().items():
            if name in self.changed:
                raw = self._changed_bytes(name)
            else:
                assert self.origin.data is not None
                raw = self.origin.data[slice(*self.kept[name])]
            self.model.graph.initializer[number].raw_data = raw
        return self.model


def _chunks(data: Content, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, CHUNK):
        yield data[at : min(at + CHUNK, end)]
        forget(data)


def patched(module: GraphModule, origin: Origin) -> Patch:
    """The model that ``module`` was read from, as the module is now.

    Raises ModelError where the file has no place for what was trained.
    """
    model = ModelProto()
    model.CopyFrom(origin.outline)
    patch = Patch(model, origin, dict(origin.places))
    _update_tensors(patch, module)
    graph = model.graph
    names = [value.name for value in module.graph.outputs]
    if names != [entry.name for entry in graph.output]:
        _replace_outputs(graph, names)
    _declare_sizes(graph, module)
    return patch


def _update_tensors(patch: Patch, module: GraphModule) -> None:
    graph, origin = patch.model.graph, patch.origin
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    in_nodes = {}
    for name, index in origin.constants.items():
        for attribute in graph.node[index].attribute:
            if attribute.name == "value":
                in_nodes[name] = attribute.t
    stored = initializers | in_nodes

    def store(name: str, array: Array) -> None:
        tensor = stored[name]
        dtype = dtype_of(tensor.data_type)
        large = array.nbytes > LEAST and name not in in_nodes
        if large and array.dtype == dtype and not is_storage(dtype):
            tensor.CopyFrom(TensorProto(name=name, data_type=tensor.data_type, dims=array.shape))
            patch.changed[name] = array
        else:
            tensor.CopyFrom(tensor_of(array.astype(dtype), name))
        patch.kept.pop(name, None)

    for name, array in origin.external.items():  # the new file may lie elsewhere: it holds them itself
        store(name, array)
    for value, original in module.graph.arrays.items():
        if module.leaf(value).at_rest is original:  # nobody changed it
            continue
        current = module.leaf(value).to(CPU).numpy()
        same = current.shape == original.shape and np.array_equal(current, original)
        if original.nbytes > LEAST:
            forget(origin.data)
        if same:
            continue
        if value.name not in stored:
            raise ModelError(f"{value.name} was trained, but the file that was read holds no such tensor")
        store(value.name, current)


def set_sizes(entry: ValueInfoProto, sizes: Sequence[int | str | None]) -> None:
    """Declare ``sizes`` for an input or output: numbers, names, or None for any."""
    shape = entry.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        dim = shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size


def _replace_outputs(graph: GraphProto, names: Sequence[str]) -> None:
    """Make ``names`` the outputs and drop what no longer leads to one."""
    computed = {name for node in graph.node for name in node.output}
    if unknown := [name for name in names if name not in computed]:
        raise ModelError(f"the file that was read has no result {unknown[0]!r} to end in; name another head")
    known = {entry.name: entry for entry in (*graph.value_info, *graph.output)}
    kinds = {entry.type.tensor_type.elem_type for entry in graph.output}
    kind = kinds.pop() if len(kinds) == 1 else TensorProto.FLOAT
    entries = [ValueInfoProto(name=name) for name in names]
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


def _declare_sizes(graph: GraphProto, module: GraphModule) -> None:
    """Where a head changed, the old sizes that the file states are no longer true."""
    changed = [v for v, a in module.graph.arrays.items() if module.leaf(v).shape != a.shape]
    after = {v.name for node in module.graph.dependents(changed) for v in node.outputs}
    if after:
        _keep(graph.value_info, [entry for entry in graph.value_info if entry.name not in after])
    shapes = {value.name: module.leaf(value).shape for value in changed}
    for entry in graph.input:
        if entry.name in shapes:
            set_sizes(entry, shapes[entry.name])
    for entry, value in zip(graph.output, module.graph.outputs, strict=True):
        if entry.name in after or not entry.type.tensor_type.HasField("shape"):
            sizes = output_sizes(module, value)
            if sizes is not None:
                entry.type.tensor_type.shape.SetInParent()  # also where there are no axes to add
                set_sizes(entry, sizes)


def output_sizes(module: GraphModule, value: Value) -> list[int | str | None] | None:
    """What can be said of an output's shape: batch and pixels stay open, the channels are known."""
    sizes = [concrete_sizes(item) for item in module.input_sizes or ()]
    graph = module.outline()
    inputs = {
        v: ArrayType(s, v.type.dtype if v.type else np.dtype(np.float32))
        for v, s in zip(graph.inputs, sizes, strict=False)
    }
    try:
        shape = infer_types(graph, inputs)[value].shape
    except (NnliteError, NotImplementedError, KeyError):
        return None
    return [("N", size, None)[min(axis, 2)] for axis, size in enumerate(shape)]
