"""Model files: parsing, and weights stored outside, never outside the model's folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nnlite.errors import ModelError
from nnlite.layout import Array
from nnlite.onnx.content import Content, content
from nnlite.onnx.proto import GraphProto, ModelProto, TensorProto
from nnlite.onnx.tensors import array_of, byte_count, tensor_type, widened
from nnlite.onnx.wire import outlined
from nnlite.ops.storage import is_storage


class Source:
    """A parsed model and where its tensors are."""

    def __init__(
        self,
        model: ModelProto,
        path: Path | None,
        data: Content | None = None,
        places: Mapping[int, tuple[int, int]] = MappingProxyType({}),
    ) -> None:
        self.model = model
        """The model; where it was parsed from bytes, without the raw data of large initializers."""
        self.path = path
        self.data = data
        self._places = places

    def __str__(self) -> str:
        return str(self.path) if self.path else "the model"

    def array(self, tensor: TensorProto) -> Array:
        """The array of ``tensor``, read from the file itself or from one beside it."""
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor)
        return array_of(tensor)

    def places(self) -> dict[str, tuple[int, int]]:
        """From where to where the bytes hold the numbers that :attr:`model` lacks, by the tensor's name."""
        tensors = self.model.graph.initializer
        return {
            tensors[number].name: place
            for number, place in self._places.items()
            if tensors[number].data_location != TensorProto.EXTERNAL
        }

    def initializers(self, graph: GraphProto) -> Iterator[tuple[TensorProto, Array]]:
        """Every initializer of ``graph``, and its array.

        Large arrays may be read-only views of the file's bytes, and not aligned to their elements.
        """
        places = self._places if graph is self.model.graph else {}
        for number, tensor in enumerate(graph.initializer):
            if number in places and tensor.data_location != TensorProto.EXTERNAL:
                yield tensor, self._held(tensor, *places[number])
            else:
                yield tensor, self.array(tensor)

    def _held(self, tensor: TensorProto, start: int, end: int) -> Array:
        """The array of which the file holds the bytes from ``start`` to ``end``."""
        assert self.data is not None
        shape, dtype = tensor_type(tensor)
        if is_storage(dtype):  # may lie packed
            tensor = TensorProto(
                data_type=tensor.data_type, dims=shape, raw_data=self.data[start:end], name=tensor.name
            )
            return array_of(tensor)
        if end - start != byte_count(shape, dtype):
            raise ModelError(
                f"tensor {tensor.name} of shape {list(shape)} and type {dtype} holds {end - start} bytes"
            )
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(self.data, dtype.newbyteorder("<"), count, start).reshape(shape)
        return widened(array.astype(dtype, copy=False))

    def _external(self, tensor: TensorProto) -> Array:
        shape, dtype = tensor_type(tensor)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        where = f"{self}: tensor {tensor.name}"
        location = entries.get("location", "")
        if self.path is None:
            raise ModelError(f"{where} lies in another file, {location!r}; load the model from its path")
        parts = location.split("/")
        if not location or "\\" in location or ":" in location or ".." in parts or parts[0] == "":
            raise ModelError(f"{where} lies in {location!r}, which is not a path inside the model's folder")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        except ValueError:
            raise ModelError(f"{where} has an offset or a length that is no number") from None
        expected = byte_count(shape, dtype)
        if length not in (-1, expected) or offset < 0:
            raise ModelError(f"{where} needs {expected} bytes but offset {offset}, length {length} are given")
        raw = _read_inside(self.path.parent, parts, offset, expected, where)
        if is_storage(dtype):  # may lie packed
            return array_of(
                TensorProto(data_type=tensor.data_type, dims=shape, raw_data=raw, name=tensor.name)
            )
        array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
        return widened(array.astype(dtype, copy=False))


def _read_inside(folder: Path, parts: list[str], offset: int, length: int, where: str) -> bytes:
    """``length`` bytes of a plain file below ``folder``; no links, devices or pipes on the way."""
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ModelError(f"{where} lies behind the link {path}, which is not followed")
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ModelError(f"{where} cannot be read from {path}: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise ModelError(f"{where}: {path} is not a plain file of its own")
    with os.fdopen(descriptor, "rb") as file:
        if offset + length > status.st_size:
            raise ModelError(f"{where} ends at byte {offset + length}, but {path} has {status.st_size}")
        file.seek(offset)
        return file.read(length)


def parse(model: str | Path | bytes | ModelProto, whole: bool = False) -> Source:
    """A model from a path, its bytes or a ModelProto; ModelError says why it cannot be read.

    With ``whole`` the parsed model holds all tensors itself.
    """
    if isinstance(model, ModelProto):
        source = Source(model, None)
    elif isinstance(model, bytes):
        source = _source(model, "the model", None, whole)
    else:
        path = Path(model)
        if not path.exists():
            raise ModelError(f"{path}: no such file")
        if not path.is_file():
            raise ModelError(f"{path}: not a file; give the path of an .onnx file")
        try:
            data = content(path)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
        source = _source(data, str(path), path, whole)
    if not source.model.graph.node:
        raise ModelError(f"{source}: not an ONNX model: it has no nodes")
    return source


def _source(data: Content, name: str, path: Path | None, whole: bool) -> Source:
    if whole:
        return Source(_decode(data, name), path, data)
    small: Content = data
    places: dict[int, tuple[int, int]] = {}
    with suppress(ValueError, IndexError):  # written as nobody writes: it is parsed as it is
        small, places = outlined(data)
    return Source(_decode(small, name), path, data, places)


def _decode(data: Content, name: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data if isinstance(data, bytes) else data[:])
    except DecodeError:
        raise ModelError(f"{name}: not an ONNX file, or a truncated one ({len(data)} bytes)") from None
    _check_names(model.graph, name)
    if not model.HasField("graph"):
        raise ModelError(f"{name}: not an ONNX file: it holds no graph ({len(data)} bytes)")
    return model


def _check_names(graph: GraphProto, name: str) -> None:
    """ModelError for a name that is not text: protobuf hands such ones out as bytes."""
    names: list[str | bytes] = [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    names += [entry.name for entry in (*graph.input, *graph.output)]
    for node in graph.node:
        names += [node.op_type, node.domain, node.name, *node.input, *node.output]
        for attribute in node.attribute:
            names += [attribute.name, attribute.ref_attr_name]
    if bad := [item for item in names if not isinstance(item, str)]:
        raise ModelError(f"{name}: damaged: the name {bad[0]!r} is not text")
