"""Running a graph on plain arrays, node by node, where no program can be made: shapes depend on data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite import autograd
from nnlite.device import CPU, device_of, moved
from nnlite.graph.control import max_iterations
from nnlite.graph.ir import Graph
from nnlite.graph.sequences import handed_out
from nnlite.graph.step import run_node
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.tensors import Tensor


def interpret(graph: Graph, inputs: Sequence[Array], most: int | None = None, device: str = CPU) -> list[Any]:
    """The outputs of ``graph``; nothing is recorded. ``most`` bytes are allowed for each result.

    It runs on ``device``; results come back to where the first input is.
    """
    values: dict[Value, Any] = {value: Tensor(array) for value, array in graph.arrays.items()}
    values.update((v, Tensor(moved(a, device))) for v, a in zip(graph.inputs, inputs, strict=True))
    left = [max_iterations()]
    with autograd.no_grad(), autograd.byte_budget(most):
        for node, dying in zip(graph.nodes, graph.last_uses(), strict=True):
            values.update(zip(node.outputs, run_node(node, values, left), strict=True))
            for value in dying:
                values.pop(value, None)
    outputs = [values[value] for value in graph.outputs]
    if device == CPU:
        return [handed_out(item) for item in outputs]
    home = device_of(inputs[0]) if inputs else device
    return [moved(item._array, home) if isinstance(item, Tensor) else handed_out(item) for item in outputs]
