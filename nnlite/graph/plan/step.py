"""What a step of a compiled program is, and how it calls a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnlite.geometry import Geometry
from nnlite.kernels import Decision, requested_backend, select
from nnlite.layout import Array
from nnlite.node import Node, Value

if TYPE_CHECKING:
    from nnlite.graph.plan.layout import Layout

Slots = list[Any]
"""Arrays by number while a program runs."""

Run = Callable[[Slots], None]


@dataclass(frozen=True)
class Step:
    """One node of a program."""

    node: Node
    run: Run
    how: Decision | str = "numpy"
    """Which kernel variant serves it and why, or what else does."""
    then: tuple[Node, ...] = ()
    """The nodes behind it that it does, too: a sum, a function."""
    direct: bool = False
    """Whether it is one call of a native kernel on the very arrays of its slots, no copies of them: it can
    be checked once and then be made without Python."""

    @property
    def variant(self) -> str:
        """The kernel variant that serves it, or what else does."""
        return self.how if isinstance(self.how, str) else str(self.how.variant)


def launcher(
    kernel: str, geometry: Geometry, dtype: Any, layout: Layout
) -> tuple[Callable[..., None], Decision]:
    """A kernel with its variant chosen now: function(slots, *operands), and the choice."""
    decision = select(kernel, geometry, dtype, prepared=True, device=layout.kind)
    scratch = layout.scratch(decision.workspace) if decision.workspace else None
    run = decision.run

    def launch(slots: Slots, *operands: Array | None) -> None:
        run(geometry, *operands, None if scratch is None else slots[scratch])

    return launch, decision


def is_native(layout: Layout, kernel: str, geometry: Geometry, dtype: Any) -> bool:
    """Whether a native kernel serves. Not every backend has all kernels, so it is asked for no other."""
    if layout.kind != "cpu" or requested_backend() not in ("auto", "native"):
        return False
    return select(kernel, geometry, dtype, prepared=True).variant.backend == "native"


def is_direct(layout: Layout, decision: Decision, *pictures: Value | None) -> bool:
    """Whether a kernel is native and takes ``pictures`` as they lie."""
    as_they_lie = all(v is None or layout.as_channels_last(v) is None for v in pictures)
    return decision.variant.backend == "native" and as_they_lie


def flat(array: Array) -> Array:
    """A dense array as a run of numbers, whatever the order of its axes."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    numbers: Array = array.transpose(0, *range(2, array.ndim), 1).reshape(-1)
    return numbers
