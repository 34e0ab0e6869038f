"""A node that runs a graph again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnlite import functional as F
from nnlite.errors import ShapeError
from nnlite.graph.branch import truth
from nnlite.graph.control import Runner, control
from nnlite.graph.infer import infer_types
from nnlite.graph.ir import Graph
from nnlite.layout import Array
from nnlite.memory import max_tensor_bytes
from nnlite.node import Node
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

Stacking = tuple[int, bool]
"""Along which axis the results of all iterations are stacked, and whether in reverse."""


def _count(limit: Any) -> float:
    if limit is None:
        return float("inf")
    if limit.size != 1:
        raise ShapeError(
            f"loop: the number of iterations has shape {list(limit.shape)} but must be one number"
        )
    return int(limit.numpy().reshape(-1)[0])


def _nothing(body: Graph, inputs: Sequence[Tensor], index: int, axis: int) -> Tensor:
    """What is stacked where no iteration ran: no slices of the shape that they would have had."""
    types = {value: ArrayType(t.shape, t.dtype) for value, t in zip(body.inputs, inputs, strict=True)}
    try:
        one = infer_types(body, types)[body.outputs[index]]
    except NotImplementedError as error:
        raise ShapeError(
            f"loop: no iteration ran, and the shape of what it stacks is not known: {error}"
        ) from None
    shape = list(one.shape)
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 0)
    return Tensor(np.zeros(shape, one.dtype))


@control(
    "loop", "for i < limit, while the condition holds: condition, carried, slices = "
    "body(i, condition, carried); the carried values, and the slices of all iterations stacked",
    "ONNX Loop-24, Scan-24",
)  # fmt: skip
def loop(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """Operands are limit, condition (either may be absent), carried values, and what the body captures."""
    body, stacking = node.params["body"], node.params["stacking"]
    last = 2 + node.params["carried"]
    limit, condition, carried, captured = _count(operands[0]), operands[1], operands[2:last], operands[last:]
    going = condition is None or truth("loop", condition.numpy())
    slices: list[list[Tensor]] = [[] for _ in stacking]
    if going and not node.params["conditional"]:  # nothing but the limit will end it
        runner.foresee(node, limit)
    held = count = 0
    while going and count < limit:
        runner.iterate(node)
        given = [_scalar(count), _scalar(True), *carried, *captured]
        keep, *results = runner.body(body, given)
        going, carried = truth("loop", keep.numpy()), results[: len(carried)]
        for row, result in zip(slices, results[len(carried) :], strict=True):
            row.append(result)
            held += result.numpy().nbytes
        if held > max_tensor_bytes():
            raise ShapeError(
                f"loop: what {count + 1} iterations stack is beyond the budget of {max_tensor_bytes()} "
                "bytes; raise NNLITE_MAX_TENSOR_BYTES if you trust the file"
            )
        count += 1
    if count:
        return [*carried, *(F.stack(row[::-1] if flip else row, axis)
                            for row, (axis, flip) in zip(slices, stacking, strict=True))]  # fmt: skip
    given = [_scalar(0), _scalar(True), *carried, *captured]
    empty = [_nothing(body, given, 1 + len(carried) + i, axis) for i, (axis, _) in enumerate(stacking)]
    return [*carried, *empty]


def _scalar(number: int | bool) -> Tensor:
    array: Array = np.asarray(number)
    return Tensor(array)


@control("scan_length", "the size that all operands have, each along its own axis", "ONNX Scan-24")
def scan_length(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """The number of iterations; ShapeError unless all sequences are of one length."""
    axes = node.params["axes"]
    if any(not -t.ndim <= axis < t.ndim for t, axis in zip(operands, axes, strict=True)):
        shapes = [list(t.shape) for t in operands]
        raise ShapeError(f"scan: axes {list(axes)} are not those of sequences {shapes}")
    lengths = {t.shape[axis] for t, axis in zip(operands, axes, strict=True)}
    if len(lengths) != 1:
        raise ShapeError(f"scan: the sequences are of lengths {sorted(lengths)} but must be of one")
    return [_scalar(lengths.pop())]
