"""Let a batch normalisation add a residual and apply an activation in its own pass over memory.

    relu(batch_norm(x))              batch_norm(x, activation="relu")
    clamp(batch_norm(x), low, high)  batch_norm(x, activation=(low, high))
    batch_norm(x) + r                batch_norm(x, residual=r)
    relu(batch_norm(x) + r)          batch_norm(x, residual=r, activation="relu")

The same numbers, forward and backward, so that it serves training as well as inference. Applies where
nothing else reads what disappears, and to a sum where both terms are known to have one shape.
``split_activation`` is the inverse, for passes that look for a plain normalisation.
"""

from __future__ import annotations

from math import inf
from typing import Any

from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.rewrite import rebuild
from nnlite.node import Node, Value


def fuse_activation(graph: Graph) -> Graph:
    """``graph`` with residuals and activations taken over by the batch normalisations before them."""
    users = graph.users()
    only_user = {
        value: nodes[0] for value, nodes in users.items() if len(nodes) == 1 and value not in graph.outputs
    }
    replaced: dict[Node, list[Node]] = {}
    for norm in graph.nodes:
        if norm.op.name != "batch_norm" or norm.params.get("activation") or len(norm.inputs) > 5:
            continue
        last, residual, activation = norm, None, None
        following = only_user.get(norm.outputs[0])
        if following is not None and following not in replaced:
            residual = _residual(norm.outputs[0], following)
            if residual is not None:
                last, following = following, only_user.get(following.outputs[0])
            activation = _activation(following, clamps=residual is None)
            if activation is not None and following is not None and following not in replaced:
                last = following
            else:
                activation = None
        if last is norm:
            continue
        params = dict(norm.params) | ({} if activation is None else {"activation": activation})
        inputs = [*norm.inputs, *([] if residual is None else [residual])]
        fused = make_node("batch_norm", inputs, params, [Value(name=norm.outputs[0].name)], norm.name)
        absorbed: Node | None = norm
        while absorbed is not None and absorbed is not last:
            replaced[absorbed] = []
            absorbed = only_user.get(absorbed.outputs[0])
        replaced[last] = [fused]
    return rebuild(graph, replaced)


def _residual(y: Value, node: Node) -> Value | None:
    """The other term of the sum ``node``, where it has y's type."""
    if node.op.name != "add":
        return None
    others = [value for value in node.inputs if value is not y]
    if len(others) != 1 or others[0] is None or y.type is None:
        return None
    return others[0] if others[0].type == y.type else None


def _activation(node: Node | None, clamps: bool) -> str | tuple[float, float] | None:
    if node is None:
        return None
    if node.op.name == "relu":
        return "relu"
    bounds = [node.params.get(name) for name in ("minimum", "maximum")]
    if node.op.name != "clamp" or not clamps or any(isinstance(bound, Value) for bound in bounds):
        return None
    low, high = bounds
    return (-inf if low is None else float(low), inf if high is None else float(high))


def split_activation(graph: Graph) -> Graph:
    """``graph`` with every batch normalisation plain again, its sum and its activation as nodes."""
    replaced: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op.name != "batch_norm" or (len(node.inputs) == 5 and not node.params.get("activation")):
            continue
        params: dict[str, Any] = dict(node.params)
        activation = params.pop("activation", None)
        residual = node.inputs[5] if len(node.inputs) > 5 else None

        def value(part: str, of: Node = node) -> Value:
            return Value(name=f"{of.outputs[0].name}.{part}", type=of.outputs[0].type)

        parts = [make_node("batch_norm", node.inputs[:5], params, [value("norm")], node.name)]
        if residual is not None:
            inputs = [parts[-1].outputs[0], residual]
            parts.append(make_node("add", inputs, {}, [value("sum")], f"{node.name}.add"))
        if activation is not None:
            name = "relu" if activation == "relu" else "clamp"
            bounds = {} if name == "relu" else dict(zip(("minimum", "maximum"), activation, strict=True))
            inputs = [parts[-1].outputs[0]]
            parts.append(make_node(name, inputs, bounds, [value("activation")], f"{node.name}.{name}"))
        replaced[node] = parts
    return rebuild(graph, replaced)
