"""Shapes, types and costs of a graph for given input types, without running the heavy part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnlite.graph.ir import Graph, Types
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.ops import ArrayType, Context

SMALL = 4096
"""Integer arrays up to this many elements are computed, because shapes may depend on them."""


def resolve(params: Mapping[str, Any], known: Mapping[Value, Array]) -> dict[str, Any]:
    """``params`` with every Value replaced by what it holds, as Python numbers.

    Raises KeyError for a value that is not known.
    """
    return {
        name: known[param].tolist() if isinstance(param, Value) else param for name, param in params.items()
    }


class _Outline:
    """The shape of an array of any size, without the array: all that ``shape_of`` looks at."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.ndim = shape, len(shape)


def infer_types(graph: Graph, inputs: Mapping[Value, ArrayType]) -> Types:
    """The type of every value for the given types of the inputs; raises the shape rules' errors.

    Raises NotImplementedError where a shape depends on data.
    """
    return infer(graph, inputs)[0]


def infer(graph: Graph, inputs: Mapping[Value, ArrayType]) -> tuple[Types, dict[Value, Array]]:
    """What :func:`infer_types` says, and the constants: the graph's, and what follows from the shapes."""
    types: Types = dict(inputs)
    known: dict[Value, Array] = {}
    for value, array in graph.arrays.items():
        types[value] = ArrayType(array.shape, array.dtype)
        known[value] = array
    for node in graph.nodes:
        try:
            params = resolve(node.params, known)
        except KeyError as missing:
            raise NotImplementedError(f"{node.name}: a shape depends on the data in {missing}") from None
        operand_types = [None if value is None else types[value] for value in node.inputs]
        outputs = node.op.output_types(operand_types, params)
        if any(-1 in output.shape for output in outputs):
            raise NotImplementedError(f"{node.name}: how much comes out depends on data")
        types.update(zip(node.outputs, outputs, strict=True))
        known.update(_computed(node, params, types, known))
    return types, known


def _computed(
    node: Node, params: Mapping[str, Any], types: Types, known: Mapping[Value, Array]
) -> dict[Value, Array]:
    output = types[node.outputs[0]]
    if output.dtype.kind not in "iub" or int(np.prod(output.shape)) > SMALL:
        return {}
    if node.op.name == "shape_of":
        assert node.inputs[0] is not None
        operands: list[Any] = [_Outline(types[node.inputs[0]].shape)]
    elif all(value is None or value in known for value in node.inputs):
        operands = [None if value is None else known[value] for value in node.inputs]
    else:
        return {}
    result = node.op.forward(Context(params, (False,) * len(operands)), *operands, **params)
    return dict(zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True))


def node_macs(node: Node, types: Types) -> int:
    """Multiply-accumulates of one node, from inferred ``types``."""
    if node.op.macs is None:
        return 0
    operand_types = [None if value is None else types[value] for value in node.inputs]
    return node.op.macs(*operand_types, **node.params)
