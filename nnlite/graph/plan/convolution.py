"""Steps of convolutions, forward and transposed, with what follows them in the same pass.

    act(conv(x, w) + bias + residual)

A pass over the graph has let convolutions have a residual, ReLU and clamps already (``fuse_epilogue``).
Functions that only plans put behind them are found here: those of the elementwise table that kernels know
and PReLU, and all of it behind transposed convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnlite.geometry import FUNCTION, FUNCTIONS, PRELU, Conv2dGeometry
from nnlite.graph.passes.fuse_epilogue import activation_of
from nnlite.graph.plan.step import Slots, Step, is_direct, is_native, launcher
from nnlite.layout import Array, channels_last
from nnlite.node import Node, Value
from nnlite.ops.conv import activated, conv2d_geometry_of
from nnlite.ops.conv_transpose import conv_transpose2d_geometry_of
from nnlite.ops.elementwise import row_kernel

if TYPE_CHECKING:
    from nnlite.graph.plan.layout import Layout


@dataclass(frozen=True)
class _After:
    """What joins a convolution: the nodes that it makes superfluous, its geometry with them, its operands."""

    nodes: tuple[Node, ...]
    geometry: Conv2dGeometry
    bias: Array | None
    residual: Value | None = None


def _sum_after(layout: Layout, node: Node) -> tuple[Node, Value] | None:
    """The sum that alone reads the result of ``node``, and its other term if that is like the result."""
    total = layout.only_user(node)
    if total is None or total.op.name != "add":
        return None
    others = [value for value in total.inputs if value is not node.outputs[0]]
    if len(others) != 1 or others[0] is None or not layout.is_planned(others[0]):
        return None  # it may not be there yet
    alike = layout.types[others[0]] == layout.types[node.outputs[0]]
    return (total, others[0]) if alike else None


def _activated_by(
    layout: Layout, node: Node | None, plain: Conv2dGeometry, channels: int
) -> tuple[Conv2dGeometry, Array | None] | None:
    """The geometry of a convolution with the function ``node`` behind it, and PReLU's slopes."""
    if node is None or plain.activation:
        return None
    if (activation := activation_of(node)) is not None:
        return activated(plain, activation), None
    if node.op.name == "prelu":
        slopes = layout.constant(node.inputs[1])
        if slopes is None or node.inputs[0] is node.inputs[1]:
            return None
        if slopes.size == 1:
            return plain.activated(FUNCTION + FUNCTIONS.index("leaky_relu"), float(slopes.item()), 0.0), None
        each = slopes.ndim in (3, 4) and slopes.shape[-3] == slopes.size == channels
        return (plain.activated(PRELU), slopes.reshape(-1)) if each else None
    kernel = row_kernel(node.op.name, node.params)
    if kernel is None or kernel.name != "function_forward":
        return None
    function = kernel.geometry(1)
    return plain.activated(FUNCTION + function.function, function.a, function.b), None


def _after(
    layout: Layout, node: Node, kernel: str, plain: Conv2dGeometry, bias: Value | None, sums: bool = False
) -> _After:
    """What follows a convolution and is read by nobody else: a function, with ``sums`` a residual, too."""
    known, offset = layout.types[node.outputs[0]], layout.constant(bias)
    # Others than native kernels have a pass of their own for it, as for a node of its own.
    if not is_native(layout, kernel, plain, known.dtype):
        return _After((), plain, layout.operand(bias))
    total = _sum_after(layout, node) if sums else None
    nodes, residual = ((), None) if total is None else ((total[0],), total[1])
    function = layout.only_user(nodes[-1] if nodes else node)
    found = _activated_by(layout, function, plain, known.shape[1])
    if found is None:
        return _After(nodes, plain, layout.operand(bias), residual)
    assert function is not None
    geometry, slopes = found
    if slopes is None:
        return _After((*nodes, function), geometry, layout.operand(bias), residual)
    offset = np.zeros_like(slopes) if offset is None else offset
    return _After((*nodes, function), geometry, layout.there(np.stack([offset, slopes])), residual)


def _convolution(
    layout: Layout, node: Node, kernel: str, after: _After, residual: Value | None, w: Value
) -> Step:
    """The step of a convolution, forward or transposed, with all that joins it."""
    launch, decision = launcher(kernel, after.geometry, layout.types[w].dtype, layout)
    x = node.inputs[0]
    assert x is not None
    weight, bias = layout.weight(w, decision), after.bias
    source, other = layout.slot(x), None if residual is None else layout.slot(residual)
    layout.absorbed.update(after.nodes)
    target = layout.new((node, *after.nodes)[-1].outputs[0])
    x_order = layout.as_channels_last(x)
    other_order = None if residual is None else layout.as_channels_last(residual)

    def run(slots: Slots) -> None:
        pictures = slots[source] if x_order is None else x_order(slots[source])
        addend = None if other is None else slots[other]
        if addend is not None and other_order is not None:
            addend = other_order(addend)
        launch(slots, pictures, weight, bias, addend, slots[target])

    return Step(node, run, decision, after.nodes, is_direct(layout, decision, x, residual))


def conv2d(layout: Layout, node: Node) -> Step | None:
    """Convolution with constant weights; residual, activation and a function in the same pass."""
    params = dict(node.params)
    activation = params.pop("activation", None)
    x, w, bias, residual = (*node.inputs, None, None)[:4]
    if x is None or w is None or not layout.are_constant(w, bias):
        return None
    plain = activated(conv2d_geometry_of(layout.types[x].shape, layout.types[w].shape, **params), activation)
    after = _after(layout, node, "conv2d_forward", plain, bias)
    return _convolution(layout, node, "conv2d_forward", after, residual, w)


def conv_transpose2d(layout: Layout, node: Node) -> Step | None:
    """Transposed convolution with constant weights; a sum and a function behind it in the same pass.

    Where no native kernel serves, the input gradient of a convolution and then the bias.
    """
    x, w, bias = node.inputs
    if x is None or w is None or not layout.are_constant(w, bias):
        return None
    geometry = conv_transpose2d_geometry_of(layout.types[x].shape, layout.types[w].shape, **node.params)
    dtype = layout.types[w].dtype
    if is_native(layout, "conv_transpose2d_forward", geometry, dtype):
        after = _after(layout, node, "conv_transpose2d_forward", geometry, bias, sums=True)
        return _convolution(layout, node, "conv_transpose2d_forward", after, after.residual, w)
    launch, decision = launcher("conv2d_grad_input", geometry, dtype, layout)
    weight, bias_array = layout.weight(w, decision), layout.operand(bias)
    source, target = layout.slot(x), layout.new(node.outputs[0])
    per_channel = None if bias_array is None else bias_array[:, None, None]

    def run(slots: Slots) -> None:
        y = slots[target]
        launch(slots, channels_last(slots[source]), weight, y)
        if per_channel is not None:
            y += per_channel

    return Step(node, run, decision)
