"""One measured case: what it took on each side, and how that compares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nnlite.bench.machine import Machine


@dataclass(frozen=True)
class Row:
    """One case: seconds by side, rates of the first backend, ratios of the peers' times to it."""

    kind: str
    group: str
    name: str
    what: str
    variant: str
    seconds: dict[str, float]
    gflops: float
    gbytes: float | None
    roofline: float | None
    """Part of what the machine's ceilings allow; above 1 where the algorithm needs fewer operations."""
    ratios: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return asdict(self)


def best_of_layouts(seconds: dict[str, float]) -> dict[str, float]:
    """PyTorch's two layouts as one side, the better of them."""
    layouts = [t for name, t in seconds.items() if name.startswith("torch ")]
    rest = {name: t for name, t in seconds.items() if not name.startswith("torch ")}
    return rest | ({"torch": min(layouts)} if layouts else {})


def make_row(
    kind: str, group: str, name: str, what: str, variant: str, seconds: dict[str, float], flops: float,
    size: float | None, machine: Machine, own: str,
) -> Row:  # fmt: skip
    """What ``seconds`` by side say: rates of the side ``own``, and the others' times divided by its."""
    seconds = best_of_layouts(seconds)
    rate = flops / seconds[own]
    ceiling = machine.roofline(flops, size) if size else machine.flops
    ratios = {side: t / seconds[own] for side, t in seconds.items() if side != own}
    return Row(
        kind, group, name, what, variant, seconds, rate / 1e9,
        size / seconds[own] / 1e9 if size else None, rate / ceiling if ceiling else None, ratios,
    )  # fmt: skip
