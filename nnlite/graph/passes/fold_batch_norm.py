"""Fold batch normalisation, and other scales and shifts per channel, into the layer beside them.

    bn(layer(x, w, b)) = layer(x, w · s, b · s + t),  s = weight / √(variance + epsilon), t = bias - mean · s
    layer(bn(x), w, b) = layer(x, w · s, b + Σ w · t),  s and t along the layer's input channels

The same for ``mul``, ``div``, ``add`` and ``sub`` with a constant per channel: TensorFlow's files keep
biases and scales as nodes of their own. Exact but for rounding; for inference only, because the statistics
are taken as constants. Applies where nothing else reads what lies between. A normalisation *before* a
convolution is folded only where the convolution does not pad: its zeros come after the shift.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnlite.geometry import resolve_pads
from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.fuse_epilogue import split_epilogue
from nnlite.graph.passes.rewrite import only_users, rebuild
from nnlite.layout import Array
from nnlite.node import Node, Value

LAYERS = ("conv2d", "conv_transpose2d", "linear")


class Affine(NamedTuple):
    """y = x · scale + shift per channel, in float64."""

    scale: Array
    shift: Array


def fold_batch_norm(graph: Graph) -> Graph:
    """``graph`` without the scales and shifts per channel that a neighbouring layer can absorb."""
    graph = split_epilogue(graph)
    while (folded := _fold_once(graph)) is not None:  # one layer may absorb several, one after the other
        graph = folded
    return graph


def _fold_once(graph: Graph) -> Graph | None:
    only_user = only_users(graph)
    arrays: dict[Value, Array] = {}
    replaced: dict[Node, list[Node]] = {}
    for first in graph.nodes:
        second = only_user.get(first.outputs[0])
        if second is None or first in replaced or second in replaced:
            continue
        if first.op.name in LAYERS:
            layer, channels = first, _channels(first, graph, outgoing=True)
            affine = _affine(second, first.outputs[0], graph, _axes(first), channels)
            weights = None if affine is None else _folded_after(layer, affine, graph)
        elif second.op.name in LAYERS and second.inputs[0] is first.outputs[0]:
            layer, channels = second, _channels(second, graph, outgoing=False)
            affine = _affine(first, first.inputs[0], graph, _axes(second), channels)
            weights = None if affine is None else _folded_before(layer, affine, graph)
        else:
            continue
        if weights is None:
            continue
        values = [Value(name=f"{second.name}.folded_{part}") for part in ("weight", "bias")]
        arrays.update(zip(values, weights, strict=True))
        source = first.inputs[0] if layer is first else _operand(first, graph)
        # The new node's result is a new value, because graphs share their old ones.
        result = Value(name=second.outputs[0].name, type=second.outputs[0].type)
        replaced[first] = []
        replaced[second] = [make_node(layer.op, [source, *values], layer.params, [result], layer.name)]
    return rebuild(graph, replaced, arrays=arrays) if replaced else None


def _axes(layer: Node) -> int | None:
    """How many axes lie behind the channels in what the layer reads and computes; None: not known."""
    if layer.op.name != "linear":
        return 2
    known = layer.outputs[0].type or (layer.inputs[0].type if layer.inputs[0] is not None else None)
    # Of a linear layer on more than two axes the features lie last, of a normalisation second.
    return 0 if known is not None and len(known.shape) == 2 else None


def _channels(layer: Node, graph: Graph, outgoing: bool) -> int | None:
    weight = graph.arrays.get(layer.inputs[1]) if layer.inputs[1] is not None else None
    if weight is None or any(v is not None and v not in graph.arrays for v in layer.inputs[1:]):
        return None
    groups = int(layer.params.get("groups", 1))
    transposed = layer.op.name == "conv_transpose2d"
    first, second = int(weight.shape[0]), int(weight.shape[1]) * groups
    return second if outgoing == transposed else first


def _operand(node: Node, graph: Graph) -> Value | None:
    """What an affine node is applied to: its one operand that is not constant."""
    return next(value for value in node.inputs if value is not None and value not in graph.arrays)


def _affine(
    node: Node, x: Value | None, graph: Graph, axes: int | None, channels: int | None
) -> Affine | None:
    """The scale and shift that ``node`` applies to each channel, or None."""
    if channels is None or axes is None or x is None:
        return None
    constants = [graph.arrays.get(v) for v in node.inputs if v is not None and v is not x]
    if any(c is None or c.dtype.kind != "f" for c in constants) or not constants:
        return None
    if node.op.name == "batch_norm":
        if node.inputs[0] is not x:
            return None
        gamma, beta, mean, variance = (c.astype(np.float64) for c in constants if c is not None)
        scale = gamma / np.sqrt(variance + node.params["epsilon"])
        return Affine(scale, beta - mean * scale)
    if node.op.name not in ("add", "sub", "mul", "div") or len(node.inputs) != 2:
        return None
    vector = _per_channel(constants[0], channels, axes)
    if vector is None:
        return None
    one, zero, left = np.ones(channels), np.zeros(channels), node.inputs[0] is x
    match node.op.name:
        case "add":
            return Affine(one, vector)
        case "sub":
            return Affine(one, -vector) if left else Affine(-one, vector)
        case "mul":
            return Affine(vector, zero)
        case _:
            return Affine(1 / vector, zero) if left and vector.all() else None


def _per_channel(constant: Array | None, channels: int, axes: int) -> Array | None:
    """A constant that broadcasts over [N,C,...] to one number per channel, as float64 [C]."""
    if constant is None or (constant.ndim > axes + 2) or constant.size not in (1, channels):
        return None
    shape = (1,) * (axes + 2 - constant.ndim) + constant.shape
    if constant.size == channels != 1 and shape != (1, channels, *[1] * axes):
        return None
    return np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,))


def _weights(layer: Node, graph: Graph) -> tuple[Array, Array | float]:
    w, b = (None if value is None else graph.arrays[value] for value in (*layer.inputs[1:3], None)[:2])
    assert w is not None
    return w, 0.0 if b is None else b.astype(np.float64)


def _folded_after(layer: Node, affine: Affine, graph: Graph) -> tuple[Array, Array]:
    w, b = _weights(layer, graph)
    if layer.op.name == "conv_transpose2d":  # w [C, K/groups, R, S]: the output's channels are second
        groups = layer.params["groups"]
        by_group = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
        scaled = (by_group * affine.scale.reshape(groups, 1, -1, 1)).reshape(w.shape)
    else:
        scaled = w * affine.scale.reshape(-1, *[1] * (w.ndim - 1))
    return scaled.astype(w.dtype), (b * affine.scale + affine.shift).astype(w.dtype)


def _folded_before(layer: Node, affine: Affine, graph: Graph) -> tuple[Array, Array] | None:
    if layer.op.name == "conv_transpose2d" or not _pads_nothing(layer, affine):
        return None
    w, b = _weights(layer, graph)
    groups = layer.params.get("groups", 1)
    by_group = w.astype(np.float64).reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    scale, shift = (vector.reshape(groups, 1, -1, 1) for vector in affine)
    bias = b + (by_group * shift).sum((2, 3)).reshape(-1)
    return (by_group * scale).reshape(w.shape).astype(w.dtype), bias.astype(w.dtype)


def _pads_nothing(layer: Node, affine: Affine) -> bool:
    padding = layer.params.get("padding", (0, 0, 0, 0))
    if not affine.shift.any() or padding == "valid":
        return True
    if isinstance(padding, str):
        return False
    return not any(resolve_pads(layer.op.name, padding, (1, 1), (1, 1), (1, 1), (1, 1)))
