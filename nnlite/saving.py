"""Saving and loading: safetensors files with a JSON description, no pickle.

The arrays of a state lie in the file under dotted names, so that a saved module is a safetensors file like
any other, with the names of its ``state_dict``. What is not an array (numbers, strings, the nesting) is JSON
in the file's metadata, under ``nnlite``. Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnlite.device import is_array, to_host
from nnlite.errors import ModelError, OperandError
from nnlite.files import atomic_file
from nnlite.layout import Array
from nnlite.tensors import Tensor

KEY = "nnlite"
VERSION = 1
RESERVED = "__metadata__"  # safetensors' own entry among the names


def save(path: str | Path, state: Any) -> None:
    """Write ``state`` to ``path`` in one piece: what stood there stays until all of the new file is written.

    ``state``: a module, optimiser or schedule (anything with ``state_dict()``), an array, a Tensor, a number,
    a string, True, False, None, and lists, tuples and dicts of these to any depth: a whole training
    state is ``{"model": model, "optimizer": optimizer, "epoch": 3}``. Arrays keep their element type, and
    are stored from the host, wherever they were. Raises
    OperandError for anything else, naming where it stands, and FileError when the file cannot be written.
    """
    arrays: dict[str, Array] = {}
    tree = _encoded(state, (), arrays)
    description = json.dumps({"version": VERSION, "tree": tree}, allow_nan=False)
    with atomic_file(Path(path)) as file:
        write_safetensors(file, arrays, {KEY: description})


def write_safetensors(file: BinaryIO, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write ``arrays`` and ``metadata`` as one safetensors file, an array at a time.

    ``8 bytes: length of the header | header, JSON, padded with spaces to 8 | the arrays' bytes, row-major``

    The library's own writer holds everything twice over before the first byte is written, which a run on a
    budget of memory has no room for. Source: the format's description, safetensors 0.4.
    """
    header: dict[str, Any] = {RESERVED: dict(metadata)}
    offset = 0
    # Widest elements first, so that each array begins at a multiple of its element's size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in names:
        array, end = arrays[name], offset + arrays[name].nbytes
        kind = "BOOL" if array.dtype.kind == "b" else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        little = arrays[name].dtype.newbyteorder("<")
        file.write(np.asarray(arrays[name], little, order="C").data)


def load(path: str | Path) -> Any:
    """What :func:`save` was given, with a dict of arrays in place of each object that has a ``state_dict``.

    Give it to ``load_state_dict``, which checks names and shapes and restores the memory layout. A
    safetensors file of other origin gives a dict of arrays by name. Raises ModelError when the file is
    missing, truncated, or something else.
    """
    arrays, metadata = read_safetensors(path)
    if KEY not in metadata:
        return arrays
    try:
        header = json.loads(metadata[KEY])
        version, tree = header["version"], header["tree"]
        state = _decoded(tree, arrays) if version == VERSION else None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: its description is damaged: {type(error).__name__}: {error}") from None
    if version != VERSION:
        raise ModelError(f"{path}: is of format {version!r} but only {VERSION} is known; update nnlite")
    return state


def read_safetensors(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """All arrays of a safetensors file by name, and its metadata; ModelError when it cannot be read."""
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(ImportError):
        import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16

    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():
        raise ModelError(f"{path}: not a file; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return arrays, dict(file.metadata() or {})
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, TypeError, ValueError, LookupError, MemoryError) as error:
        size = path.stat().st_size
        reason = f"not a safetensors file, or a truncated one ({size} bytes): {error}"
        raise ModelError(f"{path}: {reason}") from None


# --------------------------------------------------------------------------------- to and from JSON


def _encoded(item: Any, place: tuple[Any, ...], arrays: dict[str, Array]) -> Any:
    """``item`` as JSON; its arrays go to ``arrays`` under the dotted name of their place."""
    if item is None or isinstance(item, (bool, int, str)):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"float": str(item)}
    if isinstance(item, np.generic):
        return _encoded(item.item(), place, arrays)
    if isinstance(item, Tensor) or is_array(item):
        array = to_host(item.array if isinstance(item, Tensor) else item)
        return {"array": _add(_storable(array, place), place, arrays)}
    if hasattr(item, "state_dict"):
        return _encoded(item.state_dict(), place, arrays)
    if isinstance(item, Mapping):
        if bad := [key for key in item if isinstance(key, bool) or not isinstance(key, (str, int))]:
            raise OperandError(f"save: {_called(place)} has the key {bad[0]!r}; keys are text or integers")
        return {"dict": [[key, _encoded(value, (*place, key), arrays)] for key, value in item.items()]}
    if isinstance(item, (list, tuple)):
        listed = [_encoded(value, (*place, i), arrays) for i, value in enumerate(item)]
        return listed if isinstance(item, list) else {"tuple": listed}
    raise OperandError(
        f"save: {_called(place)} is of type {type(item).__name__}; only arrays, numbers, text, None, objects "
        "with a state_dict, and lists, tuples and dicts of these can be saved"
    )


def _called(place: tuple[Any, ...]) -> str:
    return "the state" + "".join(f"[{key!r}]" for key in place)


def _storable(array: Array, place: tuple[Any, ...]) -> Array:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise OperandError(f"save: {_called(place)} has elements of type {array.dtype}; save numbers")
    return array


def _add(array: Array, place: tuple[Any, ...], arrays: dict[str, Array]) -> str:
    name = ".".join(map(str, place)) or "array"
    while name in arrays or name == RESERVED:  # {"a.b": x, "a": {"b": y}}
        name += "'"
    arrays[name] = array
    return name


def _decoded(item: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(item, list):
        return [_decoded(value, arrays) for value in item]
    if not isinstance(item, dict):
        return item
    ((kind, content),) = item.items()
    if kind == "array":
        return arrays[content]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decoded(value, arrays) for value in content)
    if kind == "dict":
        return {key: _decoded(value, arrays) for key, value in content}
    raise ValueError(f"unknown kind {kind!r}")
