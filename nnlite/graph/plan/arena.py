"""Memory planning: where in one block each intermediate array lies, so that few bytes serve them all.

Two arrays may share bytes when they are never needed at the same time. Arrays are placed greedily,
largest first, each at the lowest offset at which it meets no array placed before it that lives at the same
time (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", arXiv:2001.03288,
"greedy by size"). The peak of what lives at once is a lower bound, and is mostly met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ALIGNMENT = 64


class Lifetime(NamedTuple):
    """``size`` bytes that are needed from step ``begin`` to step ``end``, both included."""

    size: int
    begin: int
    end: int


class Placement(NamedTuple):
    """Offsets in bytes, in the order of the lifetimes, and the length of the block."""

    offsets: tuple[int, ...]
    total: int


def place(lifetimes: Sequence[Lifetime]) -> Placement:
    """Offsets such that lifetimes that overlap in time do not overlap in memory."""
    offsets = [0] * len(lifetimes)
    placed: list[int] = []  # by offset
    total = 0
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size, i)):
        size, begin, end = lifetimes[index]
        size = -(-size // ALIGNMENT) * ALIGNMENT
        offset = 0
        for other in placed:
            if lifetimes[other].end < begin or end < lifetimes[other].begin:
                continue
            if offset + size <= offsets[other]:
                break
            offset = max(offset, offsets[other] + -(-lifetimes[other].size // ALIGNMENT) * ALIGNMENT)
        offsets[index] = offset
        total = max(total, offset + size)
        placed.append(index)
        placed.sort(key=offsets.__getitem__)
    return Placement(tuple(offsets), total)


def peak(lifetimes: Sequence[Lifetime]) -> int:
    """The most bytes that live at one step: no placement can do with less."""
    changes: dict[int, int] = {}
    for size, begin, end in lifetimes:
        changes[begin] = changes.get(begin, 0) + size
        changes[end + 1] = changes.get(end + 1, 0) - size
    current = highest = 0
    for step in sorted(changes):
        current += changes[step]
        highest = max(highest, current)
    return highest
