"""Memory: how far a training step lets the process grow, each side in a process of its own.

    python -m nnlite.bench.footprint resnet18 16 224 own

prints the bytes by which the peak of three steps exceeds what the process held before them, with its weights
and its batch. ``own`` or a memory layout of PyTorch.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import memory, threads
from nnlite.bench.cases import TRAINING_CASES
from nnlite.bench.networks import network, own_step, pictures, torch_steps
from nnlite.bench.torch_peer import LAYOUTS, use_threads

STEPS = 3


@dataclass(frozen=True)
class Footprint:
    """Growth by side in bytes, and the peers' growth divided by ours."""

    name: str
    growth: dict[str, int]
    ratios: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        return asdict(self)


def measure_memory(peers: Iterable[str], match: str) -> Iterator[Footprint]:
    """The training cases whose name contains ``match``."""
    for name, batch, side in TRAINING_CASES:
        if match not in name:
            continue
        growth = {"own": _grown(name, batch, side, "own")}
        if "torch" in peers:
            growth["torch"] = min(_grown(name, batch, side, layout) for layout in LAYOUTS)
        ratios = {who: size / growth["own"] for who, size in growth.items() if who != "own"}
        yield Footprint(f"{name} b{batch}@{side}", growth, ratios)


def _grown(name: str, batch: int, side: int, who: str) -> int:
    command = [sys.executable, "-m", "nnlite.bench.footprint", name, str(batch), str(side), who]
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return int(result.stdout)


def _peak() -> int:
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux: the highest so far
        return _peak()
    return pages * resource.getpagesize()


def main(name: str, batch: int, side: int, who: str) -> int:
    """Bytes by which ``STEPS`` training steps let this process grow."""
    model, x, labels = network(name), pictures(batch, side), np.arange(batch) % 10
    step: Callable[[], object]
    if who == "own":
        step = own_step(model, x, labels, "auto")
    else:
        use_threads(threads.get_num_threads())
        [step] = torch_steps(model, x, labels, [who]).values()
    memory.release()
    before = _resident()
    for _ in range(STEPS):
        step()
    return _peak() - before


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
