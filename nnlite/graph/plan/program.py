"""A program: the steps of a graph for inputs of given shapes, and the block of memory that they need."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.device import CPU, moved, on_host, synchronize
from nnlite.errors import ModelError
from nnlite.graph.infer import infer, node_macs
from nnlite.graph.ir import Graph, operands
from nnlite.graph.plan.arena import Placement, peak, place
from nnlite.graph.plan.layout import Layout, Place, Prepared
from nnlite.graph.plan.reduced import REDUCED
from nnlite.graph.plan.step import Run, Slots, Step
from nnlite.graph.plan.steps import build
from nnlite.kernels import Decision, record
from nnlite.kernels.native import kept, native_info
from nnlite.layout import Array
from nnlite.node import Node, Value
from nnlite.ops import ArrayType


@dataclass(frozen=True)
class MemoryReport:
    """Bytes of a program's intermediate arrays and scratch memory."""

    planned: int
    """Length of the one block that holds them all."""
    peak: int
    """What lives at the worst moment: no plan can do with less."""
    unplanned: int
    """The sum of them all, if each had memory of its own."""
    constants: int
    """Weights and other constants, beside the block."""
    prepared: int
    """The same weights as kernels read them: packed, transformed or in another memory order."""


@dataclass(frozen=True)
class Bound:
    """What every run of a program over one block shares."""

    slots: Slots
    """The constants, and the views into the block."""
    calls: list[tuple[Run, tuple[int, ...]]]
    """What is done in order, and the slots that nobody reads after it."""


class Program:
    """Runs a graph on arrays of fixed shapes, step by step, within one block of memory."""

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[Value, ArrayType],
        prepared: Prepared,
        most: int | None = None,
        device: str = CPU,
    ) -> None:
        """Choose variants and places for ``inputs``; constants are copied to ``device``.

        ``prepared`` holds what programs of one graph share; ``most`` bytes are allowed for each result.
        Raises NotImplementedError where a shape depends on data, ShapeError where shapes do not fit or a
        result is beyond ``most``.
        """
        self.types, known = infer(graph, inputs)
        for node in graph.nodes:
            memory.check_budget(node.op.name, (self.types[value] for value in node.outputs), most)
        self.device = device
        layout = Layout(graph, self.types, known, prepared, device)
        self._inputs = [layout.new(value) for value in graph.inputs]
        self.steps: list[Step] = []
        frees: list[tuple[int, ...]] = []
        for index, node in enumerate(graph.nodes):
            layout.step = index
            if node in layout.absorbed:  # it reads what nothing else did: nothing is freed after it
                continue
            if all(value in known for value in node.outputs):
                # Follows from the shapes; what only this read is not needed since the step before.
                if frees:
                    frees[-1] += tuple(layout.frees.pop(index, ()))
                continue
            self.steps.append(REDUCED.get(node.op.name, build)(layout, node))
            frees.append(tuple(layout.frees.pop(index, ())))
        self._frees = frees
        self._decisions = [step.how for step in self.steps if isinstance(step.how, Decision)]
        self._outputs = [layout.slot(value) for value in graph.outputs]
        self._shared = {slot for slot in self._outputs if slot in layout.constants}
        self._constants = [layout.constants.get(slot) for slot in range(layout.slot_count)]
        self._known: Mapping[Value, Array] | None = known
        self._plan_memory(layout, known)

    def _plan_memory(self, layout: Layout, known: Mapping[Value, Array]) -> None:
        places = layout.places
        for slot in self._outputs:  # results belong to the caller
            if slot in places:
                layout.buffers[places[slot].buffer].owned = False
        lifetimes = layout.lifetimes()
        self._placement: Placement = place(lifetimes)
        owned = iter(self._placement.offsets)
        offsets = [next(owned) if buffer.owned else -1 for buffer in layout.buffers]
        self._in_block: dict[int, tuple[Place, int]] = {}
        self._outside: dict[int, list[tuple[int, Place]]] = {}
        for slot, at in places.items():
            if offsets[at.buffer] >= 0:
                self._in_block[slot] = (at, offsets[at.buffer])
            else:
                self._outside.setdefault(at.buffer, []).append((slot, at))
        within = self._in_block.keys() | layout.constants.keys()
        self._direct = [
            step.direct and layout.slots_of(step.node, *step.then) <= within for step in self.steps
        ]
        self._outside_sizes = {index: layout.buffers[index].size for index in self._outside}
        self.memory = MemoryReport(
            planned=self._placement.total,
            peak=peak(lifetimes),
            unplanned=sum(lifetime.size for lifetime in lifetimes),
            constants=sum(array.nbytes for array in known.values()),
            prepared=sum(array.nbytes for array in layout.weights.values()),
        )

    @property
    def block_size(self) -> int:
        """Bytes of the block that :meth:`run` wants."""
        return self._placement.total

    def bind(self, block: Array) -> Bound:
        """The slots over ``block``; direct steps in a row are checked now and are one call from then on."""
        slots: Slots = list(self._constants)
        for slot, (at, offset) in self._in_block.items():
            slots[slot] = _view(block, offset, at)
        calls: list[tuple[Run, tuple[int, ...]]] = []
        each = zip(self._direct, self.steps, self._frees, strict=True)
        for direct, group in groupby(each, key=lambda item: item[0]):
            _, steps, frees = zip(*group, strict=True)
            if direct:
                together = kept(partial(step.run, slots) for step in steps)
                calls.append((partial(_without_slots, together), sum(frees, ())))
            else:
                calls.extend((step.run, done) for step, done in zip(steps, frees, strict=True))
        return Bound(slots, calls)

    def run(self, block: Array, bound: Bound, inputs: Sequence[Array]) -> list[Array]:
        """The outputs for ``inputs``; ``block`` and ``bound`` belong to this run until it ends."""
        record(*self._decisions)
        slots = self._start(block, bound, inputs)
        for call, done in bound.calls:
            call(slots)
            for slot in done:
                slots[slot] = None
        return [slots[slot].copy() if slot in self._shared else slots[slot] for slot in self._outputs]

    def _start(self, like: Array, bound: Bound, inputs: Sequence[Array]) -> Slots:
        slots = bound.slots.copy()
        for index, seen in self._outside.items():
            block = memory.workspace(max(self._outside_sizes[index], 1), like)
            for slot, at in seen:
                slots[slot] = _view(block, 0, at)
        for slot, array in zip(self._inputs, inputs, strict=True):
            np.copyto(slots[slot], moved(array, self.device))
        return slots

    def timed(self, block: Array, bound: Bound, inputs: Sequence[Array]) -> list[float]:
        """Seconds of each step of one run."""
        slots = self._start(block, bound, inputs)
        seconds = []
        synchronize()
        for step, done in zip(self.steps, self._frees, strict=True):
            begin = time.perf_counter()
            step.run(slots)
            synchronize()
            seconds.append(time.perf_counter() - begin)
            for slot in done:
                slots[slot] = None
        return seconds

    def settle(self) -> None:
        """Give back the constants that no step reads as they are."""
        self._known = None

    def fingerprint(self) -> str:
        """A hash of the steps, their variants, the instruction set and every constant.

        Raises ModelError where they were given back.
        """
        if self._known is None:
            raise ModelError("the plan was settled: what its fingerprint would be taken of is gone")
        native = native_info()
        digest = hashlib.sha256(repr((native and native.isa, np.__version__, self.device)).encode())
        numbers: dict[Value, int] = {}
        for step in self.steps:
            node = step.node
            for value in (*operands(node), *node.outputs):
                numbers.setdefault(value, len(numbers))
            inputs = [None if value is None else numbers[value] for value in node.inputs]
            params = {k: numbers[p] if isinstance(p, Value) else p for k, p in node.params.items()}
            outputs = [(numbers[value], str(self.types[value])) for value in node.outputs]
            then = []
            for one in step.then:
                beside = [
                    v for v in operands(one) if v not in numbers or numbers[v] != numbers[node.outputs[0]]
                ]
                for value in beside:
                    numbers.setdefault(value, len(numbers))
                then.append((one.op.name, dict(one.params), [numbers[value] for value in beside]))
                numbers[one.outputs[0]] = numbers[node.outputs[0]]
            digest.update(repr((node.op.name, inputs, params, then, outputs, step.variant)).encode())
            for value in (v for one in (node, *step.then) for v in operands(one)):
                if value in self._known:
                    array = self._known[value]
                    digest.update(repr((numbers[value], array.shape, str(array.dtype))).encode())
                    digest.update(array.tobytes())
        return digest.hexdigest()

    def rows(self, seconds: Sequence[float] | None = None) -> list[dict[str, Any]]:
        """A line per step: name, op, variant, shape and bytes of the result, MACs, time if measured."""
        result = []
        for index, step in enumerate(self.steps):
            node, known = step.node, self.types[step.node.outputs[0]]
            macs = node_macs(node, self.types)
            row: dict[str, Any] = {
                "name": node.name,
                "op": _described(node.op.name, node.params, step.then),
                "variant": step.variant,
                "shape": list(known.shape),
                "bytes": known.dtype.itemsize * int(np.prod(known.shape)),
                "macs": macs,
            }
            if seconds is not None:
                row["seconds"] = seconds[index]
                row["gflops"] = 2 * macs / seconds[index] / 1e9 if macs and seconds[index] else None
            result.append(row)
        return result


def _without_slots(call: Callable[[], None], slots: Slots) -> None:
    call()


def _view(block: Array, offset: int, at: Place) -> Array:
    """The array of ``at`` that begins at byte ``offset`` of ``block``."""
    shape, dtype = at.type
    view: Array
    if on_host(block):
        view = np.ndarray(shape, dtype, block, offset, at.strides)
        return view
    order = sorted(range(len(shape)), key=lambda axis: -at.strides[axis])
    dense = block[offset : offset + dtype.itemsize * prod(shape)].view(dtype)
    view = dense.reshape([shape[axis] for axis in order]).transpose(
        sorted(range(len(order)), key=order.__getitem__)
    )
    return view


def _described(op: str, params: Mapping[str, Any], then: Sequence[Node]) -> str:
    """The op with what was fused into it: ``conv2d+relu``."""
    activation = params.get("activation")
    if activation is None:
        return "+".join((op, *(node.op.name for node in then)))
    return f"{op}+{activation}" if isinstance(activation, str) else f"{op}+clamp"
