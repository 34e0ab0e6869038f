"""nnlite as a backend of ONNX's own test suite and of whatever else speaks that interface.

    rep = nnlite.onnx.backend.prepare(model)
    (y,) = rep.run([x])

Inputs and outputs have the types that the model declares: half precision is computed in float32 and
handed out in the declared type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from nnlite.errors import ModelError
from nnlite.graph import GraphModule
from nnlite.layout import Array
from nnlite.onnx.reader import load
from nnlite.onnx.tensors import element_type, widened


class NnliteRep(BackendRep):
    """A prepared model."""

    def __init__(self, module: GraphModule, model: onnx.ModelProto) -> None:
        self.module = module
        self._types = [_declared_type(entry) for entry in model.graph.output]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """The outputs for ``inputs``: a sequence in the model's order, or arrays by name.

        Raises the errors of :meth:`nnlite.graph.GraphModule.run`.
        """
        if isinstance(inputs, Mapping):
            arrays: Any = {name: _widened(item) for name, item in inputs.items()}
        elif isinstance(inputs, np.ndarray):
            arrays = [widened(inputs)]
        else:
            arrays = [_widened(item) for item in inputs]
        results = self.module.run(arrays)
        typed = (
            array if dtype is None else array.astype(dtype, copy=False)
            for array, dtype in zip(results, self._types, strict=True)
        )  # fmt: skip
        return namedtupledict("Outputs", list(self.module.outputs))(*typed)


def _widened(item: Any) -> Any:
    """An array or, for sequences and absent values, a list of arrays or None."""
    if isinstance(item, (list, tuple)):
        return [_widened(part) for part in item]
    return None if item is None else widened(np.asarray(item))


def _declared_type(entry: onnx.ValueInfoProto) -> np.dtype[Any] | None:
    kind = entry.type.tensor_type.elem_type
    dtype = element_type(kind, f"output {entry.name}") if kind else None
    # Only half precision is computed in another type than the declared one.
    return dtype if dtype is not None and dtype.name in ("float16", "bfloat16") else None


class NnliteBackend(Backend):
    """``onnx.backend.base.Backend`` on nnlite; the CPU is the only device."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> NnliteRep:
        """Read ``model``; ModelError lists every node that is not supported."""
        if not cls.supports_device(device):
            raise ModelError(f"device {device!r} is not supported, only CPU")
        return NnliteRep(load(model), model)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        """Read ``model`` and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run one node on arrays, as of operator set ``opset_version`` (the newest by default)."""
        names = [name for name in node.input if name]
        arrays = [inputs] if isinstance(inputs, np.ndarray) else [np.asarray(array) for array in inputs]
        entries = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays, strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        for entry, (dtype, shape) in zip(outputs, outputs_info or (), strict=False):
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            entry.CopyFrom(onnx.helper.make_tensor_value_info(entry.name, kind, shape))
        graph = onnx.helper.make_graph([node], "node", entries, outputs)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
        return cls.run_model(model, arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether ``device`` ("CPU", "CPU:0") can be used."""
        return device.split(":")[0] == "CPU"


prepare = NnliteBackend.prepare
run_model = NnliteBackend.run_model
run_node = NnliteBackend.run_node
supports_device = NnliteBackend.supports_device
