"""One node of a graph, run on tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnlite import functional as F
from nnlite.device import CPU, to_host
from nnlite.errors import DTypeError, ShapeError
from nnlite.graph.control import CONTROL, Runner
from nnlite.node import Node, Value
from nnlite.tensors import Tensor, apply_many

MAX_PARAM = 1 << 16
"""More numbers than any list of sizes, axes or bounds has."""


def run_node(
    node: Node, values: Mapping[Value, Any], left: list[int], training: bool = False
) -> Sequence[Any]:
    """The results of ``node``, given what it reads: tensors, sequences of them, or None for what is absent.

    ``left`` counts down the iterations of all loops. With ``training`` dropout drops, and batch
    normalisation that has something to learn measures.
    """
    operands = [None if value is None else values[value] for value in node.inputs]
    if node.op.name in CONTROL:
        runner = Runner(lambda inner, known: run_node(inner, known, left, training), left)
        return CONTROL[node.op.name](node, operands, runner)
    if node.op.name == "identity" and not isinstance(operands[0], Tensor):
        return operands  # a sequence, or nothing
    if not all(operand is None or isinstance(operand, Tensor) for operand in operands):
        raise DTypeError(f"{node.op.name}: a tensor is wanted, not a sequence")
    params = {
        name: _as_param(node, name, values[param]) if isinstance(param, Value) else param
        for name, param in node.params.items()
    }
    if training and node.op.name == "dropout":
        assert operands[0] is not None
        return (F.dropout(operands[0], params["p"], training=True),)
    if training and node.op.name == "batch_norm":
        x, weight, bias, mean, variance, *residual = operands
        if any(t is not None and t.requires_grad for t in (weight, bias)):
            assert x is not None
            options = params["momentum"], params["epsilon"], params.get("activation"), *residual
            return (F.batch_norm(x, mean, variance, weight, bias, True, *options),)
    return apply_many(node.op, *_on_one_device(operands), **params)


def _on_one_device(operands: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """``operands`` on the GPU that one of them is on: shapes and what is made of them begin on the host."""
    there = next((t.device for t in operands if t is not None and t.device != CPU), None)
    return operands if there is None else [None if t is None else t.to(there) for t in operands]


def _as_param(node: Node, name: str, tensor: Tensor) -> Any:
    """What a graph computed, as Python numbers."""
    if tensor.size > MAX_PARAM:
        raise ShapeError(f"{node.op.name}: {name} has {tensor.size} numbers, more than {MAX_PARAM}")
    return to_host(tensor.array).tolist()
