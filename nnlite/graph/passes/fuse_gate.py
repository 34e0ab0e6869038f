"""Put gates together that files spell out: one pass over memory instead of two to four.

    x · sigmoid(x)                                      silu(x)
    clamp(x + 3, 0, 6) / 6                              hardsigmoid(x), alpha 1/6, beta 1/2
    x · hardsigmoid(x), x · clamp(x + 3, 0, 6) / 6      hardswish(x)

The same but for rounding. Applies where nothing else reads what disappears.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.rewrite import only_users, rebuild
from nnlite.node import Node, Value

SIXTH = {"alpha": 1 / 6, "beta": 0.5}


def fuse_gate(graph: Graph) -> Graph:
    """``graph`` with silu, hardsigmoid and hardswish where they were written as arithmetic."""
    for one in (_hardsigmoid, _silu, _hardswish, _late_hardswish):
        graph = _replace(graph, one)
    return graph


Match = tuple[str, Value, dict[str, float], list[Node]]
"""Op, operand and params of the new node, and the nodes that it makes superfluous."""


def _replace(graph: Graph, match: Callable[[Graph, Node], Match | None]) -> Graph:
    only_user = only_users(graph)
    replaced: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        found = match(graph, node)
        if found is None:
            continue
        op, x, params, gone = found
        inner = [old for old in gone if old is not node]
        if any(old in replaced or only_user.get(old.outputs[0]) is None for old in inner):
            continue
        replaced |= {old: [] for old in inner}
        replaced[node] = [make_node(op, [x], params, [Value(name=node.outputs[0].name)], node.name)]
    return rebuild(graph, replaced) if replaced else graph


def _number(graph: Graph, value: Value | None) -> float | None:
    """The number behind a constant with one element, where that cannot make the result larger."""
    array = None if value is None else graph.arrays.get(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.ndim <= 1 else None


def _scaled(graph: Graph, node: Node) -> tuple[Value, float] | None:
    """x and c of x · c, or of x / (1/c)."""
    if node.op.name not in ("mul", "div"):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        factor = _number(graph, other)
        if x is not None and factor and (node.op.name == "mul" or x is node.inputs[0]):
            return x, factor if node.op.name == "mul" else 1 / factor
    return None


def _ramp(graph: Graph, value: Value | None) -> tuple[Value, list[Node]] | None:
    """x of clamp(x + 3, 0, 6), and the nodes that compute it."""
    clamp = value.node if value is not None else None
    if (
        clamp is None
        or clamp.op.name != "clamp"
        or (clamp.params["minimum"], clamp.params["maximum"]) != (0, 6)
    ):
        return None
    shifted = clamp.inputs[0].node if clamp.inputs[0] is not None else None
    if shifted is None or shifted.op.name != "add":
        return None
    for x, other in (shifted.inputs, shifted.inputs[::-1]):
        if x is not None and _number(graph, other) == 3:
            return x, [shifted, clamp]
    return None


def _is_sixth(factor: float) -> bool:
    return bool(np.isclose(factor, 1 / 6, rtol=1e-5))


def _hardsigmoid(graph: Graph, node: Node) -> Match | None:
    scaled = _scaled(graph, node)
    ramp = _ramp(graph, scaled[0]) if scaled is not None and _is_sixth(scaled[1]) else None
    return None if ramp is None else ("hardsigmoid", ramp[0], SIXTH, ramp[1])


def _gated(node: Node, op: str) -> tuple[Value, Node] | None:
    """x and the gate's node where ``node`` is x · op(x)."""
    if node.op.name != "mul":
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        source = gate.node if gate is not None else None
        if x is not None and source is not None and source.op.name == op and source.inputs[0] is x:
            return x, source
    return None


def _silu(graph: Graph, node: Node) -> Match | None:
    found = _gated(node, "sigmoid")
    return None if found is None else ("silu", found[0], {}, [found[1]])


def _hardswish(graph: Graph, node: Node) -> Match | None:
    found = _gated(node, "hardsigmoid")
    if found is None or not _is_sixth(found[1].params["alpha"]) or found[1].params["beta"] != 0.5:
        return None
    return "hardswish", found[0], {}, [found[1]]


def _late_hardswish(graph: Graph, node: Node) -> Match | None:
    """(x · clamp(x + 3, 0, 6)) / 6."""
    scaled = _scaled(graph, node)
    product = scaled[0].node if scaled is not None and _is_sixth(scaled[1]) else None
    if product is None or product.op.name != "mul":
        return None
    for x, gate in (product.inputs, product.inputs[::-1]):
        ramp = _ramp(graph, gate)
        if ramp is not None and ramp[0] is x:
            return "hardswish", x, {}, [*ramp[1], product]
    return None
