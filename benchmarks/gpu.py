"""All about the GPU in one command: python benchmarks/gpu.py [--match TEXT] [--json FILE] [--small]

First whether it is right: every case on fresh random numbers, outputs filled with NaN before, against
float64 on the CPU. Then how fast: CUDA events around calls that follow one another, sides alternating,
medians; beside cuDNN through PyTorch (channels_last, its autotuner on) where that is installed. Products of
convolutions in float32 exactly, in TF32 and in bfloat16; PyTorch's bfloat16 has arrays of bfloat16, ours of
float32. Layers of ResNet-50, MobileNetV2 and DCGAN, then whole training steps. The ceilings are measured in
the same run: a copy of a large array, and a matrix product by cuBLAS in the same kind of number. A ratio is
PyTorch's time divided by ours: above 1 nnlite is faster. A short table of geometric means comes last.

Without a GPU it says what is missing and exits with status 2; a wrong result makes it 1. ``--small`` shrinks
everything to see that it runs. It stops measuring after seven minutes and says what it left out.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_sides import (
    ROUNDING,
    Ceilings,
    alternate,
    cases,
    ceilings,
    direction,
    error,
    kinds,
    operands,
    peer,
    runner,
    step_sides,
    use_products,
)  # fmt: skip

from nnlite import device, kernels
from nnlite.bench.report import geometric_mean

SECONDS = 420.0
LIMITS = {
    ("3x3", "forward"): 0.55, ("1x1", "forward"): 0.55, ("3x3", "gradients"): 0.5, ("1x1", "gradients"): 0.5,
    ("depthwise", "forward"): 1.2, ("depthwise", "gradients"): 1.2, ("pool", "forward"): 1.2,
    ("pool", "gradients"): 1.2, ("batch norm + relu", "forward"): 1.2,
    ("batch norm + relu", "gradients"): 1.2, ("resnet50", "step"): 0.5, ("mobilenet_v2", "step"): 0.9,
}  # fmt: skip
"""Ratios to reach, convolutions and ResNet-50 in TF32 and bfloat16."""


# ------------------------------------------------------------------------------------------ output


def row(group: str, name: str, what: str, products: str, seconds: dict[str, float], **more: Any) -> Any:
    ratio = seconds["torch"] / seconds["nnlite"] if "torch" in seconds else None
    return {"group": group, "name": name, "what": what, "products": products, "seconds": seconds,
            "ratio": ratio, **more}  # fmt: skip


def shown(r: Any) -> str:
    ratio = "" if r["ratio"] is None else f"{r['ratio']:6.2f} x"
    parts = [
        f"{r['name']:<34} {r['what']:<24} {r['products']:<9} {r['seconds']['nnlite'] * 1e3:9.3f} ms",
        ratio,
    ]
    parts += [f"{r[key]:5.0%} of {key}" for key in ("gemm", "copy") if r.get(key) is not None]
    return "  ".join(parts) + (f"  {r['variant']}" if r.get("variant") else "")


def table(rows: list[Any]) -> str:
    """Geometric means by group, direction and kind of product, with the limit where there is one."""
    lines = [f"{'':<20} {'':<10} {'products':<9} {'ratio':>6} {'limit':>6}  of gemm  of copy"]
    keys = dict.fromkeys((r["group"], r["direction"], r["products"]) for r in rows)
    for key in keys:
        own = [r for r in rows if (r["group"], r["direction"], r["products"]) == key]
        ratios = [r["ratio"] for r in own if r["ratio"] is not None]
        ratio = f"{geometric_mean(ratios):6.2f}" if ratios else "     -"
        limited = key[0] in ("depthwise", "pool", "batch norm + relu", "mobilenet_v2") or key[2] != "float32"
        limit = LIMITS.get(key[:2]) if limited else None
        parts = [
            f"{geometric_mean(r[c] for r in own):7.0%}" if all(r.get(c) for r in own) else "      -"
            for c in ("gemm", "copy")
        ]
        lines.append(f"{key[0]:<20} {key[1]:<10} {key[2]:<9} {ratio} {limit or '-':>6}  {'  '.join(parts)}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Correctness and speed on the GPU.")
    parser.add_argument("--match", default="", help="Only cases whose name or group holds TEXT.")
    parser.add_argument("--json", help="Write all figures to FILE.")
    parser.add_argument("--small", action="store_true", help="Tiny layers, to see that it runs.")
    told = parser.parse_args(arguments)
    if reason := device.why_unavailable():
        print(f"benchmarks/gpu.py needs an NVIDIA GPU: {reason}", file=sys.stderr)
        return 2
    began = time.perf_counter()
    served = kernels.unavailable("cuda") or "ready"
    print(f"device {device.describe(device.resolve('cuda'))}; compiled kernels: {served}")
    torch = None
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no peer")
    if torch is not None and not torch.cuda.is_available():
        print("PyTorch finds no GPU: no peer")
        torch = None
    if torch is not None:  # one stream for both, so that sides do not overlap
        print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    wrong = check(told)
    if wrong:
        print(f"{wrong} cases are wrong; nothing is measured")
        return 1
    limits = ceilings(torch, 1 << 16 if told.small else 1 << 28)
    rates = ", ".join(f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in limits.flops.items())
    print(f"ceilings: copy {limits.bytes / 1e9:.0f} GB/s, {rates}\n")
    rows, left_out = measure(told, torch, limits, began + SECONDS)
    if told.json:
        Path(told.json).write_text(json.dumps({"ceilings": vars(limits), "rows": rows}, indent=2))
    print(f"\n{table(rows)}")
    late = f"; left out for time: {', '.join(left_out)}" if left_out else ""
    print(f"{time.perf_counter() - began:.0f} s{late}")
    return 0


def check(told: Any) -> int:
    """How many cases are wrong; one line for each of these."""
    seed = secrets.randbits(32)
    rng, wrong, count = np.random.default_rng(seed), 0, 0
    for case in cases(2, 16 if told.small else 2):
        if told.match not in f"{case.group} {case.name}":
            continue
        for products in kinds(case):
            use_products(products)
            count += 1
            if worst := error(case, rng, products):
                wrong += 1
                print(f"WRONG: {case.name} {case.kernel} {products}: {worst:.3g} times the tolerance")
    use_products("float32")
    print(f"correctness: {count - wrong} of {count} cases right (seed {seed})")
    return wrong


def measure(told: Any, torch: Any, limits: Ceilings, deadline: float) -> tuple[list[Any], list[str]]:
    """A row per case and kind of product, printed as it comes."""
    rows: list[Any] = []
    left_out: list[str] = []
    rng = np.random.default_rng(0)

    def add(new: Any) -> None:
        rows.append(new)
        print(shown(new), flush=True)

    for case in cases(2 if told.small else 64, 16 if told.small else 1):
        for products in kinds(case):
            if told.match not in f"{case.group} {case.name}":
                continue
            use_products(products)
            if time.perf_counter() > deadline:
                left_out.append(f"{case.name} {case.kernel} {products}")
                continue
            inputs, there, decision = operands(case, rng)
            sides = {"nnlite": (runner(case, there, decision), None)}
            if torch is not None:
                sides["torch"] = (peer(case, inputs, products, torch), torch)
            seconds = alternate(sides)
            ceiling = limits.flops.get(products)
            gemm = case.flops / seconds["nnlite"] / ceiling if ceiling and "conv2d" in case.kernel else None
            add(row(case.group, case.name, case.kernel, products, seconds, direction=direction(case),
                    gemm=gemm, copy=case.bytes / seconds["nnlite"] / limits.bytes,
                    variant=str(decision.variant)))  # fmt: skip
    for name in ("resnet50", "mobilenet_v2"):
        if told.match in name and not told.small:
            for products in ROUNDING:
                use_products(products)
                if time.perf_counter() > deadline:
                    left_out.append(f"{name} step {products}")
                    continue
                seconds = alternate(step_sides(name, products, torch), 3)
                add(row(name, f"{name} b64@224", "training step", products, seconds, direction="step"))
    use_products("float32")
    return rows, left_out


if __name__ == "__main__":
    sys.exit(main())
