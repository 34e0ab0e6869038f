"""Remove nodes that hand on what they get.

    identity(x), dropout(x), clamp(x, None, None), transpose(x, (0, 1, 2)), pad(x, 0...)  become  x

For inference only, because dropout is among them. A node whose result is an output of the graph stays,
so that outputs keep their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnlite.graph.ir import Graph
from nnlite.graph.passes.rewrite import rebuild
from nnlite.node import Value

Params = Mapping[str, Any]


def _is_zero(pads: Any) -> bool:
    return not isinstance(pads, Value) and not any(pads)


def _in_order(axes: Any) -> bool:
    return axes is not None and tuple(axes) == tuple(range(len(axes)))  # None reverses them


IDENTITIES: Mapping[str, Callable[[Params], bool]] = {
    "identity": lambda params: True,
    "dropout": lambda params: True,
    "clamp": lambda params: params["minimum"] is None and params["maximum"] is None,
    "transpose": lambda params: _in_order(params["axes"]),
    "pad": lambda params: _is_zero(params["pads"]),
}
"""Op -> whether it does nothing, by its params."""


def remove_identity(graph: Graph) -> Graph:
    """``graph`` without nodes that change nothing."""
    bypassed = {}
    for node in graph.nodes:
        does_nothing = IDENTITIES.get(node.op.name)
        source = node.inputs[0] if node.inputs else None
        if does_nothing is None or source is None or any(v in graph.outputs for v in node.outputs):
            continue
        if len(node.outputs) == 1 and does_nothing(node.params):
            bypassed[node] = source
    return rebuild(graph, {}, bypassed=bypassed) if bypassed else graph
