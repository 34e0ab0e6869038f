"""Plans of one network in float32, in bytes and in bfloat16, timed in turns: median milliseconds and ratios.

    python benchmarks/precision.py resnet18 resnet50 examples/assets/mobilenet_v2.onnx --batch 16

Networks of the zoo have random weights and statistics measured on noise. Ranges of int8 are measured on the
same noise: the times are those of any pictures, the largest difference printed is not.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from nnlite import autograd, onnx, random, threads, zoo
from nnlite.graph import GraphModule, trace
from nnlite.tensors import Tensor

PRECISIONS = ("fp32", "int8", "bf16")


def network(name: str) -> GraphModule:
    """A file, or a network of the zoo."""
    if name.endswith(".onnx"):
        return onnx.load(name).freeze().eval()
    random.manual_seed(0)
    model = getattr(zoo, name)().train()
    noise = np.random.default_rng(0).standard_normal((8, 3, 96, 96)).astype(np.float32)
    with autograd.no_grad():
        for _ in range(4):
            model(Tensor(noise))
    graph, leaves = trace(model.eval(), [Tensor(noise[:1])])
    return GraphModule(graph, leaves=leaves).freeze().eval()


def measure(name: str, batch: int, size: int, repeats: int) -> str:
    """A line about one network."""
    module = network(name)
    x = np.random.default_rng(1).standard_normal((batch, 3, size, size)).astype(np.float32)
    plans = {p: module.compile(p, [x[:4]] if p == "int8" else ()) for p in PRECISIONS}
    results = {p: plan(x).copy() for p, plan in plans.items()}  # compiles
    seconds: dict[str, list[float]] = {p: [] for p in PRECISIONS}
    for _ in range(repeats):
        for p, plan in plans.items():
            begin = time.perf_counter()
            plan(x)
            seconds[p].append(time.perf_counter() - begin)
    middle = {p: median(times) for p, times in seconds.items()}
    text = f"{name} [{batch},3,{size},{size}]  " + "  ".join(
        f"{p} {1e3 * t:.1f} ms" for p, t in middle.items()
    )
    for p in PRECISIONS[1:]:
        off = np.abs(results[p] - results["fp32"]).max() / np.abs(results["fp32"]).max()
        text += f"; fp32/{p} {middle['fp32'] / middle[p]:.2f}, off by {off:.3f}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", metavar="NAME|FILE.onnx")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    threads.set_num_threads(options.threads)
    for name in options.networks:
        print(measure(name, options.batch, options.size, options.repeats), flush=True)


if __name__ == "__main__":
    main()
