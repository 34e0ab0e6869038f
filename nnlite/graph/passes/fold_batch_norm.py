"""Fold batch normalisation into the convolution or linear layer before it.

    bn(conv(x, w, b)) = conv(x, w · s, (b - mean) · s + bias),  s = weight / √(variance + epsilon)

Exact but for rounding; for inference only, because the statistics are taken as constants. Applies
where nothing else reads the convolution's result.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.fuse_epilogue import split_epilogue
from nnlite.graph.passes.rewrite import rebuild
from nnlite.layout import Array
from nnlite.node import Node, Value

FOLDABLE = ("conv2d", "linear")


def fold_batch_norm(graph: Graph) -> Graph:
    """``graph`` without the batch normalisations that a preceding layer can absorb."""
    graph = split_epilogue(graph)
    users = graph.users()
    producers = {value: node for node in graph.nodes for value in node.outputs}
    arrays = dict(graph.arrays)
    replaced: dict[Node, list[Node]] = {}
    for norm in graph.nodes:
        layer = producers.get(norm.inputs[0]) if norm.op.name == "batch_norm" and norm.inputs[0] else None
        if layer is None or not _can_absorb(layer, norm, graph, users):
            continue
        weight, bias = _folded(layer, norm, arrays)
        w_value, b_value = (Value(name=f"{norm.name}.folded_{part}") for part in ("weight", "bias"))
        arrays[w_value], arrays[b_value] = weight, bias
        # The new node's result is a new value, because graphs share their old ones.
        result = Value(name=norm.outputs[0].name)
        folded = make_node(
            layer.op.name, [layer.inputs[0], w_value, b_value], layer.params, [result], layer.name
        )
        replaced[norm] = [folded]
        replaced[layer] = []
    return rebuild(replace(graph, arrays=arrays), replaced)


def _can_absorb(layer: Node, norm: Node, graph: Graph, users: dict[Value, list[Node]]) -> bool:
    if layer.op.name not in FOLDABLE or len(users[layer.outputs[0]]) > 1 or layer.outputs[0] in graph.outputs:
        return False
    known = layer.outputs[0].type
    if layer.op.name == "linear" and known is not None and len(known.shape) != 2:
        return False  # its features lie along the last axis, the normalisation works along the second
    constants = [*layer.inputs[1:], *norm.inputs[1:]]
    return all(value is None or value in graph.arrays for value in constants)


def _folded(layer: Node, norm: Node, arrays: dict[Value, Array]) -> tuple[Array, Array]:
    w, b = (None if value is None else arrays[value] for value in layer.inputs[1:3])
    gamma, beta, mean, variance = (arrays[value].astype(np.float64) for value in norm.inputs[1:] if value)
    assert w is not None
    scale = gamma / np.sqrt(variance + norm.params["epsilon"])
    weight = (w * scale.reshape(-1, *[1] * (w.ndim - 1))).astype(w.dtype)
    bias = ((0 if b is None else b) - mean) * scale + beta
    return weight, bias.astype(w.dtype)
