"""How long starting takes, as a ratio to ``import numpy``: python benchmarks/startup.py [repeats]

Whole processes, alternating, median; run it with the interpreter of the environment that nnlite is in.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import numpy": [sys.executable, "-c", "import numpy"],
    "import nnlite": [sys.executable, "-c", "import nnlite"],
    "nnlite --help": [sys.executable, "-m", "nnlite", "--help"],
    "nnlite.Tensor used": [sys.executable, "-c", "import nnlite; nnlite.Tensor"],
}
LIMITS = {"import nnlite": 1.5, "nnlite --help": 2.0}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    base = statistics.median(taken["import numpy"][1:])  # the first round warms the disk's cache
    for name, times in taken.items():
        ratio = statistics.median(times[1:]) / base
        limit = f"  (limit {LIMITS[name]})" if name in LIMITS else ""
        print(f"{name:20} {statistics.median(times[1:]) * 1000:7.1f} ms  {ratio:5.2f} x import numpy{limit}")


if __name__ == "__main__":
    main()
