"""Write inferred types onto the values of a graph, for passes that may only act where shapes are known."""

from __future__ import annotations

from nnlite.graph.ir import Graph, Types
from nnlite.graph.passes.rewrite import rebuild


def annotate(graph: Graph, types: Types) -> Graph:
    """``graph``, without dead nodes, with new values that carry ``types``; its leaves stay what they are."""
    graph = graph.between(graph.inputs, graph.outputs)
    annotated = rebuild(graph, {})
    for old, new in zip(graph.nodes, annotated.nodes, strict=True):
        for before, after in zip(old.outputs, new.outputs, strict=True):
            after.type = types[before]
    return annotated
