"""Let convolutions and batch normalisations add a residual and apply an activation in their own pass.

    relu(conv2d(x))                  conv2d(x, activation="relu")
    clamp(conv2d(x), low, high)      conv2d(x, activation=(low, high))
    conv2d(x) + r                    conv2d(x, residual=r)
    relu(conv2d(x) + r)              conv2d(x, residual=r, activation="relu")

The same for ``batch_norm``. The same numbers, forward and backward, so that it serves training as well as
inference. Applies where nothing else reads what disappears, and to a sum where both terms are known to
have one shape. ``split_epilogue`` is the inverse, for passes that look for plain nodes.
"""

from __future__ import annotations

from math import inf
from typing import Any

from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.rewrite import only_users, rebuild
from nnlite.node import Node, Value

PLAIN_INPUTS = {"conv2d": 3, "batch_norm": 5}
"""Ops that take an epilogue, and how many inputs they have without a residual."""


def fuse_epilogue(graph: Graph) -> Graph:
    """``graph`` with residuals and activations taken over by the nodes before them."""
    only_user = only_users(graph)
    replaced: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        plain = PLAIN_INPUTS.get(node.op.name)
        if plain is None or node.params.get("activation") or len(node.inputs) > plain:
            continue
        absorbed, residual, activation = [node], None, None
        following = only_user.get(node.outputs[0])
        if following is not None and following not in replaced:
            residual = _residual(node.outputs[0], following)
            if residual is not None:
                absorbed.append(following)
                following = only_user.get(following.outputs[0])
            # A batch normalisation cannot tell, seen from its output, what a clamp of a sum let through.
            clamps = residual is None or node.op.name != "batch_norm"
            activation = activation_of(following, clamps)
            if activation is not None and following is not None and following not in replaced:
                absorbed.append(following)
            else:
                activation = None
        if len(absorbed) == 1:
            continue
        params = dict(node.params) | ({} if activation is None else {"activation": activation})
        inputs = [*node.inputs, *([] if residual is None else [residual])]
        replaced |= {old: [] for old in absorbed}
        fused = make_node(node.op.name, inputs, params, [Value(name=node.outputs[0].name)], node.name)
        # Where the last of them stood: there the residual is known.
        replaced[absorbed[-1]] = [fused]
    return rebuild(graph, replaced)


def _residual(y: Value, following: Node) -> Value | None:
    """The other term of the sum ``following``, where it has y's type."""
    if following.op.name != "add" or y.type is None:
        return None
    if 1 in y.type.shape[2:]:
        return None  # maps of one pixel: the sum of a larger picture may broadcast what is alike here
    others = [value for value in following.inputs if value is not y]
    if len(others) != 1 or others[0] is None or others[0].type != y.type:
        return None
    return others[0]


def activation_of(node: Node | None, clamps: bool = True) -> str | tuple[float, float] | None:
    """What ``node`` is as an activation, if it is a ReLU or a clamp with known bounds."""
    if node is None:
        return None
    if node.op.name == "relu":
        return "relu"
    bounds = [node.params.get(name) for name in ("minimum", "maximum")]
    if node.op.name != "clamp" or not clamps or any(isinstance(bound, Value) for bound in bounds):
        return None
    low, high = bounds
    return (-inf if low is None else float(low), inf if high is None else float(high))


def split_epilogue(graph: Graph) -> Graph:
    """``graph`` with every sum and activation as a node of its own again."""
    replaced: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        plain = PLAIN_INPUTS.get(node.op.name)
        if plain is None or (len(node.inputs) <= plain and not node.params.get("activation")):
            continue
        params: dict[str, Any] = dict(node.params)
        activation = params.pop("activation", None)
        residual = node.inputs[plain] if len(node.inputs) > plain else None

        def value(part: str, of: Node = node) -> Value:
            return Value(name=f"{of.outputs[0].name}.{part}", type=of.outputs[0].type)

        parts = [make_node(node.op.name, node.inputs[:plain], params, [value("plain")], node.name)]
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
