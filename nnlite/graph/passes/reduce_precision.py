"""Convolutions and linear layers of a frozen graph in bytes, or in bfloat16.

    conv2d(x, w, b) + r, relu   →   conv2d_int8(to_uint8(x), q(w), …, to_uint8(r))

What a layer of reduced precision computes stays in the small type where only such layers read it; where
anything else does, it is float32. Layers stay as they are where little would be gained or much lost: those
that read pictures (at most four channels) and depthwise ones right behind them, those on maps of one pixel
(squeeze-excite), depthwise ones with several outputs per channel. Weights are symmetric, w = q·s[k] with one
scale for each output channel; other numbers are x = (q - zero)·s.

    Σ w x + b = s_x s_w[k] (Σ q_w q_x - zero_x Σ q_w) + b
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import numpy as np

from nnlite.graph.calibrate import Range
from nnlite.graph.ir import Graph, make_node
from nnlite.graph.passes.rewrite import rebuild
from nnlite.kernels.bfloat16 import to_bfloat16
from nnlite.layout import Array
from nnlite.node import Node, Value

Ranges = Mapping[Value, Range]
LEAST_CHANNELS = 5
"""Input channels from which a layer is computed in a smaller type."""
LINEAR: dict[str, Any] = dict(stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)


def reducible(graph: Graph) -> list[Node]:
    """The layers that reduced precision serves, in order."""
    return [node for node in graph.nodes if _serves(graph, node)]


def _serves(graph: Graph, node: Node) -> bool:
    if node.op.name not in ("conv2d", "linear") or not isinstance(node.inputs[1], Value):
        return False
    x, w, bias = (*node.inputs, None)[:3]
    if x is None or x in graph.arrays or w is None or w not in graph.arrays:
        return False
    if bias is not None and bias not in graph.arrays:
        return False
    weight = graph.arrays[w]
    if weight.dtype != np.float32 or not np.isfinite(weight).all():
        return False
    if node.op.name == "linear":
        flat = weight.ndim == 2 and x.type is not None and len(x.type.shape) == 2
        return flat and weight.shape[1] >= LEAST_CHANNELS
    groups = node.params["groups"]
    channels, products = weight.shape[1] * groups, weight[0].size
    y = node.outputs[0].type
    if y is not None and y.shape[2] * y.shape[3] == 1:
        return False
    if groups == channels and groups > 1:
        # Channels of a first layer differ most in range: in MobileNetV2 this one layer in bytes costs as much
        # as all others together (mean cosine of the features of drawings 0.977 instead of 0.986).
        single = len(weight) == channels and max(weight.shape[2:]) <= 15
        return single and not _reads_pictures(graph, x.node)
    return bool(channels >= LEAST_CHANNELS) and products <= 65536 and weight[0, 0].size <= 256


def _reads_pictures(graph: Graph, node: Node | None) -> bool:
    """Whether ``node`` is a convolution of few channels, or what follows one."""
    while node is not None and node.op.name not in ("conv2d", "linear"):
        node = node.inputs[0].node if node.inputs and node.inputs[0] is not None else None
    if node is None:
        return True
    w = node.inputs[1]
    if node.op.name == "linear" or w is None or w not in graph.arrays:
        return False
    return bool(graph.arrays[w].shape[1] * node.params["groups"] < LEAST_CHANNELS)


def small_values(graph: Graph, layers: list[Node]) -> set[Value]:
    """Results of ``layers`` that nothing but ``layers`` read: they stay in the small type."""
    reduced, users = set(layers), graph.users()
    return {
        node.outputs[0]
        for node in layers
        if node.outputs[0] not in graph.outputs
        and all(user in reduced for user in users.get(node.outputs[0], ()))
    }


def values_to_calibrate(graph: Graph) -> set[Value]:
    """The values whose ranges :func:`to_int8` wants."""
    layers = reducible(graph)
    read = {value for node in layers for value in (node.inputs[0], *node.inputs[3:]) if value is not None}
    return read | small_values(graph, layers)


Convert = Callable[[Value, Value], Node]
"""(a float value, its small counterpart) -> the node that makes one of the other."""
Lower = Callable[[Node, list["Value | None"], bool], Node]
"""(a layer, its x and residual in the small type, whether its result is float) -> the layer in that type."""


def _rewrite(graph: Graph, convert: Convert, lower: Lower, arrays: dict[Value, Array]) -> Graph:
    layers = reducible(graph)
    reduced, small = set(layers), small_values(graph, layers)
    converted: dict[Value, Value] = {}
    replaced: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node not in reduced:
            continue
        sequence: list[Node] = []

        def to_small(value: Value | None, before: list[Node] = sequence) -> Value | None:
            if value is None or value in small:
                return value
            if value not in converted:
                converted[value] = Value(name=f"{value.name}.small")
                before.append(convert(value, converted[value]))
            return converted[value]

        x, residual = to_small(node.inputs[0]), to_small((*node.inputs, None, None)[3])
        sequence.append(lower(node, [x, residual], node.outputs[0] not in small))
        replaced[node] = sequence
    rewritten = rebuild(graph, replaced, arrays=arrays)
    for node in rewritten.nodes:  # the types of before no longer hold
        for value in node.outputs:
            value.type = None
    return rewritten


def _bounds(node: Node) -> tuple[float, float]:
    activation = node.params.get("activation")
    if activation is None:
        return -inf, inf
    return (0.0, inf) if activation == "relu" else activation


def _window(node: Node) -> dict[str, Any]:
    if node.op.name == "linear":
        return dict(LINEAR)
    return {name: node.params[name] for name in ("stride", "padding", "dilation", "groups")}


def to_int8(graph: Graph, ranges: Ranges) -> Graph:
    """``graph`` with its layers in bytes, by the ``ranges`` of :func:`values_to_calibrate`."""
    arrays: dict[Value, Array] = {}
    one = Range(1.0, 0)  # of a result in float

    def leaf(name: str, array: Array) -> Value:
        value = Value(name=name)
        arrays[value] = array
        return value

    def convert(value: Value, result: Value) -> Node:
        known = ranges[value]
        params = dict(scale=known.scale, zero=known.zero)
        return make_node("to_uint8", [value], params, [result], f"{value.name}.to_uint8")

    def lower(node: Node, small: list[Value | None], to_float: bool) -> Node:
        x, (source, w, bias, residual) = small[0], (*node.inputs, None, None)[:4]
        assert source is not None and w is not None
        weight = graph.arrays[w].astype(np.float64)
        rows = weight.reshape(len(weight), -1)
        steps = np.maximum(np.abs(rows).max(1), 1e-30) / 127
        integers = np.rint(weight / steps.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        before, after = ranges[source], one if to_float else ranges[node.outputs[0]]
        scale = (before.scale * steps / after.scale).astype(np.float32)
        shift = np.zeros(len(weight)) if bias is None else graph.arrays[bias].astype(np.float64)
        shift = shift / after.scale + after.zero
        shift -= scale.astype(np.float64) * before.zero * integers.reshape(rows.shape).sum(1, dtype=np.int64)
        residual_scale = 1.0
        if residual is not None:
            residual_scale = float(np.float32(ranges[residual].scale / after.scale))
            shift -= residual_scale * ranges[residual].zero
        low, high = (bound / after.scale + after.zero for bound in _bounds(node))
        if not to_float:
            low, high = min(max(low, 0.0), 255.0), min(max(high, 0.0), 255.0)
        inputs = [
            x, leaf(f"{w.name}.int8", integers), leaf(f"{w.name}.scale", scale),
            leaf(f"{w.name}.shift", shift.astype(np.float32)), small[1],
        ]  # fmt: skip
        params = dict(
            **_window(node), x_zero=before.zero, residual_scale=residual_scale, low=low, high=high,
            to_float=to_float,
        )  # fmt: skip
        return make_node("conv2d_int8", inputs, params, [Value(name=node.outputs[0].name)], node.name)

    return _rewrite(graph, convert, lower, arrays)


def to_bf16(graph: Graph) -> Graph:
    """``graph`` with its layers in bfloat16."""
    arrays: dict[Value, Array] = {}

    def convert(value: Value, result: Value) -> Node:
        return make_node("to_bfloat16", [value], {}, [result], f"{value.name}.to_bfloat16")

    def lower(node: Node, small: list[Value | None], to_float: bool) -> Node:
        w, bias = node.inputs[1], (*node.inputs, None)[2]
        assert w is not None
        weight = Value(name=f"{w.name}.bfloat16")
        arrays[weight] = to_bfloat16(graph.arrays[w])
        if bias is None:
            bias = Value(name=f"{w.name}.bias")
            arrays[bias] = np.zeros(len(graph.arrays[w]), np.float32)
        low, high = _bounds(node)
        params = dict(**_window(node), x_zero=0, residual_scale=1.0, low=low, high=high, to_float=to_float)
        inputs = [small[0], weight, bias, small[1]]
        return make_node("conv2d_bfloat16", inputs, params, [Value(name=node.outputs[0].name)], node.name)

    return _rewrite(graph, convert, lower, arrays)
