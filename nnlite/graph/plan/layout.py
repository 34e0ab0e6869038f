"""Where the values of a program live: constants, places in one block of memory, or arrays of the pool.

Every value has a *slot*, a number. A planned value has a place: a buffer whose lifetime is known, and the
strides by which it is seen there. Two values share a buffer where one is another view of the other, or
where an elementwise step may overwrite what nobody reads again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from nnlite import memory
from nnlite.device import CPU, moved
from nnlite.geometry import Conv2dGeometry
from nnlite.graph.infer import resolve
from nnlite.graph.ir import Graph, Types, operands
from nnlite.graph.passes.rewrite import only_users
from nnlite.graph.plan.arena import Lifetime
from nnlite.kernels import Decision
from nnlite.layout import Array, channels_last
from nnlite.node import Node, Value
from nnlite.ops import ArrayType

Order = Literal["channels_last", "C"]
ORDERS: tuple[Order, ...] = ("C", "channels_last")
FOREVER = 1 << 40
Prepared = dict[tuple[Value, Hashable], Array]
"""Weights as kernels read them, by value and form."""
BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class Place:
    """A view of a buffer: dense, row-major or channels-last."""

    buffer: int
    type: ArrayType
    strides: tuple[int, ...]


@dataclass
class Buffer:
    """Bytes that are written by step ``begin`` and last read by step ``end``."""

    size: int
    begin: int
    end: int
    owned: bool = True
    """False for what a caller gives or gets: it lies outside the block."""


def strides_of(known: ArrayType, order: Order) -> tuple[int, ...]:
    """Strides in bytes of a dense array."""
    rank = len(known.shape)
    axes = (0, *range(2, rank), 1) if order == "channels_last" and rank > 2 else tuple(range(rank))
    strides, step = [0] * rank, known.dtype.itemsize
    for axis in reversed(axes):
        strides[axis] = step
        step *= known.shape[axis]
    return tuple(strides)


def _same_bytes(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    return all(size == 1 or x == y for size, x, y in zip(shape, a, b, strict=True))


class Layout:
    """Gives out slots and places while the steps are built, node by node."""

    def __init__(
        self, graph: Graph, types: Types, known: Mapping[Value, Array], prepared: Prepared, device: str = CPU
    ) -> None:
        self.device = device
        self.kind = device.partition(":")[0]
        """The device without its number."""
        self.types = types
        self.known = known
        self._prepared = prepared
        self.buffers: list[Buffer] = []
        self.places: dict[int, Place] = {}
        self.weights: Prepared = {}
        """What this program reads that was made of constants: weights in a form of their own."""
        self.constants: dict[int, Array] = {}
        self.frees: dict[int, list[int]] = {}
        """Slots of pool arrays by the step after which nothing reads them."""
        self.step = 0
        self._slots: dict[Value, int] = {}
        self._count = 0
        self._only_user = only_users(graph)
        self.absorbed: set[Node] = set()
        """Nodes that the step of another does."""
        self._last_use: dict[Value, int] = {}
        for index, node in enumerate(graph.nodes):
            for value in operands(node):
                self._last_use[value] = index
        self._last_use |= dict.fromkeys(graph.outputs, FOREVER)

    @property
    def slot_count(self) -> int:
        """How many slots there are."""
        return self._count

    def _new_slot(self) -> int:
        self._count += 1
        return self._count - 1

    # ---------------------------------------------------------------------------- what builders ask

    def constant(self, value: Value | None) -> Array | None:
        """The array behind a value that does not depend on the program's inputs, on the host."""
        return None if value is None else self.known.get(value)

    def there(self, array: Array) -> Array:
        """``array`` on the device that the program runs on."""
        return moved(array, self.device)

    def operand(self, value: Value | None) -> Array | None:
        """A :meth:`constant` as kernels read it."""
        array = self.constant(value)
        return None if array is None else self.there(array)

    def are_constant(self, *values: Value | None) -> bool:
        """Whether none of ``values`` depends on the program's inputs; None does not."""
        return all(value is None or value in self.known for value in values)

    def weight(self, value: Value, decision: Decision) -> Array:
        """A constant as the variant chosen for a convolution reads it, made once for all programs.

        Channels-last, or prepared where the variant has a form of its own.
        """
        geometry, preparation = decision.geometry, decision.preparation
        assert isinstance(geometry, Conv2dGeometry)
        form = geometry.w_shape if preparation is None else (decision.variant, preparation.key(geometry))
        if (value, form) not in self._prepared:
            array = self.there(channels_last(self.known[value].reshape(geometry.w_shape)))
            if preparation is not None:
                plain, array = array, memory.workspace(preparation.size(geometry), array)
                preparation.prepare(geometry, plain, array)
            self._prepared[value, form] = array
        weight = self._prepared[value, form]
        if self.device != CPU or not np.may_share_memory(weight, self.known[value]):
            self.weights[value, form] = weight
        return weight

    def params(self, node: Node) -> dict[str, Any]:
        """The node's params, with what shapes determine as numbers."""
        return resolve(node.params, self.known)

    def slot(self, value: Value) -> int:
        """The slot of a value that is known by now."""
        if value not in self._slots:
            self._slots[value] = self._new_slot()
            self.constants[self._slots[value]] = self.there(self.known[value])
        return self._slots[value]

    def is_planned(self, value: Value) -> bool:
        """Whether the value lies in a buffer of the program."""
        return self._slots.get(value) in self.places

    def only_user(self, node: Node) -> Node | None:
        """The one node that reads the result of ``node``, where nothing else does."""
        return self._only_user.get(node.outputs[0])

    def slots_of(self, *nodes: Node) -> set[int]:
        """The slots of what ``nodes`` read and write; what they hold themselves has none."""
        values = [v for node in nodes for v in (*operands(node), *node.outputs)]
        return {self._slots[value] for value in values if value in self._slots}

    def as_channels_last(self, value: Value) -> Callable[[Array], Array] | None:
        """What makes arrays of the value channels-last; None where its place says that they are."""
        place = self.places.get(self._slots.get(value, -1))
        wanted = None if place is None else strides_of(place.type, "channels_last")
        if place is not None and wanted is not None and _same_bytes(place.type.shape, place.strides, wanted):
            return None
        return channels_last

    # ------------------------------------------------------------------------------- giving places

    def _put(self, value: Value, buffer: int, strides: tuple[int, ...]) -> int:
        slot = self._slots[value] = self._new_slot()
        self.places[slot] = Place(buffer, self.types[value], strides)
        # What nobody reads is written all the same.
        self.buffers[buffer].end = max(self.buffers[buffer].end, self._last_use.get(value, self.step))
        return slot

    def new(self, value: Value, order: Order = "channels_last") -> int:
        """A slot with a buffer of its own."""
        known = self.types[value]
        self.buffers.append(Buffer(known.dtype.itemsize * prod(known.shape), self.step, self.step))
        return self._put(value, len(self.buffers) - 1, strides_of(known, order))

    def in_place(self, value: Value, source: Value, node: Node) -> int:
        """A slot over ``source``'s bytes where ``node`` is the last to read them, else one like it."""
        place = self.places[self._slots[source]] if self.is_planned(source) else None
        if place is None or self.types[value] != place.type:
            return self.new(value)
        buffer = self.buffers[place.buffer]
        if buffer.owned and buffer.end == self.step:
            return self._put(value, place.buffer, place.strides)
        slot = self.new(value)
        self.places[slot] = Place(len(self.buffers) - 1, place.type, place.strides)
        return slot

    def alias(self, value: Value, source: Value, axes: tuple[int, ...] | None) -> bool:
        """Let ``value`` be a view of ``source``: transposed by ``axes``, or reshaped where None.

        False where the view would be neither row-major nor channels-last, or not be a view at all.
        """
        place, known = self.places[self._slots[source]], self.types[value]
        if axes is None:
            if not _same_bytes(place.type.shape, place.strides, strides_of(place.type, "C")):
                return False
            self._put(value, place.buffer, strides_of(known, "C"))
            return True
        strides = tuple(place.strides[axis] for axis in axes)
        for order in ORDERS:
            if _same_bytes(known.shape, strides, strides_of(known, order)):
                self._put(value, place.buffer, strides)
                return True
        return False

    def loose(self, value: Value) -> int:
        """A slot for an array that an op allocates itself."""
        slot = self._slots[value] = self._new_slot()
        last = self._last_use.get(value, self.step)
        if last != FOREVER:
            self.frees.setdefault(last, []).append(slot)
        return slot

    def scratch(self, size: int) -> int:
        """A slot with ``size`` bytes that only this step needs."""
        slot = self._new_slot()
        self.buffers.append(Buffer(size, self.step, self.step))
        self.places[slot] = Place(len(self.buffers) - 1, ArrayType((size,), BYTE), (1,))
        return slot

    def lifetimes(self) -> list[Lifetime]:
        """The buffers of the program's block."""
        return [Lifetime(b.size, b.begin, b.end) for b in self.buffers if b.owned]
