"""Features in files: memory-mapped, checksummed, written whole or not at all, never trusted.

A file is a safetensors file with ``features`` [M,...], ``labels`` [M] and ``indices`` [M], and in its
metadata the key that it was computed for and the SHA-256 of everything behind the header. A file with
another key, another checksum or anything else unexpected is as good as none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnlite.errors import FileError
from nnlite.files import atomic_file
from nnlite.layout import Array, is_channels_last

HEADER = 4096
"""Bytes of the header with its length, padded with blanks: it is written last, with the number of rows."""

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Features(NamedTuple):
    """What a frozen network makes of M pictures."""

    values: Array
    """[M,...] in the memory order that kernels take."""
    labels: Array
    """int64 [M]"""
    indices: Array
    """int64 [M]: the pictures' numbers among the samples."""


Rows = Iterator[Features]
"""Features of some pictures at a time."""


def write(path: Path, key: str, rows: Rows, dtype: np.dtype[Any]) -> None:
    """Write ``rows`` as they come, then give the file its name. Raises FileError when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None
    with atomic_file(path) as file:
        _write(file, key, rows, dtype)


def _write(file: Any, key: str, rows: Rows, dtype: np.dtype[Any]) -> None:
    digest = hashlib.sha256()
    file.seek(HEADER)
    count = 0
    shape: tuple[int, ...] = ()
    labels: list[Array] = []
    indices: list[Array] = []

    def put(array: Array) -> None:
        data = array.tobytes()
        digest.update(data)
        file.write(data)

    for values, some_labels, some_indices in rows:
        # As it lies in memory: [N,H,W,C].
        in_memory = np.moveaxis(values, 1, -1) if values.ndim > 2 else values
        put(np.ascontiguousarray(in_memory, dtype))
        count, shape = count + len(values), in_memory.shape[1:]
        labels.append(some_labels)
        indices.append(some_indices)
    entries: dict[str, Any] = {}
    begin = 0

    def enter(name: str, what: np.dtype[Any], sizes: tuple[int, ...]) -> None:
        nonlocal begin
        end = begin + what.itemsize * int(np.prod(sizes))
        entries[name] = {"dtype": NAMES[what], "shape": list(sizes), "data_offsets": [begin, end]}
        begin = end

    enter("features", dtype, (count, *shape))
    # Integers behind half floats may not be aligned, and need not be: they are copied when read.
    for name, arrays in (("labels", labels), ("indices", indices)):
        put(np.concatenate([*arrays, np.zeros(0, np.int64)]).astype(np.int64))
        enter(name, np.dtype(np.int64), (count,))
    entries["__metadata__"] = {"key": key, "sha256": digest.hexdigest()}
    text = json.dumps(entries).encode()
    file.seek(0)
    file.write((HEADER - 8).to_bytes(8, "little") + text.ljust(HEADER - 8))


def read(path: Path, key: str) -> Features | None:
    """The features of a file that is whole and was computed for ``key``; None for any other, or none."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
            entries = json.loads(head[8:])
            if head[:8] != (HEADER - 8).to_bytes(8, "little") or entries["__metadata__"]["key"] != key:
                return None
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != entries["__metadata__"]["sha256"]:
            return None
        values, labels, indices = (_mapped(path, entries[name]) for name in ("features", "labels", "indices"))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if values.ndim > 2:
        values = np.moveaxis(values, -1, 1)
        assert is_channels_last(values)
    return Features(values, np.array(labels), np.array(indices))


def _mapped(path: Path, entry: dict[str, Any]) -> Array:
    dtype, (begin, end) = DTYPES[entry["dtype"]], entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    if min(shape) < 0 or end - begin != dtype.itemsize * int(np.prod(shape)):
        raise ValueError("lengths disagree")
    if end == begin:
        return np.zeros(shape, dtype)
    mapped: Array = np.memmap(path, dtype=dtype, mode="r", offset=HEADER + begin, shape=shape)
    return mapped
