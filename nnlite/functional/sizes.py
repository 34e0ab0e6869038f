"""What stands for one size or one per axis."""

from __future__ import annotations

from collections.abc import Sequence

from nnlite.geometry import Pair, pair

Size = int | Sequence[int]


def as_pair(op: str, name: str, value: Size, minimum: int = 1) -> Pair:
    """``value`` as (height, width); ShapeError below ``minimum``."""
    return pair(op, name, value, minimum)
