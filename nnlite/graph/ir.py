"""Graph: nodes in topological order between input and output values, and the arrays of its leaves.

Reading an ONNX file and tracing a module both build one; passes rewrite it; ``GraphModule`` runs it.
A graph is not changed once built: a pass returns a new one that shares what stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.ops import OPS, ArrayType, Op


def make_node(
    op: str | Op,
    inputs: Sequence[Value | None],
    params: Mapping[str, Any],
    outputs: Sequence[Value],
    name: str = "",
) -> Node:
    """A node of a graph, with ``outputs`` bound to it; ``op`` is a record or the name of a registered one."""
    node = Node(OPS[op] if isinstance(op, str) else op, tuple(inputs), dict(params), name)
    node.outputs = tuple(outputs)
    for index, value in enumerate(outputs):
        value.node, value.index = node, index
    return node


def operands(node: Node) -> Iterator[Value]:
    """Every value that ``node`` reads: its inputs and the values among its params."""
    for value in node.inputs:
        if value is not None:
            yield value
    for param in node.params.values():
        if isinstance(param, Value):
            yield param


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order. Leaves are inputs or have an array in ``arrays``."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    arrays: Mapping[Value, Array] = field(default_factory=dict)
    """Parameters, running statistics and other constants."""

    def between(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
        """The part that computes ``outputs`` from ``inputs``, with only the nodes and leaves it needs.

        Raises ValueError when ``outputs`` also need an input of the graph that is not listed.
        """
        given, needed = set(inputs), {value for value in outputs if value not in inputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(value in needed for value in node.outputs):
                kept.append(node)
                needed.update(value for value in operands(node) if value not in given)
        missing = [value for value in self.inputs if value in needed]
        if missing:
            raise ValueError(f"{', '.join(map(str, outputs))} also depend on {', '.join(map(str, missing))}")
        arrays = {value: array for value, array in self.arrays.items() if value in needed}
        return Graph(tuple(inputs), tuple(outputs), tuple(reversed(kept)), arrays)

    def users(self) -> dict[Value, list[Node]]:
        """For every value the nodes that read it, in order."""
        result: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(operands(node)):
                result.setdefault(value, []).append(node)
        return result

    def last_uses(self) -> list[list[Value]]:
        """For each node the values that nothing after it reads, so that they can be freed."""
        alive = set(self.outputs)
        result: list[list[Value]] = []
        for node in reversed(self.nodes):
            dying = [v for v in dict.fromkeys((*operands(node), *node.outputs)) if v not in alive]
            alive.update(dying)
            result.append([value for value in dying if value not in self.arrays])
        return result[::-1]

    def dependents(self, leaves: Iterable[Value]) -> set[Node]:
        """Every node whose result depends on one of ``leaves``."""
        reached: set[Value] = set(leaves)
        result: set[Node] = set()
        for node in self.nodes:
            if any(value in reached for value in operands(node)):
                result.add(node)
                reached.update(node.outputs)
        return result

    def cut_points(self) -> list[Value]:
        """Values, in order, through which everything that comes later depends on the inputs.

        Cutting there parts the graph in two that share nothing but that value.
        """
        depends: set[Value] = set(self.inputs)
        alive = set(self.inputs)
        remaining = {value: len(nodes) for value, nodes in self.users().items()}
        result: list[Value] = []
        for node in self.nodes:
            reads = set(operands(node))
            if not reads & depends:
                continue
            for value in reads & depends:
                remaining[value] -= 1
                if not remaining[value] and value not in self.outputs:
                    alive.discard(value)
            depends.update(node.outputs)
            alive.update(value for value in node.outputs if value in remaining or value in self.outputs)
            if len(alive) == 1 and node.outputs[0] in alive and node.outputs[0] not in self.outputs:
                result.append(node.outputs[0])
        return result

    def __str__(self) -> str:
        lines = [f"inputs {', '.join(map(str, self.inputs))}", *map(str, self.nodes)]
        return "\n".join([*lines, f"outputs {', '.join(map(str, self.outputs))}"])


Types = dict[Value, ArrayType]
