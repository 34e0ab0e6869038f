"""Tracing: run a module once and write down the ops it applies, as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite import autograd, tensors
from nnlite.device import to_host
from nnlite.graph.ir import Graph, make_node
from nnlite.nn import Module
from nnlite.node import Node, Value
from nnlite.ops import ArrayType, Op
from nnlite.tensors import Tensor


class _Recorder:
    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self.nodes: list[Node] = []
        self.values: dict[int, Value] = {}
        self.leaves: dict[Value, Tensor] = {}
        self._alive: list[Tensor] = []  # ids are only unique among living objects

    def value(self, tensor: Tensor) -> Value:
        """The value of ``tensor``; one never seen before is a leaf."""
        if id(tensor) not in self.values:
            name = self.names.get(id(tensor), f"constant_{len(self.leaves)}")
            leaf = self.bind(tensor, Value(name=name))
            self.leaves[leaf] = tensor
        return self.values[id(tensor)]

    def bind(self, tensor: Tensor, value: Value) -> Value:
        value.type = ArrayType(tensor.shape, tensor.dtype)
        self.values[id(tensor)] = value
        self._alive.append(tensor)
        return value

    def record(
        self, op: Op, inputs: Sequence[Tensor | None], params: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        operands = [None if tensor is None else self.value(tensor) for tensor in inputs]
        name = f"{op.name}_{len(self.nodes)}"
        results = [
            self.bind(tensor, Value(name=name if len(outputs) == 1 else f"{name}_{i}"))
            for i, tensor in enumerate(outputs)
        ]
        self.nodes.append(make_node(op.name, operands, params, results, name))


def trace(
    module: Module, inputs: Sequence[Tensor], names: Sequence[str] | None = None
) -> tuple[Graph, dict[Value, Tensor]]:
    """The graph of ``module(*inputs)`` in evaluation mode, and the tensors behind its leaves.

    Only ops are seen: Python control flow and sizes are frozen as they were for ``inputs``.
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    recorder = _Recorder({id(tensor): name for name, tensor in named})
    given = [tensor.detach() for tensor in inputs]  # fresh objects: an input passed twice stays two
    input_names = names or (["input"] if len(given) == 1 else [f"input_{i}" for i in range(len(given))])
    values = [recorder.bind(t, Value(name=n)) for t, n in zip(given, input_names, strict=True)]
    modes = [(part, part.training) for _, part in module.named_modules()]
    module.eval()
    token = tensors.tracer.set(recorder)
    try:
        with autograd.no_grad():
            result = module(*given)
    finally:
        tensors.tracer.reset(token)
        for part, training in modes:
            part.training = training
    listed = [result] if isinstance(result, Tensor) else list(result)
    outputs = [recorder.value(tensor) for tensor in listed]
    arrays = {value: to_host(tensor.array) for value, tensor in recorder.leaves.items()}
    graph = Graph(tuple(values), tuple(outputs), tuple(recorder.nodes), arrays).between(values, outputs)
    return graph, recorder.leaves
