"""Activation checkpointing of a graph: backward computes the results of one segment after another again."""

from __future__ import annotations

from itertools import pairwise

from nnlite.functional import checkpoint
from nnlite.graph import Graph, GraphModule, infer_types
from nnlite.graph.ir import Types
from nnlite.node import Value
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor
from nnlite.transfer.memory_plan import array_bytes, result_bytes


def segment_ends(graph: Graph, types: Types) -> tuple[list[Value], int]:
    """Where to part a graph of one input and one output, and the bytes that then live at once.

    These are the results at which the segments meet, and all results of the largest one. Of n equal
    parts √n a segment are best; these are not equal, so every size is tried, and a segment takes what fits.
    """
    points = [*graph.inputs, *graph.cut_points(), *graph.outputs]
    sizes = [result_bytes(graph.between([a], [b]), types) for a, b in pairwise(points)]

    def packed(limit: int) -> tuple[int, list[Value]]:
        ends: list[Value] = []
        largest = current = meeting = 0
        for point, size in zip(points, sizes, strict=False):
            if current and current + size > limit:
                ends.append(point)
                meeting, current = meeting + array_bytes(types[point]), 0
            current += size
            largest = max(largest, current)
        return meeting + largest, ends

    least, ends = min((packed(sum(sizes) // n) for n in range(1, len(sizes) + 1)), key=lambda found: found[0])
    return ends, least


class Recomputed:
    """Computes in training what ``module`` does, keeping little for backward: the same bits.

    ``given`` is the type of its input for one picture. All segments but the last are checkpointed;
    backward begins with that one, and would compute it again at once.
    """

    def __init__(self, module: GraphModule, given: ArrayType) -> None:
        types = infer_types(module.outline(), {module.graph.inputs[0]: given})
        ends, self.bytes = segment_ends(module.graph, types)
        points = [*module.graph.inputs, *ends, *module.graph.outputs]
        self.parts = [module.part([a], [b]) for a, b in pairwise(points)]
        trained = {value for node in module.trainable_nodes() for value in node.outputs}
        for part in self.parts:  # dropout that is alone in its segment must drop all the same
            part.trained_inputs = tuple(value for value in part.graph.inputs if value in trained)
            part.train()

    def __call__(self, x: Tensor) -> Tensor:
        """The output, recorded."""
        for part in self.parts[:-1]:
            x = checkpoint(part, x)
        result: Tensor = self.parts[-1](x)
        return result
