"""The steps of reduced precision: roundings to a smaller type, and convolutions in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nnlite.geometry import QuantiseGeometry
from nnlite.graph.plan.step import Slots, Step, flat, is_direct, launcher
from nnlite.layout import Array, channels_last
from nnlite.node import Node
from nnlite.ops.reduced import reduced_geometry

if TYPE_CHECKING:
    from nnlite.graph.plan.layout import Layout


def rounding(kernel: str) -> Callable[[Layout, Node], Step]:
    """Builder of a rounding of all numbers of an array."""

    def build(layout: Layout, node: Node) -> Step:
        x = node.inputs[0]
        assert x is not None
        known, params = layout.types[x], node.params
        geometry = QuantiseGeometry(prod(known.shape), params.get("scale", 1.0), float(params.get("zero", 0)))
        launch, decision = launcher(kernel, geometry, known.dtype, layout)
        source, target = layout.slot(x), layout.new(node.outputs[0])

        def run(slots: Slots) -> None:
            launch(slots, flat(channels_last(slots[source])), flat(slots[target]))

        return Step(node, run, decision, direct=is_direct(layout, decision, x))

    return build


def convolution(layout: Layout, node: Node) -> Step:
    """A convolution in a small type and what follows it; a linear layer is one on pictures of one pixel."""
    params = dict(node.params)
    kernel = node.op.name + ("_float" if params.pop("to_float") else "")
    x, w, *per_channel, residual = node.inputs
    assert x is not None and w is not None
    geometry = reduced_geometry(layout.types[x].shape, layout.types[w].shape, **params)
    launch, decision = launcher(kernel, geometry, np.float32, layout)
    weight = layout.weight(w, decision)
    numbers = [layout.operand(value) for value in per_channel]
    source, other = layout.slot(x), None if residual is None else layout.slot(residual)
    target = layout.new(node.outputs[0])

    def pictures(array: Array) -> Array:
        array = channels_last(array)
        return array if array.ndim == 4 else array[:, :, None, None]

    def run(slots: Slots) -> None:
        addend = None if other is None else pictures(slots[other])
        launch(slots, pictures(slots[source]), weight, *numbers, addend, pictures(slots[target]))

    return Step(node, run, decision, direct=is_direct(layout, decision, x, residual))


REDUCED: Mapping[str, Callable[[Layout, Node], Step]] = {
    "to_uint8": rounding("quantise"),
    "to_bfloat16": rounding("round_bfloat16"),
    "conv2d_int8": convolution,
    "conv2d_bfloat16": convolution,
}
