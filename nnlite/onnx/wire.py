"""A model's bytes without those of its large tensors, which then need not be copied twice.

A protobuf message is a sequence of fields, each a number, a wire type and a value; a message within it is
a field of bytes. So the place of a tensor's data is found by walking over fields, and what is left is
small. Whatever is not as writers write it (a graph in two pieces, data given twice) is left whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nnlite.onnx.content import Content

Buffer = bytes | memoryview
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""Fields: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data (onnx.proto)."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""
LEAST = 1 << 12
"""Tensors of fewer bytes stay where they are."""


class Field(NamedTuple):
    """One field: where it begins, where its value begins and where it ends."""

    number: int
    kind: int
    start: int
    value: int
    end: int


def _varint(data: Buffer, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and where it ends."""
    result = 0
    for count in range(10):
        byte = data[at + count]
        result |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return result, at + count + 1
    raise ValueError("an integer of more than 64 bits")


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields between ``start`` and ``end``; ValueError or IndexError where they are not well formed."""
    at = start
    while at < end:
        tag, value = _varint(data, at)
        kind = tag & 7
        if kind == BYTES:
            length, value = _varint(data, value)
            stop = value + length
        elif kind == VARINT:
            stop = _varint(data, value)[1]
        elif kind in (FIXED64, FIXED32):
            stop = value + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if stop > end:
            raise ValueError("a field ends behind its message")
        yield Field(tag >> 3, kind, at, value, stop)
        at = stop


def _written(value: int) -> bytes:
    """``value`` as a varint."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def outlined(data: Content) -> tuple[bytes, dict[int, tuple[int, int]]]:
    """``data`` without the raw data of large initializers, and where these lie: number -> (start, end).

    Raises ValueError or IndexError for bytes that are not a model as writers write it.
    """
    view = memoryview(data)
    graphs = [field for field in fields(view, 0, len(view)) if field.number == GRAPH]
    if len(graphs) != 1 or graphs[0].kind != BYTES:
        raise ValueError("no graph, or one in pieces")
    graph, places, pieces = graphs[0], {}, []
    number, kept = 0, graph.value
    for field in fields(view, graph.value, graph.end):
        if field.number != INITIALIZER or field.kind != BYTES:
            continue
        if field.end - field.value > LEAST:
            raw = [f for f in fields(view, field.value, field.end) if f.number == RAW_DATA]
            if len(raw) == 1 and raw[0].kind == BYTES and raw[0].end - raw[0].value > LEAST:
                places[number] = (raw[0].value, raw[0].end)
                rest = bytes(view[field.value : raw[0].start]) + bytes(view[raw[0].end : field.end])
                tag = bytes(view[field.start : field.start + 1])
                pieces += [bytes(view[kept : field.start]), tag + _written(len(rest)) + rest]
                kept = field.end
        number += 1
    body = b"".join([*pieces, bytes(view[kept : graph.end])])
    head, tail = bytes(view[: graph.start]), bytes(view[graph.end :])
    return b"".join([head, bytes([GRAPH << 3 | BYTES]), _written(len(body)), body, tail]), places


def inlined(small: bytes, lengths: Mapping[int, int]) -> Iterator[bytes | int]:
    """The bytes of a model whose raw data were left out of ``small``, piece by piece.

    A number stands where the ``lengths[number]`` bytes of the initializer of that number go. Raises
    ValueError or IndexError as :func:`outlined` does.
    """
    (graph,) = (field for field in fields(small, 0, len(small)) if field.number == GRAPH)
    pieces: list[bytes | int] = []
    number, kept = 0, graph.value
    for field in fields(small, graph.value, graph.end):
        if field.number != INITIALIZER or field.kind != BYTES:
            continue
        if number in lengths:
            inside = fields(small, field.value, field.end)
            at = next((f.start for f in inside if f.number > RAW_DATA), field.end)
            head = bytes([RAW_DATA << 3 | BYTES]) + _written(lengths[number])
            size = field.end - field.value + len(head) + lengths[number]
            tag = bytes([INITIALIZER << 3 | BYTES]) + _written(size)
            pieces += [small[kept : field.start], tag + small[field.value : at] + head, number]
            kept = at
        number += 1
    pieces.append(small[kept : graph.end])
    length = sum(lengths[piece] if isinstance(piece, int) else len(piece) for piece in pieces)
    yield small[: graph.start] + bytes([GRAPH << 3 | BYTES]) + _written(length)
    yield from pieces
    yield small[graph.end :]
