"""The steps of a compiled program: what each node does with the arrays in its slots.

A builder prepares everything that shapes and weights decide (geometry, variant, weights in the kernel's
memory order) and returns a function that only computes. Ops without a builder run as they do anywhere,
and their results come from the pool instead of the program's block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nnlite.device import moved
from nnlite.geometry import NormGeometry, PictureGeometry, pair
from nnlite.graph.plan.convolution import conv2d, conv_transpose2d
from nnlite.graph.plan.step import Slots, Step, flat, is_direct, is_native, launcher
from nnlite.layout import as_array, channels_last, contiguous, rows
from nnlite.node import Node, Value
from nnlite.ops import ArrayType, Context
from nnlite.ops.clamp import clamp_kernels
from nnlite.ops.conv import conv2d_geometry_of
from nnlite.ops.elementwise import row_kernel
from nnlite.ops.epilogue import activation_fields
from nnlite.ops.pool import pool2d_geometry_of
from nnlite.ops.runs import Kernel

if TYPE_CHECKING:
    from nnlite.graph.plan.layout import Layout


# ----------------------------------------------------------------------------- layers with weights


def linear(layout: Layout, node: Node) -> Step | None:
    """A linear layer with constant weights, as a 1x1 convolution of pictures of one pixel."""
    x, w, bias = node.inputs
    if x is None or w is None or not layout.are_constant(w, bias):
        return None
    shape = layout.types[x].shape
    kernel_shape = (*layout.types[w].shape, 1, 1)
    geometry = conv2d_geometry_of((prod(shape[:-1]), shape[-1], 1, 1), kernel_shape, (1, 1), 0, (1, 1), 1)
    launch, decision = launcher("conv2d_forward", geometry, layout.types[w].dtype, layout)
    weight, bias_array = layout.weight(w, decision), layout.operand(bias)
    source, target = layout.slot(x), layout.new(node.outputs[0], order="C")

    def run(slots: Slots) -> None:
        pictures = contiguous(slots[source]).reshape(geometry.x_shape)
        launch(slots, pictures, weight, bias_array, None, slots[target].reshape(geometry.y_shape))

    return Step(node, run, decision)


def batch_norm(layout: Layout, node: Node) -> Step | None:
    """Batch normalisation that no layer could absorb: one scale and one shift per channel, made now."""
    constants = [layout.constant(value) for value in node.inputs[1:5]]
    x = node.inputs[0]
    if x is None or any(array is None for array in constants):
        return None
    weight, bias, mean, variance = (array.astype(np.float64) for array in constants if array is not None)
    inv_std = 1 / np.sqrt(variance + node.params["epsilon"])
    known = layout.types[x]
    scale, shift = (
        layout.there((weight * inv_std).astype(known.dtype)),
        layout.there((bias - mean * weight * inv_std).astype(known.dtype)),
    )
    residual = layout.slot(node.inputs[5]) if len(node.inputs) > 5 and node.inputs[5] is not None else None
    act = activation_fields(node.params.get("activation"))
    geometry = NormGeometry(
        prod(known.shape) // known.shape[1], known.shape[1], node.params["epsilon"], **act
    )
    launch, decision = launcher("batch_norm_inference_forward", geometry, known.dtype, layout)
    source = layout.slot(x)
    target = layout.in_place(node.outputs[0], x, node) if residual is None else layout.new(node.outputs[0])

    def run(slots: Slots) -> None:
        other = None if residual is None else rows(channels_last(slots[residual]))
        launch(slots, rows(channels_last(slots[source])), None, scale, shift, other, rows(slots[target]))

    addend = None if residual is None else node.inputs[5]
    return Step(node, run, decision, direct=is_direct(layout, decision, x, addend))


# ---------------------------------------------------------------------------------------- pooling


def pool2d(kernel: str, absent: int) -> Callable[[Layout, Node], Step | None]:
    """Builder of a pooling; ``absent`` outputs are not wanted."""

    def build(layout: Layout, node: Node) -> Step | None:
        x = node.inputs[0]
        if x is None:
            return None
        known = layout.types[x]
        params = dict(node.params)
        if node.op.name == "adaptive_avg_pool2d":
            size = pair(node.op.name, "output_size", params["output_size"], 1)
            if known.shape[2] % size[0] or known.shape[3] % size[1]:
                return None  # windows of unequal sizes
            window = (known.shape[2] // size[0], known.shape[3] // size[1])
            params = dict(kernel_size=window, stride=window, padding=0, dilation=1, ceil_mode=False)
        geometry = pool2d_geometry_of(node.op.name, known.shape, **params)
        launch, decision = launcher(kernel, geometry, known.dtype, layout)
        source, target = layout.slot(x), layout.new(node.outputs[0])
        rest = (None,) * absent

        def run(slots: Slots) -> None:
            launch(slots, channels_last(slots[source]), slots[target], *rest)

        return Step(node, run, decision, direct=is_direct(layout, decision, x))

    return build


# ------------------------------------------------------------------------------------ elementwise


def _in_one_pass(layout: Layout, node: Node, kernel: Kernel) -> Step | None:
    """``kernel`` on one operand, in place where nobody else reads it."""
    x = node.inputs[0]
    if x is None or layout.types[x].dtype != np.float32 or not layout.is_planned(x):
        return None
    geometry = kernel.geometry(prod(layout.types[x].shape))
    launch, decision = launcher(kernel.name, geometry, layout.types[x].dtype, layout)
    source, target = layout.slot(x), layout.in_place(node.outputs[0], x, node)
    absent = (None,) * (kernel.operands - 1)

    def run(slots: Slots) -> None:
        launch(slots, flat(slots[source]), *absent, flat(slots[target]))

    return Step(node, run, decision, direct=is_direct(layout, decision))


def clamp(layout: Layout, node: Node) -> Step | None:
    """A clamp with bounds that are known."""
    low, high = (node.params[name] for name in ("minimum", "maximum"))
    if isinstance(low, Value) or isinstance(high, Value):
        return None
    return _in_one_pass(layout, node, clamp_kernels(low, high)[0])


def row(layout: Layout, node: Node) -> Step | None:
    """An op of one operand of the elementwise table, where its row names a kernel."""
    if len(node.inputs) != 1 or any(isinstance(param, Value) for param in node.params.values()):
        return None
    kernel = row_kernel(node.op.name, node.params)
    return None if kernel is None else _in_one_pass(layout, node, kernel)


UFUNCS: Mapping[str, np.ufunc] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "maximum": np.maximum, "minimum": np.minimum,
    "abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
}  # fmt: skip


def ufunc(layout: Layout, node: Node) -> Step | None:
    """Arithmetic that NumPy does in one pass, in place where it can."""
    function, y = UFUNCS[node.op.name], node.outputs[0]
    known = layout.types[y]
    if known.dtype.kind != "f" or any(v is None or layout.types[v].dtype != known.dtype for v in node.inputs):
        return None
    alike = [v for v in node.inputs if v is not None and layout.types[v] == known and layout.is_planned(v)]
    sources = [layout.slot(v) for v in node.inputs if v is not None]
    # A value read twice by this node must stay until both are read.
    target = layout.in_place(y, alike[0], node) if alike else layout.new(y)

    def run(slots: Slots) -> None:
        function(*(slots[source] for source in sources), out=slots[target])

    return Step(node, run, f"numpy.{function.__name__}")


def mul(layout: Layout, node: Node) -> Step | None:
    """A product; of pictures with a factor per picture and channel (squeeze and excitation) by a kernel."""
    return _gated(layout, node) or ufunc(layout, node)


def _gated(layout: Layout, node: Node) -> Step | None:
    y = node.outputs[0]
    known = layout.types[y]
    if len(known.shape) != 4 or known.dtype != np.float32:
        return None
    each = ArrayType((*known.shape[:2], 1, 1), known.dtype)
    x, factors = node.inputs
    if x is not None and layout.types[x] == each:
        x, factors = factors, x
    if x is None or factors is None or known == each:
        return None
    if layout.types[x] != known or layout.types[factors] != each or layout.as_channels_last(x) is not None:
        return None
    geometry = PictureGeometry(*known.shape)
    if not is_native(layout, "scale_channels", geometry, known.dtype):  # elsewhere NumPy does it
        return None
    launch, decision = launcher("scale_channels", geometry, known.dtype, layout)
    source, gate = layout.slot(x), layout.slot(factors)
    order = layout.as_channels_last(factors)
    target = layout.in_place(y, x, node)

    def run(slots: Slots) -> None:
        scale = slots[gate] if order is None else order(slots[gate])
        launch(slots, slots[source], scale, slots[target])

    return Step(node, run, decision, direct=is_direct(layout, decision, x, factors))


def concat(layout: Layout, node: Node) -> Step | None:
    """Concatenation into a place of its own."""
    if any(v is None or layout.types[v].dtype != layout.types[node.outputs[0]].dtype for v in node.inputs):
        return None
    sources = [layout.slot(v) for v in node.inputs if v is not None]
    target, axis = layout.new(node.outputs[0]), node.params["axis"]

    def run(slots: Slots) -> None:
        np.concatenate([slots[source] for source in sources], axis=axis, out=slots[target])

    return Step(node, run, "numpy.concatenate")


# --------------------------------------------------------------------------- the same numbers again


def view(layout: Layout, node: Node) -> Step | None:
    """Reshape and its kin: no step at all where the bytes need not move."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or not layout.is_planned(x):
        return None
    if layout.alias(y, x, None):
        return Step(node, _nothing, "no copy")
    source, target, shape = layout.slot(x), layout.new(y, order="C"), layout.types[x].shape

    def run(slots: Slots) -> None:
        np.copyto(slots[target].reshape(shape), slots[source])

    return Step(node, run, "numpy.copyto")


def transpose(layout: Layout, node: Node) -> Step | None:
    """Transposition: another view where kernels can read it, else a copy."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or not layout.is_planned(x):
        return None
    rank = len(layout.types[x].shape)
    axes = tuple(range(rank))[::-1] if node.params["axes"] is None else node.params["axes"]
    axes = tuple(axis % rank for axis in axes)
    if layout.alias(y, x, axes):
        return Step(node, _nothing, "no copy")
    source, target = layout.slot(x), layout.new(y)

    def run(slots: Slots) -> None:
        np.copyto(slots[target], slots[source].transpose(axes))

    return Step(node, run, "numpy.copyto")


def _nothing(slots: Slots) -> None:
    pass


BUILDERS: Mapping[str, Callable[[Layout, Node], Step | None]] = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "linear": linear,
    "batch_norm": batch_norm,
    "max_pool2d": pool2d("max_pool2d_forward", 1),
    "avg_pool2d": pool2d("avg_pool2d_forward", 0),
    "adaptive_avg_pool2d": pool2d("avg_pool2d_forward", 0),
    "clamp": clamp,
    **dict.fromkeys(UFUNCS, ufunc),
    "mul": mul,
    "concat": concat,
    **dict.fromkeys(("reshape", "flatten", "squeeze", "unsqueeze"), view),
    "transpose": transpose,
}


def build(layout: Layout, node: Node) -> Step:
    """The step of ``node``: by its op's builder, by its row in the elementwise table, or as anywhere."""
    return BUILDERS.get(node.op.name, row)(layout, node) or any_op(layout, node)


def any_op(layout: Layout, node: Node) -> Step:
    """A node as it runs anywhere; its results come from the pool.

    A result that is a view of an operand (a slice, dropout that does nothing) is copied: whoever reads it
    later, or is given it, does not keep the operand's place.
    """
    order = {"channels_last": channels_last, "C": contiguous}.get(node.op.layout)
    sources = [None if value is None else layout.slot(value) for value in node.inputs]
    placed = [
        source
        for source, value in zip(sources, node.inputs, strict=True)
        if source is not None and value is not None and (layout.is_planned(value) or value in layout.known)
    ]
    targets = [layout.loose(value) for value in node.outputs]
    params = layout.params(node)
    nothing = (False,) * len(sources)
    op, device = node.op, layout.device  # not the layout itself, which knows all constants

    def run(slots: Slots) -> None:
        operands = [None if source is None else slots[source] for source in sources]
        if order is not None:
            operands = [None if array is None else order(array) for array in operands]
        result = op.forward(Context(params, nothing), *operands, **params)
        results = result if isinstance(result, tuple) else (result,)
        for target, result in zip(targets, results, strict=True):
            array = moved(as_array(result), device)
            view = any(np.may_share_memory(array, slots[source]) for source in placed)
            slots[target] = array.copy("K") if view else array

    return Step(node, run)
