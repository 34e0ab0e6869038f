"""ONNX's messages, without the rest of its package.

``import onnx`` also brings every operator's schema, a checker and text formats: 17 MB and a twentieth of a
second that reading a model does not need. Its module of generated messages needs protobuf alone, so it is
loaded from where the package lies without running the package. The classes are onnx's own, whoever asks
first: protobuf makes one class per message and process.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import (
        AttributeProto,
        FunctionProto,
        GraphProto,
        ModelProto,
        NodeProto,
        OperatorSetIdProto,
        SparseTensorProto,
        TensorProto,
        TypeProto,
        ValueInfoProto,
    )

__all__ = [
    "AttributeProto",
    "FunctionProto",
    "GraphProto",
    "ModelProto",
    "NodeProto",
    "OperatorSetIdProto",
    "SparseTensorProto",
    "TensorProto",
    "TypeProto",
    "ValueInfoProto",
]


def _messages() -> ModuleType:
    if "onnx" not in sys.modules:
        package = importlib.util.find_spec("onnx")
        for folder in (package.submodule_search_locations or ()) if package else ():
            spec = importlib.util.spec_from_file_location("onnx.onnx_ml_pb2", Path(folder) / "onnx_ml_pb2.py")
            if spec and spec.loader and spec.has_location and Path(spec.origin or "").is_file():
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    import onnx  # there already, or built in another way

    return onnx


if not TYPE_CHECKING:
    globals().update({name: getattr(_messages(), name) for name in __all__})
