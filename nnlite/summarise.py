"""What a model is made of: layers, shapes, parameters, arithmetic, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlite import autograd, tensors
from nnlite.graph import GraphModule, infer_types, node_macs
from nnlite.nn import Module, Parameter
from nnlite.ops import ArrayType, Op
from nnlite.tensors import Tensor

Shape = tuple[int, ...]


@dataclass
class Row:
    """One layer: a module that computes something itself, or a node of a graph."""

    name: str
    kind: str
    """Class of the module, or name of the operation."""
    shape: Shape = ()
    """Shape of the last result."""
    parameters: int = 0
    macs: int = 0
    """Multiply-accumulates for the whole batch."""
    memory: int = 0
    """Bytes of all results, as if every one were kept (training keeps most of them, inference few)."""


@dataclass
class Summary:
    """Layers in the order in which they first run, and totals; ``str()`` is a table."""

    model: str
    inputs: tuple[Shape, ...]
    rows: list[Row] = field(default_factory=list)
    trainable: int = 0
    frozen: int = 0
    """Parameters that training leaves alone."""
    buffers: int = 0
    """Running statistics and other constants."""
    parameter_bytes: int = 0
    """Bytes of parameters and buffers."""

    @property
    def parameters(self) -> int:
        """All parameters, each counted once."""
        return self.trainable + self.frozen

    @property
    def macs(self) -> int:
        """Multiply-accumulates for the whole batch."""
        return sum(row.macs for row in self.rows)

    @property
    def memory(self) -> int:
        """Bytes of all results of all layers."""
        return sum(row.memory for row in self.rows)

    def __str__(self) -> str:
        table = [("layer", "kind", "output", "parameters", "MACs", "memory")]
        table += [
            (
                r.name,
                r.kind,
                "×".join(map(str, r.shape)),
                _grouped(r.parameters),
                _grouped(r.macs),
                _size(r.memory),
            )
            for r in self.rows
        ]
        total = ("total", "", "", _grouped(self.parameters), _grouped(self.macs), _size(self.memory))
        lines = _aligned([*table, total])
        rule = "─" * max(map(len, lines))
        shapes = ", ".join("×".join(map(str, shape)) for shape in self.inputs)
        return "\n".join(
            [
                f"{self.model}, input {shapes}",
                *lines[:1], rule, *lines[1:-1], rule, lines[-1],
                f"{self.trainable:,} trainable and {self.frozen:,} frozen parameters, {self.buffers:,} "
                f"other constants: {_size(self.parameter_bytes)}",
            ]
        )  # fmt: skip


def summary(model: Module, *shapes: Sequence[int], dtype: Any = np.float32) -> Summary:
    """Layers of ``model`` for inputs of ``shapes``, batch included: ``summary(model, (1, 3, 224, 224))``.

    A model read from ONNX is only reckoned; any other runs once on zeros, in evaluation mode. A module
    that several places share, or that runs several times, has one row with the sum.
    Raises what the model raises for such inputs.
    """
    inputs = tuple(tuple(int(size) for size in shape) for shape in shapes)
    report = Summary(type(model).__name__, inputs)
    for parameter in model.parameters():
        if parameter.requires_grad:
            report.trainable += parameter.size
        else:
            report.frozen += parameter.size
    report.buffers = sum(buffer.size for buffer in model.buffers())
    states = (*model.parameters(), *model.buffers())
    report.parameter_bytes = sum(_bytes(ArrayType(state.shape, state.dtype)) for state in states)
    if isinstance(model, GraphModule):
        report.rows = _graph_rows(model, inputs, np.dtype(dtype))
    else:
        report.rows = _module_rows(model, inputs, np.dtype(dtype))
    return report


# ------------------------------------------------------------------------------------ any module


class _Watcher:
    """Attributes every op that is applied to the innermost module that is running."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}  # by identity of the module
        self.running: list[tuple[str, Module]] = []

    def record(
        self, op: Op, inputs: Sequence[Tensor | None], params: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        name, module = self.running[-1]
        row = self.rows.setdefault(id(module), Row(name, type(module).__name__))
        types = [None if t is None else ArrayType(t.shape, t.dtype) for t in inputs]
        row.macs += op.macs(*types, **params) if op.macs is not None else 0
        row.memory += sum(_bytes(ArrayType(t.shape, t.dtype)) for t in outputs)
        row.shape = outputs[0].shape

    @contextmanager
    def on(self, model: Module) -> Iterator[None]:
        """Within the block every module below ``model`` says when it runs."""
        modules = list(model.named_modules())
        for name, module in modules:
            vars(module)["forward"] = self._watched(name or type(model).__name__, module, module.forward)
        token = tensors.tracer.set(self)
        try:
            yield
        finally:
            tensors.tracer.reset(token)
            for _, module in modules:
                del vars(module)["forward"]

    def _watched(self, name: str, module: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.running.append((name, module))
            try:
                return forward(*args, **kwargs)
            finally:
                self.running.pop()

        return watched


def _module_rows(model: Module, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> list[Row]:
    modes = [(module, module.training) for module in model.modules()]
    watcher = _Watcher()
    model.eval()
    try:
        with watcher.on(model), autograd.no_grad():
            model(*[Tensor(np.zeros(shape, dtype)) for shape in shapes])
    finally:
        for module, training in modes:
            module.training = training
    counted: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, own))
        if own:  # a layer that did not run (an auxiliary head) has a row as well
            row = watcher.rows.setdefault(id(module), Row(name, type(module).__name__))
            row.parameters = sum(parameter.size for parameter in own)
    return list(watcher.rows.values())


# -------------------------------------------------------------------------------- a model from a file


def _graph_rows(model: GraphModule, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> list[Row]:
    values = zip(model.graph.inputs, shapes, strict=True)
    types = infer_types(model.graph, {v: ArrayType(s, v.type.dtype if v.type else dtype) for v, s in values})
    uncounted = {v: model.leaf(v).size for v in model.graph.arrays if isinstance(model.leaf(v), Parameter)}
    rows = []
    for node in model.graph.nodes:
        row = Row(node.name, node.op.name, types[node.outputs[0]].shape, macs=node_macs(node, types))
        row.memory = sum(_bytes(types[value]) for value in node.outputs)
        row.parameters = sum(uncounted.pop(value, 0) for value in node.inputs if value is not None)
        rows.append(row)
    return rows


# ------------------------------------------------------------------------------------------ display


def _bytes(array: ArrayType) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _grouped(number: int) -> str:
    return f"{number:,}" if number else ""


def _size(number: int) -> str:
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:,.1f} kB"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(w) if i > 2 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
