"""What a graph's runner carries out itself: control flow, and sequences of tensors.

Such a node is no op of the registry: it sees Tensors, not arrays, so that what happens within it is
recorded node by node like everything else, and gradients need no rule of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnlite.errors import ModelError
from nnlite.graph.ir import Graph, make_node
from nnlite.node import Node, Value
from nnlite.ops import ErrorSample, Op, Sample

Run = Callable[[Node, Mapping[Value, Any]], Sequence[Any]]
"""Runs one node on values: tensors, sequences of them, or None for an optional value that is absent."""
Carry = Callable[[Node, Sequence[Any], "Runner"], Sequence[Any]]
"""Carries out one node of control, given its operands."""


def max_iterations() -> int:
    """Iterations of loops in one run of a model (``NNLITE_MAX_ITERATIONS``, 32768 by default)."""
    return int(os.environ.get("NNLITE_MAX_ITERATIONS", 1 << 15))


class Runner:
    """What a node of control runs other nodes with, and how many iterations it has left."""

    def __init__(self, run: Run, left: list[int]) -> None:
        self._run = run
        self._left = left
        """One number, which loops within loops share."""

    def body(self, graph: Graph, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of a graph."""
        values = dict(zip(graph.inputs, inputs, strict=True))
        for node in graph.nodes:
            values.update(zip(node.outputs, self._run(node, values), strict=True))
        return [values[value] for value in graph.outputs]

    def foresee(self, node: Node, count: float) -> None:
        """ModelError when ``count`` more iterations will be too many."""
        if count > self._left[0]:
            raise ModelError(
                f"{node.name}: more than {max_iterations()} iterations; if the loop does end, raise "
                "NNLITE_MAX_ITERATIONS"
            )

    def iterate(self, node: Node) -> None:
        """Count one iteration; ModelError when there were too many."""
        self.foresee(node, 1)
        self._left[0] -= 1


CONTROL: dict[str, Carry] = {}
_OPS: dict[str, Op] = {}


def _unknown(*types: Any, **params: Any) -> Any:
    raise NotImplementedError("what comes out of control flow depends on data")


def control(
    name: str, formula: str, source: str, shape: Any = _unknown, forward: Any = _unknown
) -> Callable[[Carry], Carry]:
    """Enter what carries out nodes called ``name``."""

    def enter(carry: Carry) -> Carry:
        _OPS[name] = Op(
            name=name,
            formula=formula,
            gradient="that of the nodes that ran, which are recorded one by one",
            source=source,
            shape=shape,
            forward=forward,
            backward=None,
            samples=lambda: [Sample()],
            errors=lambda: [ErrorSample(ModelError, "")],
            writes=None,
        )
        CONTROL[name] = carry
        return carry

    return enter


def control_node(
    op: str, inputs: Sequence[Value | None], params: Mapping[str, Any], outputs: Sequence[Value], name: str
) -> Node:
    """A node of control, with ``outputs`` bound to it."""
    return make_node(_OPS[op], inputs, params, outputs, name)
