"""Let a convolution do the padding that stands before it.

    conv2d(pad(x, zeros), padding=p)  becomes  conv2d(x, padding=p + zeros)

Exact. Applies to constant zeros along height and width that nothing else reads: TensorFlow's files pad
this way where its windows are asymmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite.geometry import resolve_pads
from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.rewrite import only_users, rebuild
from nnlite.node import Node, Value


def fold_pad(graph: Graph) -> Graph:
    """``graph`` with explicit zero padding moved into the convolutions."""
    only_user = only_users(graph)
    replaced: dict[Node, list[Node]] = {}
    for pad in graph.nodes:
        conv = only_user.get(pad.outputs[0]) if pad.op.name == "pad" else None
        if conv is None or conv.op.name != "conv2d" or conv.inputs[0] is not pad.outputs[0]:
            continue
        more, padding = _zeros(pad.params), conv.params["padding"]
        if more is None or (isinstance(padding, str) and padding != "valid"):
            continue
        own = resolve_pads("conv2d", padding, (1, 1), (1, 1), (1, 1), (1, 1))
        params = dict(conv.params, padding=tuple(a + b for a, b in zip(own, more, strict=True)))
        replaced[pad] = []
        inputs = [pad.inputs[0], *conv.inputs[1:]]
        replaced[conv] = [make_node("conv2d", inputs, params, [Value(name=conv.outputs[0].name)], conv.name)]
    return rebuild(graph, replaced) if replaced else graph


def _zeros(params: Any) -> tuple[int, int, int, int] | None:
    """top, left, bottom, right of a pad [N,C,H,W] with zeros, else None."""
    pads, axes = params["pads"], params.get("axes")
    values = (pads, axes, params.get("value", 0.0))
    if any(isinstance(value, Value) for value in values):
        return None
    if params.get("mode", "constant") != "constant" or params.get("value", 0.0) != 0:
        return None
    named: Sequence[int] = range(len(pads) // 2) if axes is None else axes
    if axes is None and len(pads) != 8:
        return None
    ends = {int(axis) % 4: (int(pads[i]), int(pads[i + len(named)])) for i, axis in enumerate(named)}
    if any(ends.get(axis, (0, 0)) != (0, 0) for axis in (0, 1)) or min(map(min, ends.values())) < 0:
        return None
    (top, bottom), (left, right) = (ends.get(axis, (0, 0)) for axis in (2, 3))
    return top, left, bottom, right
