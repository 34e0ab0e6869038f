"""Running a graph on plain arrays, node by node, where no program can be made: shapes depend on data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnlite import memory
from nnlite.graph.infer import resolve
from nnlite.graph.ir import Graph
from nnlite.layout import Array, channels_last, contiguous
from nnlite.node import Value
from nnlite.ops import ArrayType, Context

_ORDERS = {"channels_last": channels_last, "C": contiguous}


def interpret(graph: Graph, inputs: Sequence[Array], most: int | None = None) -> list[Array]:
    """The outputs of ``graph``; nothing is recorded. ``most`` bytes are allowed for each result."""
    values: dict[Value, Array] = dict(graph.arrays)
    values.update(zip(graph.inputs, inputs, strict=True))
    for node, dying in zip(graph.nodes, graph.last_uses(), strict=True):
        params = resolve(node.params, values)
        operands = [None if value is None else values[value] for value in node.inputs]
        types = [None if array is None else ArrayType(array.shape, array.dtype) for array in operands]
        memory.check_budget(node.op.name, node.op.output_types(types, params), most)
        order = _ORDERS.get(node.op.layout)
        if order is not None:
            operands = [None if array is None else order(array) for array in operands]
        result = node.op.forward(Context(params, (False,) * len(operands)), *operands, **params)
        results = result if isinstance(result, tuple) else (result,)
        values.update(zip(node.outputs, map(np.asarray, results), strict=True))
        for value in dying:
            values.pop(value, None)
    return [values[value] for value in graph.outputs]
