"""Which leaves of a graph are parameters, and which are only constants."""

from __future__ import annotations

from nnlite.graph.ir import Graph
from nnlite.node import Value

WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "conv2d": (1, 2),
    "conv_transpose2d": (1, 2),
    "linear": (1, 2),
    "batch_norm": (1, 2),
}
"""Ops with inputs that are weights by their meaning."""

STATISTIC_INPUTS: dict[str, tuple[int, ...]] = {"batch_norm": (3, 4), "fake_quantize": (1, 2)}
"""Inputs that are measured, never trained."""


def parameter_leaves(graph: Graph) -> set[Value]:
    """The leaves that training may change.

    A floating-point leaf is a parameter where it is a weight by its meaning, or where it is an
    operand of any other op and holds more than one number: a single number in a model file is a
    constant of a formula (x * 0.5, x / 255), not something learned.
    """
    found: set[Value] = set()
    measured: set[Value] = set()
    for node in graph.nodes:
        weights = WEIGHT_INPUTS.get(node.op.name, ())
        for index, value in enumerate(node.inputs):
            if value is None or value not in graph.arrays:
                continue
            array = graph.arrays[value]
            if index in STATISTIC_INPUTS.get(node.op.name, ()):
                measured.add(value)
            elif (
                array.dtype.kind == "f" and array.dtype.itemsize > 1 and (index in weights or array.size > 1)
            ):
                found.add(value)
    return found - measured
