"""The ranges of a network's values on a few pictures: what integers of 8 bits are to span."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnlite import autograd
from nnlite.graph.control import max_iterations
from nnlite.graph.ir import Graph
from nnlite.graph.step import run_node
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.tensors import Tensor

SAMPLES = 1 << 14
"""Numbers of one value that are looked at, per batch."""
BATCH = 4
"""Pictures at a time."""
FRACTIONS = tuple(np.linspace(1.0, 0.3, 29))
"""Parts of the whole range that are tried."""


@dataclass(frozen=True)
class Range:
    """How integers q from 0 to 255 stand for numbers: (q - zero)·scale; 0 is always among them."""

    scale: float
    zero: int

    @staticmethod
    def between(low: float, high: float) -> Range:
        """The range that spans ``low`` to ``high`` and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32(max(high - low, 1e-30) / 255))
        return Range(scale, int(np.clip(np.rint(-low / scale), 0, 255)))

    def rounded(self, x: Array) -> Array:
        """``x`` as the range has it."""
        q = np.clip(np.rint(x / self.scale) + self.zero, 0, 255)
        return np.asarray((q - self.zero) * self.scale)


def best_range(samples: Array) -> Range:
    """The range with the least mean squared error on ``samples``: what is rare and far out is cut off.

    Fewer numbers saturate where the range is wide, all others are rounded less where it is narrow.
    """
    low, high = float(samples.min(initial=0)), float(samples.max(initial=0))
    ranges = [Range.between(low * part, high * part) for part in FRACTIONS]
    errors = [float(np.square(one.rounded(samples) - samples).mean()) for one in ranges]
    return ranges[int(np.argmin(errors))]


def calibrate(
    graph: Graph, values: Iterable[Value], inputs: Sequence[Array], batch: int = BATCH
) -> dict[Value, Range]:
    """The range of each of ``values`` while ``graph`` runs on ``inputs``, ``batch`` pictures at a time."""
    wanted, seen = set(values), dict[Value, list[Array]]()
    for begin in range(0, len(inputs[0]), batch):
        some = [array[begin : begin + batch] for array in inputs]
        _collect(graph, some, wanted, seen)
    return {value: best_range(np.concatenate(parts)) for value, parts in seen.items()}


def _collect(
    graph: Graph, inputs: Sequence[Array], wanted: set[Value], seen: dict[Value, list[Array]]
) -> None:
    values = {value: Tensor(array) for value, array in graph.arrays.items()}
    values.update((value, Tensor(array)) for value, array in zip(graph.inputs, inputs, strict=True))
    left = [max_iterations()]
    for value in wanted & set(values):
        _sample(values[value].numpy(), seen.setdefault(value, []))
    with autograd.no_grad():
        for node, dying in zip(graph.nodes, graph.last_uses(), strict=True):
            for value, result in zip(node.outputs, run_node(node, values, left), strict=True):
                values[value] = result
                if value in wanted:
                    _sample(result.numpy(), seen.setdefault(value, []))
            for value in dying:
                values.pop(value, None)


def _sample(array: Array, into: list[Array]) -> None:
    """Numbers spread evenly over the array, and its extremes."""
    flat = np.moveaxis(array, 1, -1).reshape(-1) if array.ndim > 2 else array.reshape(-1)
    step = max(1, flat.size // SAMPLES) | 1  # odd: not the same channels over and over
    into.append(np.concatenate([flat[::step], [flat.min(), flat.max()]]).astype(np.float32))
