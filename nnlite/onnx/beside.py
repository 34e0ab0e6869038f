"""Models beyond what one protobuf message can hold: weights in a file beside (ONNX's external data)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from nnlite.errors import FileError
from nnlite.onnx.checker import check
from nnlite.onnx.proto import ModelProto, TensorProto

LEAST = 1024
"""Tensors of fewer bytes stay in the model."""

PAGE = 4096
"""What readers that map the file into memory want tensors to begin at."""


def save_beside(model: ModelProto, path: Path) -> None:
    """Write ``model``, whose tensors it takes out, to ``path`` and its weights to ``<name>.<hash>.data``.

    Both are written in a folder of their own first and the weights are moved first, under a name that
    follows from their content: at no moment does a model stand there without its weights. Raises FileError
    when something cannot be written, ModelError when the checker refuses the model.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
            folder = Path(name)
            data = _move_out(model, folder / "weights", path.name)
            target = folder / path.name
            target.write_bytes(model.SerializeToString())
            check(str(target))
            umask = os.umask(0)
            os.umask(umask)
            for file in (data, target):
                file.chmod(0o666 & ~umask)
                with file.open("rb") as written:
                    os.fsync(written.fileno())
                os.replace(file, path.parent / file.name)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None


def _move_out(model: ModelProto, to: Path, name: str) -> Path:
    """Write the initializers' raw data to ``to``, which then gets a name of its content."""
    digest, places = hashlib.sha256(), {}
    with to.open("wb") as file:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < LEAST:
                continue
            file.write(bytes(-file.tell() % PAGE))
            places[tensor.name] = (file.tell(), len(raw))
            file.write(raw)
            digest.update(raw)
            tensor.ClearField("raw_data")
    data = to.with_name(f"{name}.{digest.hexdigest()[:16]}.data")
    os.replace(to, data)
    for tensor in model.graph.initializer:
        if tensor.name in places:
            offset, length = places[tensor.name]
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
    return data
