"""What passes share: a graph with some of its nodes exchanged for others, or bypassed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnlite.graph.ir import Graph, make_node, operands
from nnlite.layout import Array
from nnlite.node import Node, Value

NOTHING: Mapping[Value, Array] = {}


def rebuild(
    graph: Graph,
    replaced: Mapping[Node, Sequence[Node]],
    *,
    bypassed: Mapping[Node, Value] | None = None,
    arrays: Mapping[Value, Array] = NOTHING,
) -> Graph:
    """``graph`` with each node of ``replaced`` exchanged for a sequence of nodes, or for none.

    The last node of a sequence computes what the old node did. Everything after reads the new results,
    which are new values: graphs share their old ones. A node of ``bypassed`` goes, and what read its one
    result reads the given value instead. ``arrays`` are new constants, by the values that nodes read.
    """
    renamed: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if bypassed and node in bypassed:
            source = bypassed[node]
            renamed[node.outputs[0]] = renamed.get(source, source)
            continue
        sequence = replaced.get(node, (node,))
        for current in sequence:
            inputs = [renamed.get(v, v) if v is not None else None for v in current.inputs]
            params = {k: renamed.get(p, p) if isinstance(p, Value) else p for k, p in current.params.items()}
            last = current is sequence[-1]
            olds = node.outputs if last else current.outputs
            results = [Value(name=v.name, type=v.type) for v in olds]
            nodes.append(make_node(current.op, inputs, params, results, current.name))
            renamed.update(zip(olds, results, strict=True))
    outputs = [renamed.get(value, value) for value in graph.outputs]
    whole = Graph(graph.inputs, tuple(outputs), tuple(nodes), {**graph.arrays, **arrays})
    return whole.between(graph.inputs, outputs)


def only_users(graph: Graph) -> dict[Value, Node]:
    """The node that reads a value, for values that exactly one node reads, once, and that are no outputs."""
    return {
        value: nodes[0]
        for value, nodes in graph.users().items()
        if len(nodes) == 1 and value not in graph.outputs and list(operands(nodes[0])).count(value) == 1
    }
