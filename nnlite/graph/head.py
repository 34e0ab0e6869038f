"""Finding and replacing the head: the last layer, whose outputs are the classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from nnlite import random
from nnlite.errors import ModelError
from nnlite.graph.module import GraphModule
from nnlite.layout import Array
from nnlite.node import Node, Value

PASS_THROUGH = {"softmax", "log_softmax", "identity", "flatten", "reshape", "squeeze", "dropout"}
"""What may stand between the head and the output, besides pooling where the head is a convolution."""
POOLING = {"adaptive_avg_pool2d", "mean", "relu", "avg_pool2d"}
SOFTMAXES = {"softmax", "log_softmax"}
LAYERS = {"linear", "conv2d", "matmul"}


@dataclass(frozen=True)
class Head:
    """The last layer of a classifier and the places of its parameters."""

    node: Node
    weight: Value
    out_axis: int
    """Axis of the weight along which the classes lie."""
    bias: Value | None
    output: Value
    """The logits."""

    @property
    def features(self) -> Value:
        """What the layer reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value


def find_head(module: GraphModule, name: str | None = None) -> Head:
    """The layer that computes the classes: the last one with weights, or the one called ``name``.

    ``name`` is that of a node, of its result or of its weight. Raises ModelError that says which
    layers there are when none fits.
    """
    layers = [node for node in module.graph.nodes if node.op.name in LAYERS and _weight(module, node)]
    if name is not None:
        for node in layers:
            weight = _weight(module, node)
            if weight and name in (node.name, node.outputs[0].name, weight[0].name):
                return _head(module, node)
        raise ModelError(f"no layer is called {name!r}; name one with --head: {_some(module, layers)}")
    if len(module.graph.outputs) != 1:
        raise ModelError(
            f"the model has {len(module.graph.outputs)} outputs ({', '.join(module.outputs)}), so it is no "
            f"plain classifier; name the layer to replace with --head: {_some(module, layers)}"
        )
    value = module.graph.outputs[0]
    passed_pooling = False
    while value.node is not None:
        node = value.node
        if node.op.name in LAYERS and _weight(module, node):
            if passed_pooling and node.op.name != "conv2d":
                break
            return _head(module, node)
        if node.op.name == "add" and any(v in module.graph.arrays for v in node.inputs if v):
            value = next(v for v in node.inputs if v is not None and v not in module.graph.arrays)
        elif node.op.name in PASS_THROUGH | POOLING and node.inputs[0] is not None:
            passed_pooling |= node.op.name in POOLING
            value = node.inputs[0]
        else:
            break
    raise ModelError(
        f"no head was found before the output {module.outputs[0]!r}; name the layer to replace with --head: "
        f"{_some(module, layers)}"
    )


def _some(module: GraphModule, layers: list[Node]) -> str:
    names = [weight[0].name for node in layers if (weight := _weight(module, node))]
    return ", ".join(names[-5:]) or "the model has no layer with weights"


def _weight(module: GraphModule, node: Node) -> tuple[Value, int] | None:
    """The leaf behind the layer's weight and the axis of its outputs."""
    value = node.inputs[1]
    out_axis = 1 if node.op.name == "matmul" else 0
    if value is not None and value.node is not None and value.node.op.name == "transpose":
        value, out_axis = value.node.inputs[0], 1 - out_axis  # a Gemm or MatMul with [in, out] weights
    if value is None or value not in module.graph.arrays:
        return None
    return value, out_axis


def _head(module: GraphModule, node: Node) -> Head:
    found = _weight(module, node)
    assert found is not None
    weight, out_axis = found
    if module.leaf(weight).ndim not in (2, 4):
        raise ModelError(f"the head {node.name} has weights of shape {list(module.leaf(weight).shape)}")
    output, bias = node.outputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        users = module.graph.users().get(output, [])
        if len(users) == 1 and users[0].op.name == "add":
            others = [v for v in users[0].inputs if v is not None and v in module.graph.arrays]
            if others:
                bias, output = others[0], users[0].outputs[0]
    if bias is not None and bias not in module.graph.arrays:
        raise ModelError(f"the bias of the head {node.name} is computed; name another layer with --head")
    return Head(node, weight, out_axis, bias, output)


def _nan_like(array: Array) -> Array:
    return np.broadcast_to(np.full((), np.nan, array.dtype), array.shape)


def _logits(module: GraphModule, head: Head) -> Value:
    """What the new network ends in: the head's result, with the pooling behind a convolution.

    Only what a file names can be its output: a node of the file may be several of the graph.
    """
    origin = module.origin
    named = None if origin is None else {name for n in origin.outline.graph.node for name in n.output}
    chain = [module.graph.outputs[0]]
    while chain[-1] is not head.output:
        node = chain[-1].node
        if node is None or node.op.name not in PASS_THROUGH | POOLING or node.inputs[0] is None:
            chain = [head.output]  # other layers follow, which are dropped
            break
        chain.append(node.inputs[0])
    kept = list(takewhile(lambda v: v.node is None or v.node.op.name not in SOFTMAXES, reversed(chain)))
    writable = [value for value in kept if named is None or value.name in named]
    if not writable:
        raise ModelError(
            f"the head {head.node.name} is a part of a node of the file, and cannot end a new one; "
            "name another layer with --head"
        )
    return writable[-1] if head.node.op.name == "conv2d" else writable[0]


def replace_head(module: GraphModule, classes: int, name: str | None = None) -> tuple[GraphModule, Head]:
    """``module`` with a new last layer of ``classes`` outputs, ending in its logits.

    The weights are drawn as PyTorch draws a linear layer's, U(±1/√fan_in); a softmax behind the layer
    is dropped. Everything else is shared with ``module``.
    """
    head = find_head(module, name)
    shape = list(module.leaf(head.weight).shape)
    shape[head.out_axis] = classes
    bound = 1 / np.sqrt(np.prod(shape) / classes)
    rng = random.generator()
    outputs = [_logits(module, head)]
    graph = module.graph.between(module.graph.inputs, outputs)
    leaves = {value: module.leaf(value) for value in graph.arrays}
    # The old weights go: what stands for them is never equal to the new ones, and takes no memory.
    replaced = {value for value in (head.weight, head.bias) if value is not None}
    graph = replace(graph, arrays={v: _nan_like(a) if v in replaced else a for v, a in graph.arrays.items()})
    new = GraphModule(graph, leaves=leaves, input_sizes=module.input_sizes, origin=module.origin)
    new.replace_leaf(head.weight, rng.uniform(-bound, bound, shape).astype(np.float32))
    if head.bias is not None:
        # A bias may be stored as [classes] or, where it is added, as [1, classes] or [1, classes, 1, 1].
        bias_shape = list(module.leaf(head.bias).shape) or [1]
        bias_shape[-3 if head.node.op.name == "conv2d" and len(bias_shape) > 2 else -1] = classes
        new.replace_leaf(head.bias, np.zeros(bias_shape, np.float32))
    return new, head
