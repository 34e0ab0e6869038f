"""A trainable scale and shift per channel behind convolutions: few parameters that move features far.

    y = γ · conv(x, w, b) + β  =  conv(x, γ · w, γ · b + β)

Exporters mostly fold batch normalisation away, and with it the parameters that adapt best to few pictures.
Here they come back, as γ = 1 and β = 0; after training they are multiplied into the weights, so that the
network has the shape that it was read with.

Source: Lian et al. 2022, "Scaling and Shifting Your Features", arXiv:2210.08823.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnlite.device import CPU
from nnlite.graph.ir import make_node
from nnlite.graph.module import GraphModule
from nnlite.graph.passes.rewrite import rebuild
from nnlite.nn import Parameter
from nnlite.nn.parameter import State
from nnlite.node import Node, Value

LAYERS = {"conv2d": 0, "conv_transpose2d": 1}
"""Ops, and the axis of the weight along which the output's channels lie (ungrouped)."""


def add_channel_affine(module: GraphModule) -> tuple[GraphModule, Callable[[], None]]:
    """``module`` with a scale and a shift behind its convolutions, and a function that merges them.

    Everything else is shared with ``module`` and left as it is, frozen or not. A convolution counts when its
    weight and bias belong to it alone; one without a bias gets a scale only, one in groups of a transposed
    convolution nothing. The function multiplies γ and β into ``module``'s own weights and sets them to 1
    and 0 again.
    """
    users = module.graph.users()
    replaced: dict[Node, list[Node]] = {}
    leaves = {value: module.leaf(value) for value in module.graph.arrays}
    added: list[tuple[Node, Parameter, Parameter | None]] = []
    for node in module.graph.nodes:
        weight, bias = (*node.inputs[1:3], None, None)[:2]
        axis = LAYERS.get(node.op.name)
        if axis is None or weight is None or weight not in module.graph.arrays or len(users[weight]) > 1:
            continue
        if bias is not None and (bias not in module.graph.arrays or len(users[bias]) > 1):
            continue
        if node.op.name == "conv_transpose2d" and node.params["groups"] != 1:
            continue
        channels = module.leaf(weight).shape[axis]
        scale = Parameter(np.ones((channels, 1, 1), np.float32))
        shift = Parameter(np.zeros((channels, 1, 1), np.float32)) if bias is not None else None
        replaced[node] = _with_affine(node, scale, shift, leaves)
        added.append((node, scale, shift))
    arrays = {value: leaf.to(CPU).numpy() for value, leaf in leaves.items()}
    graph = rebuild(module.graph, replaced, arrays=arrays)
    kept = {value: leaves[value] for value in graph.arrays}
    new = GraphModule(graph, leaves=kept, input_sizes=module.input_sizes)
    new.training, new.from_file = module.training, module.from_file

    def merge() -> None:
        for node, scale, shift in added:
            _merge(module, node, scale, shift)

    return new, merge


def _with_affine(
    node: Node, scale: Parameter, shift: Parameter | None, leaves: dict[Value, State]
) -> list[Node]:
    result = node.outputs[0]
    parts = [make_node(node.op, node.inputs, node.params, [Value(name=f"{result.name}.plain")], node.name)]
    for op, parameter in (("mul", scale), ("add", shift)):
        if parameter is None:
            continue
        leaf = Value(name=f"{node.name}.{'scale' if op == 'mul' else 'shift'}")
        leaves[leaf] = parameter
        inputs, output = [parts[-1].outputs[0], leaf], Value(name=leaf.name, type=result.type)
        parts.append(make_node(op, inputs, {}, [output], f"{leaf.name}.{op}"))
    return parts


def _merge(module: GraphModule, node: Node, scale: Parameter, shift: Parameter | None) -> None:
    weight, bias = (*node.inputs[1:3], None, None)[:2]
    assert weight is not None
    factors = scale.to(CPU).numpy().reshape(-1)
    own = module.leaf(weight)
    shape = [1] * own.ndim
    shape[LAYERS[node.op.name]] = len(factors)
    own.assign(own.to(CPU).numpy() * factors.reshape(shape))
    if bias is not None and shift is not None:
        own = module.leaf(bias)
        own.assign(own.to(CPU).numpy() * factors + shift.to(CPU).numpy().reshape(-1))
        shift.assign(np.zeros_like(shift.to(CPU).numpy()))
    scale.assign(np.ones_like(scale.to(CPU).numpy()))
