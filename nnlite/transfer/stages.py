"""Stages: the parts of a network between reductions of resolution, and where to cut for freezing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnlite.errors import ConfigError
from nnlite.graph import GraphModule, infer_types
from nnlite.graph.head import Head
from nnlite.graph.ir import Types
from nnlite.layout import Array
from nnlite.nn import Parameter
from nnlite.node import Value
from nnlite.ops import ArrayType


def planes_of(module: GraphModule) -> int:
    """Channels of the pictures [N,C,H,W] that the model takes; 3 where it does not say."""
    return (module.input_sizes or ((None, None),))[0][1] or 3


def types_for(module: GraphModule, size: tuple[int, int], batch: int = 1) -> Types:
    """Types of all values for pictures of ``size``; the model has one input [N,C,H,W]."""
    # With the parameters as they are: a new head has other shapes than the file's.
    pictures = ArrayType((batch, planes_of(module), *size), np.dtype(np.float32))
    return infer_types(module.outline(), {module.graph.inputs[0]: pictures})


def stage_cuts(module: GraphModule, types: Types, head: Head) -> list[Value]:
    """For each stage with weights, first to last, the value that it starts from.

    A stage is what works at one resolution: between two cut points at which the feature map
    [N,C,H,W] shrinks. Within the last cut points of the resolution before it a stage starts at the
    narrowest, which is where a block begins: MobileNet widens its features before it shrinks them.
    """
    before_head = module.graph.between(module.graph.inputs, [head.features])
    maps = [v for v in before_head.cut_points() if len(types[v].shape) == 4 and min(types[v].shape[2:]) > 1]
    resolutions: list[list[Value]] = []
    for value in maps:
        if resolutions and types[resolutions[-1][0]].shape[2:] == types[value].shape[2:]:
            resolutions[-1].append(value)
        else:
            resolutions.append([value])
    cuts = [module.graph.inputs[0]]
    cuts += [_block_start(level, types) for level in resolutions[:-1]]
    ends = [*cuts[1:], head.features]
    return [
        start for start, end in zip(cuts, ends, strict=True)
        if any(isinstance(module.leaf(v), Parameter) for v in module.graph.between([start], [end]).arrays)
    ]  # fmt: skip


def _block_start(level: Sequence[Value], types: Types) -> Value:
    best = level[-1]
    for value in reversed(level):
        channels, narrowest = types[value].shape[1], types[best].shape[1]
        if channels > narrowest:
            break
        if channels < narrowest:
            best = value
    return best


def choose_cut(module: GraphModule, types: Types, head: Head, unfreeze: str) -> Value:
    """Where the frozen part ends for ``--unfreeze none|N|all``: the head's input, a stage, the input."""
    if unfreeze == "none":
        return head.features
    if unfreeze == "all":
        return module.graph.inputs[0]
    cuts = stage_cuts(module, types, head)
    count = int(unfreeze) if unfreeze.isdecimal() else 0
    if not 1 <= count <= len(cuts):
        raise ConfigError(
            f"unfreeze={unfreeze!r} must be none, all or the number of last stages, 1 to {len(cuts)}"
        )
    return cuts[-count]


def write_head(module: GraphModule, head: Head, weight: Array, bias: Array) -> None:
    """Give a linear head weights [classes, features] and a bias [classes]."""
    assert head.bias is not None
    own = module.leaf(head.weight)
    own.assign((weight if head.out_axis == 0 else weight.T).reshape(own.shape))
    module.leaf(head.bias).assign(bias.reshape(module.leaf(head.bias).shape))


def freeze_below(module: GraphModule, cut: Value, batch_norm: bool = False) -> tuple[int, int]:
    """Freeze every parameter that ``cut`` depends on, and all batch normalisation unless ``batch_norm``.

    With few pictures per batch the statistics of a batch are worse than those that the network was
    trained with, so batch normalisation stays as it is, above the cut too. With ``batch_norm`` what is
    above is trained, uses the batch's statistics and moves the running ones.
    Returns how many numbers are trained, and how many there are.
    """
    module.unfreeze()
    frozen = set(module.graph.between(module.graph.inputs, [cut]).arrays) if cut.node is not None else set()
    for node in module.graph.nodes:
        if node.op.name == "batch_norm" and not batch_norm:
            frozen.update(v for v in node.inputs[1:] if v is not None and v in module.graph.arrays)
    trained = total = 0
    for value in module.graph.arrays:
        leaf = module.leaf(value)
        total += leaf.size if leaf.requires_grad else 0
        if value in frozen and leaf.requires_grad:
            leaf.requires_grad = False
        trained += leaf.size if leaf.requires_grad else 0
    return trained, total
