"""If in a model file: a known condition picks its branch while reading, any other at run time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnlite.graph import Graph, branch_node, operands
from nnlite.node import Value
from nnlite.onnx.view import NodeView


def read_if(view: NodeView) -> Any:
    """The branch that a known condition picks, else a node that holds both."""
    then_graph, else_graph = view.graph("then_branch"), view.graph("else_branch")
    condition = view.constant(0)
    if condition is not None:
        if condition.size != 1:
            raise view.refuse(f"malformed: the condition has shape {list(condition.shape)}")
        nodes, outputs = view.read_branch(then_graph if condition.item() else else_graph)
        for node in nodes:
            view.add_node(node)
        return tuple(outputs)
    branches = [view.read_branch(graph) for graph in (then_graph, else_graph)]
    if len(branches[0][1]) != len(branches[1][1]):
        raise view.refuse("malformed: its branches have different numbers of outputs")
    computed = {value for nodes, _ in branches for node in nodes for value in node.outputs}
    graphs = [_graph(nodes, outputs, computed) for nodes, outputs in branches]
    captured = list(dict.fromkeys((*graphs[0].inputs, *graphs[1].inputs)))
    both = [Graph(tuple(captured), g.outputs, g.nodes) for g in graphs]
    outputs = [Value(name=f"{view.name}:{i}") for i in range(len(both[0].outputs))]
    for inner, outer in zip(both[0].outputs, outputs, strict=True):
        view.copy_kind(inner, outer)
    view.add_node(branch_node(view.inputs[0], captured, both[0], both[1], outputs, view.name))
    return tuple(outputs)


def _graph(nodes: Sequence[Any], outputs: Sequence[Value], inner: set[Value]) -> Graph:
    read = [value for node in nodes for value in operands(node)] + list(outputs)
    captured = tuple(dict.fromkeys(value for value in read if value not in inner))
    return Graph(captured, tuple(outputs), tuple(nodes))


READERS: dict[str, Callable[[NodeView], Any]] = {"If": read_if}
