"""Running a graph on plain arrays, node by node, where no program can be made: shapes depend on data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite import autograd
from nnlite.graph.control import max_iterations
from nnlite.graph.ir import Graph
from nnlite.graph.sequences import handed_out
from nnlite.graph.step import run_node
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.tensors import Tensor


def interpret(graph: Graph, inputs: Sequence[Array], most: int | None = None) -> list[Any]:
    """The outputs of ``graph``; nothing is recorded. ``most`` bytes are allowed for each result."""
    values: dict[Value, Any] = {value: Tensor(array) for value, array in graph.arrays.items()}
    values.update((value, Tensor(array)) for value, array in zip(graph.inputs, inputs, strict=True))
    left = [max_iterations()]
    with autograd.no_grad(), autograd.byte_budget(most):
        for node, dying in zip(graph.nodes, graph.last_uses(), strict=True):
            values.update(zip(node.outputs, run_node(node, values, left), strict=True))
            for value in dying:
                values.pop(value, None)
    return [handed_out(values[value]) for value in graph.outputs]
