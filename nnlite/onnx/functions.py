"""Functions that a model defines: found by name, and counted before any of them is spelled out.

A function is read where it is called, its nodes among the others. Thirty functions of which each calls
the next one twice are a thousand million nodes: what would come out is counted first.
"""

from __future__ import annotations

from collections.abc import Iterable

from nnlite.errors import ModelError
from nnlite.onnx.proto import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

Key = tuple[str, str, str]
MAX_NODES = 100_000
"""More nodes than this are no network; reading them would take a minute."""
MAX_DEPTH = 50
"""Functions within functions, and branches within branches."""

DOMAINS = ("", "ai.onnx")


def key_of(item: NodeProto | FunctionProto) -> Key:
    """What a node calls a function by, and a function is called."""
    name = item.op_type if isinstance(item, NodeProto) else item.name
    domain = "" if item.domain == "ai.onnx" else item.domain
    return domain, name, getattr(item, "overload", "")


class Functions:
    """The functions of a model, checked to end: no recursion, no more than MAX_NODES nodes."""

    def __init__(self, model: ModelProto, where: str) -> None:
        self._where = where
        self._by_key: dict[Key, FunctionProto] = {}
        for function in model.functions:
            if key_of(function) in self._by_key:
                raise ModelError(f"{where}: the function {function.name!r} is defined twice")
            self._by_key[key_of(function)] = function
        self._sizes: dict[Key, tuple[int, int]] = {}
        self._open: list[Key] = []
        self._size(model.graph.node, 0)

    def find(self, node: NodeProto) -> FunctionProto | None:
        """The function that ``node`` calls; None where it is an operator."""
        return self._by_key.get(key_of(node))

    def _size(self, nodes: Iterable[NodeProto], depth: int) -> tuple[int, int]:
        """Nodes when all is spelled out, and levels below."""
        if depth > MAX_DEPTH:
            raise ModelError(f"{self._where}: functions and branches lie more than {MAX_DEPTH} deep")
        count = levels = 0
        for node in nodes:
            count += 1
            parts = [self._called(node, depth)] if key_of(node) in self._by_key else []
            parts += [self._size(graph.node, depth + 1) for graph in graphs_of(node)]
            count += sum(size for size, _ in parts)
            levels = max([levels, *(below + 1 for _, below in parts)])
            if count > MAX_NODES:
                raise ModelError(f"{self._where}: spelled out, its functions are more than {MAX_NODES} nodes")
        if depth + levels > MAX_DEPTH:
            raise ModelError(f"{self._where}: functions and branches lie more than {MAX_DEPTH} deep")
        return count, levels

    def _called(self, node: NodeProto, depth: int) -> tuple[int, int]:
        key = key_of(node)
        if key in self._open:
            raise ModelError(f"{self._where}: the function {node.op_type!r} calls itself")
        if key not in self._sizes:
            self._open.append(key)
            self._sizes[key] = self._size(self._by_key[key].node, depth + 1)
            self._open.pop()
        return self._sizes[key]


def graphs_of(node: NodeProto) -> list[GraphProto]:
    """The graphs that ``node`` holds: branches and loop bodies."""
    kinds = AttributeProto
    found = [a.g for a in node.attribute if a.type == kinds.GRAPH]
    return found + [g for a in node.attribute if a.type == kinds.GRAPHS for g in a.graphs]
