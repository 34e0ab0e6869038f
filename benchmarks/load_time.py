"""Reading a model of 100 MB, as a ratio to ``onnx.load`` of it: python benchmarks/load_time.py [repeats]

A process for each reading, alternating, median; memory is the growth of the process at its highest, as a
ratio to the file's size. Needs Linux, whose /proc counts it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

LIMITS = {"time": 1.2, "memory": 2.2}
MEASURE = """
import sys, time
import onnx
import {module} as reader

def highest():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

before = highest()
start = time.perf_counter()
model = reader.load(sys.argv[1])
taken = time.perf_counter() - start
print(taken, highest() - before)
"""


def write_model(path: Path, layers: int = 11, width: int = 512) -> None:
    """A chain of 3x3 convolutions, 9.4 MB of weights each."""
    rng = np.random.default_rng(0)
    nodes, tensors = [], []
    for i in range(layers):
        weight = rng.standard_normal((width, width, 3, 3), np.float32)
        tensors.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1, 1, 1, 1]))
    sizes = ["N", width, 14, 14]
    entries = [helper.make_tensor_value_info(name, 1, sizes) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "layers", entries[:1], entries[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def measured(module: str, path: Path) -> tuple[float, float]:
    """Seconds and bytes that reading takes."""
    command = [sys.executable, "-c", MEASURE.format(module=module), str(path)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, size = result.stdout.split()
    return float(seconds), float(size)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(path)
        rounds = [(measured("onnx", path), measured("nnlite.onnx", path)) for _ in range(repeats)]
        size = path.stat().st_size
    theirs, ours = (statistics.median(pair[i][0] for pair in rounds) for i in (0, 1))
    memory = statistics.median(pair[1][1] for pair in rounds) / size
    print(f"onnx.load         {theirs * 1000:6.0f} ms")
    print(
        f"nnlite.onnx.load  {ours * 1000:6.0f} ms  {ours / theirs:.2f} x onnx.load (limit {LIMITS['time']})"
    )
    print(f"  memory          {memory:6.2f} x the file (limit {LIMITS['memory']})")


if __name__ == "__main__":
    main()
