"""A node that runs one of two graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite.errors import DTypeError, ShapeError
from nnlite.graph.control import Runner, control
from nnlite.graph.infer import infer_types
from nnlite.graph.ir import Graph
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.ops import ArrayType, Context


def _rule(
    condition: ArrayType, *captured: ArrayType, then_branch: Graph, else_branch: Graph
) -> tuple[ArrayType, ...]:
    if condition.dtype.kind != "b" or condition.shape not in ((), (1,)):
        raise DTypeError(f"branch: the condition is {condition} but must be one truth value")
    results = []
    for graph in (then_branch, else_branch):
        types = infer_types(graph, dict(zip(graph.inputs, captured, strict=True)))
        results.append(tuple(types[value] for value in graph.outputs))
    if results[0] != results[1]:
        raise NotImplementedError("branch: which shapes come out depends on data")
    return results[0]


def _run(ctx: Context, condition: Array, *captured: Array, then_branch: Graph, else_branch: Graph) -> Any:
    """On arrays alone, for sizes that are computed while types are inferred."""
    graph = then_branch if truth("branch", condition) else else_branch
    values = dict(zip(graph.inputs, captured, strict=True))
    for node in graph.nodes:
        operands = [None if value is None else values[value] for value in node.inputs]
        params = {k: values[p].tolist() if isinstance(p, Value) else p for k, p in node.params.items()}
        result = node.op.forward(Context(params, (False,) * len(operands)), *operands, **params)
        values.update(zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True))
    return tuple(values[value] for value in graph.outputs)


def truth(what: str, condition: Array) -> bool:
    """The one truth value in ``condition``; ShapeError unless it is one."""
    if condition.size != 1:
        raise ShapeError(
            f"{what}: the condition has shape {list(condition.shape)} but must be one truth value"
        )
    return bool(condition.reshape(-1)[0])


@control(
    "branch", "the outputs of then_branch where the condition is true, else those of else_branch",
    "ONNX If-19", _rule, _run,
)  # fmt: skip
def branch(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """Both graphs have the inputs ``captured``, which follow the condition."""
    condition, *captured = operands
    chosen = "then_branch" if truth("branch", condition.numpy()) else "else_branch"
    return runner.body(node.params[chosen], captured)
