"""Compute what depends on constants alone, once: weights behind Transpose, Cast, Reshape, arithmetic.

Results that are larger than all operands together stay as they are (Expand, Tile, ConstantOfShape): a
small file must not turn into a large plan.
"""

from __future__ import annotations

import numpy as np

from nnlite.errors import NnliteError
from nnlite.graph.ir import Graph, operands
from nnlite.graph.passes.rewrite import rebuild
from nnlite.layout import Array, channels_last, contiguous
from nnlite.node import Node, Value
from nnlite.ops import OPS, ArrayType, Context

SMALL = 1 << 16
"""Bytes that a result may always have."""

_ORDERS = {"channels_last": channels_last, "C": contiguous}


def fold_constants(graph: Graph) -> Graph:
    """``graph`` with every node that reads only constants exchanged for its result."""
    arrays: dict[Value, Array] = dict(graph.arrays)
    folded: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op is not OPS.get(node.op.name) or not all(value in arrays for value in operands(node)):
            continue
        results = _compute(node, arrays)
        if results is not None:
            arrays.update(zip(node.outputs, results, strict=True))
            folded[node] = []
    if not folded:
        return graph
    return rebuild(graph, folded, arrays=arrays)


def _compute(node: Node, arrays: dict[Value, Array]) -> list[Array] | None:
    """The results, or None where the node is better left alone."""
    given = [None if value is None else arrays[value] for value in node.inputs]
    params = {k: arrays[p].tolist() if isinstance(p, Value) else p for k, p in node.params.items()}
    types = [None if value is None else ArrayType(value.shape, value.dtype) for value in given]
    try:
        results = node.op.output_types(types, params)
    except (NnliteError, NotImplementedError):  # what it says belongs to where the node runs
        return None
    size = sum(dtype.itemsize * int(np.prod(shape)) for shape, dtype in results)
    if any(-1 in shape for shape, _ in results) or size > max(
        SMALL, sum(a.nbytes for a in given if a is not None)
    ):
        return None
    order = _ORDERS.get(node.op.layout)
    ordered = [array if array is None or order is None else order(array) for array in given]
    result = node.op.forward(Context(params, (False,) * len(ordered)), *ordered, **params)
    return [np.asarray(array) for array in (result if isinstance(result, tuple) else (result,))]
