"""Control flow: a node that runs one of two graphs. It belongs to the graph's runner, not to the ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite.errors import DTypeError, ShapeError
from nnlite.graph.infer import infer_types
from nnlite.graph.ir import Graph, make_node
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.ops import ArrayType, Context, ErrorSample, Op, Sample


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
    graph = chosen(condition, then_branch, else_branch)
    values = dict(zip(graph.inputs, captured, strict=True))
    for node in graph.nodes:
        operands = [None if value is None else values[value] for value in node.inputs]
        params = {k: values[p].tolist() if isinstance(p, Value) else p for k, p in node.params.items()}
        result = node.op.forward(Context(params, (False,) * len(operands)), *operands, **params)
        values.update(zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True))
    return tuple(values[value] for value in graph.outputs)


def chosen(condition: Array, then_branch: Graph, else_branch: Graph) -> Graph:
    """The graph that ``condition`` picks; ShapeError unless it is one value."""
    if condition.size != 1:
        raise ShapeError(
            f"branch: the condition has shape {list(condition.shape)} but must be one truth value"
        )
    return then_branch if bool(condition.reshape(-1)[0]) else else_branch


BRANCH = Op(
    name="branch",
    formula="the outputs of then_branch where the condition is true, else those of else_branch",
    gradient="that of the graph that ran; GraphModule records its nodes one by one",
    source="ONNX If-19",
    shape=_rule,
    forward=_run,
    backward=None,
    samples=lambda: [Sample()],
    errors=lambda: [ErrorSample(ShapeError, "must be one truth value")],
    writes=None,
)


def branch_node(
    condition: Value | None,
    captured: Sequence[Value],
    then_branch: Graph,
    else_branch: Graph,
    outputs: Sequence[Value],
    name: str,
) -> Node:
    """A node that runs one of two graphs, both with the inputs ``captured``."""
    graphs = {"then_branch": then_branch, "else_branch": else_branch}
    return make_node(BRANCH, (condition, *captured), graphs, outputs, name)
