"""What benchmarks/gpu.py measures: layers, whether they are right, the calls of both sides, CUDA events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import nnlite as nl
from nnlite import device, layout, memory
from nnlite import functional as F
from nnlite.bench.cases import KernelCase
from nnlite.bench.networks import network, pictures
from nnlite.geometry import RELU, Conv2dGeometry, NormGeometry, conv2d_geometry, pool2d_geometry
from nnlite.kernels import SPECS, VARIANTS, select
from nnlite.kernels import cuda as cuda_backend

PEER = "cuda"
"""Where PyTorch computes."""
FLOAT32 = np.dtype(np.float32)
PASSES = ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight")
ROUNDING = {"float32": 0.0, "tf32": 2.0**-11, "bfloat16": 2.0**-9}
"""What one factor of a product may be off by."""
# ------------------------------------------------------------------------------------------ cases


def convolution(n: int, c: int, k: int, side: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
    pad = (kernel - 1) // 2
    shape = (k, c // groups, kernel, kernel)
    return conv2d_geometry((n, c, side, side), shape, (stride, stride), (pad,) * 4, (1, 1), groups)


def cases(batch: int, shrink: int = 1) -> Iterator[KernelCase]:
    """Layers at ``batch`` pictures; sides and channels divided by ``shrink``."""

    def small(number: int) -> int:
        return max(number // shrink, 4)

    def layers() -> Iterator[tuple[str, str, Conv2dGeometry]]:
        for c, side in ((64, 56), (128, 28), (256, 14), (512, 7)):  # ResNet-50
            c, side = small(c), small(side)
            yield "3x3", f"3x3 {c}@{side}", convolution(batch, c, c, side, 3)
        for c, k, side in ((64, 256, 56), (512, 128, 28), (1024, 256, 14), (512, 2048, 7)):
            c, k, side = small(c), small(k), small(side)
            yield "1x1", f"1x1 {c}-{k}@{side}", convolution(batch, c, k, side, 1)
        yield "stem", f"7x7/2 3-{small(64)}@{small(224)}", convolution(batch, 3, small(64), small(224), 7, 2)
        for c, side, stride in ((96, 112, 2), (144, 56, 1), (384, 14, 1), (960, 7, 1)):  # MobileNetV2
            c, side = small(c), small(side)
            name = f"3x3/{stride} depthwise {c}@{side}"
            yield "depthwise", name, convolution(batch, c, c, side, 3, stride, c)

    for kernel in PASSES:
        for group, name, geometry in layers():
            yield KernelCase(group, name, kernel, geometry)
        for c, k, side in ((512, 256, 4), (256, 128, 8), (128, 64, 16)):  # DCGAN's generator
            c, k = small(c), small(k)
            shape = (batch, k, 2 * side, 2 * side)
            geometry = conv2d_geometry(shape, (c, k, 4, 4), (2, 2), (1,) * 4)
            name = f"4x4/2 transposed {c}-{k}@{side}"
            yield KernelCase("transposed", name, kernel, geometry, transposed=True)
    for kernel in ("max_pool2d_forward", "max_pool2d_backward"):
        c, side = small(64), small(112)
        pool = pool2d_geometry((batch, c, side, side), (3, 3), (2, 2), (1, 1, 1, 1))
        yield KernelCase("pool", f"max 3x3/2 {c}@{side}", kernel, pool)
    for kernel in ("batch_norm_training_forward", "batch_norm_training_backward"):
        for c, side in ((64, 112), (256, 56), (512, 14)):
            c, side = small(c), small(side)
            rows = NormGeometry(batch * side * side, c, 1e-5, RELU, 0.0, math.inf)
            absent = frozenset({"residual", "gresidual", "y"} if "backward" in kernel else {"residual"})
            shape = (batch, c, side, side)
            yield KernelCase("batch norm + relu", f"{c}@{side}", kernel, rows, absent, shape)


def direction(case: KernelCase) -> str:
    """Forward or gradients, as the layer has it."""
    forward = "conv2d_grad_input" if case.transposed else "conv2d_forward"
    return "forward" if case.kernel == forward or (case.kernel.endswith("_forward") and (
        not case.kernel.startswith("conv2d"))) else "gradients"  # fmt: skip


def kinds(case: KernelCase) -> tuple[str, ...]:
    convolves = case.kernel.startswith("conv2d") and case.group != "depthwise"
    return tuple(ROUNDING) if convolves else ("float32",)


# ------------------------------------------------------------------------------------ correctness


def use_products(kind: str) -> None:
    """Let convolutions multiply in ``kind`` from here on."""
    cuda_backend.use_products(kind)


def on_gpu(array: Any) -> Any:
    return device.moved(layout.channels_last(array) if array.ndim > 2 else array, "cuda:0")


def operands(case: KernelCase, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Inputs on the host; inputs and poisoned outputs on the GPU, those of the host excepted; the choice."""
    spec, g = SPECS[case.kernel], case.geometry
    inputs: dict[str, Any] = spec.random_inputs(g, FLOAT32, rng)
    for name in case.absent & set(inputs):
        inputs[name] = None
    there = {n: a if a is None or n in spec.host else on_gpu(a) for n, a in inputs.items()}
    like = next(a for a in there.values() if a is not None and is_there(a))
    for name in spec.outputs:
        shape, dtype = spec.types(g, FLOAT32)[name]
        there[name] = None if name in case.absent else memory.empty(shape, dtype, like=like)
        if there[name] is not None:
            there[name][...] = np.nan if dtype.kind == "f" else 77
    return inputs, there, select(case.kernel, g, FLOAT32, device="cuda")


def is_there(array: Any) -> bool:
    return not device.on_host(array)


def runner(case: KernelCase, there: dict[str, Any], decision: Any) -> Callable[[], None]:
    spec = SPECS[case.kernel]
    like = next(a for a in there.values() if a is not None and is_there(a))
    scratch = memory.workspace(decision.workspace, like) if decision.workspace else None
    arrays = [there[name] for name in (*spec.inputs, *spec.outputs)]
    return lambda: decision.variant.run(case.geometry, *arrays, scratch)


def error(case: KernelCase, rng: np.random.Generator, products: str) -> float:
    """The largest error over the tolerance where that is exceeded, else 0; infinite for NaN."""
    spec, g = SPECS[case.kernel], case.geometry
    inputs, there, decision = operands(case, rng)
    runner(case, there, decision)()
    (reference,) = (v for v in VARIANTS[case.kernel] if v.backend == "reference")
    exact = {
        n: a.astype(np.float64) if a is not None and a.dtype == FLOAT32 else a for n, a in inputs.items()
    }
    for name in spec.outputs:
        shape, dtype = spec.types(g, np.dtype(np.float64))[name]
        exact[name] = None if there[name] is None else memory.empty(shape, dtype)
    reference.run(g, *(exact[name] for name in (*spec.inputs, *spec.outputs)), None)
    worst = 0.0
    for name in spec.outputs:
        if there[name] is not None:
            scale = spec.scale(name, exact, exact[name]) or 1.0
            off = np.abs(device.to_host(there[name]).astype(np.float64) - exact[name]).max(initial=0)
            allowed = scale * (spec.tolerance(g) + 4 * ROUNDING[products])
            if not off <= allowed:  # NaN is not
                worst = max(worst, float(off) / allowed if allowed and np.isfinite(off) else math.inf)
    return worst


# ----------------------------------------------------------------------------------------- timing


def event_seconds(call: Callable[[], Any], torch: Any, repeats: int) -> float:
    """Seconds of one of ``repeats`` calls in a row, on the library's current stream."""
    if torch is not None:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / repeats
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3 / repeats


def alternate(sides: dict[str, tuple[Callable[[], Any], Any]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of a call of each side (call, torch or None)."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    counts = {}
    for name, (call, torch) in sides.items():
        call()  # compiles, tunes
        once = event_seconds(call, torch, 2)
        counts[name] = max(1, min(50, int(0.01 / max(once, 1e-6))))
    for _ in range(rounds):
        for name, (call, torch) in sides.items():
            taken[name].append(event_seconds(call, torch, counts[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


@dataclass
class Ceilings:
    """What this GPU does at best, bytes and operations per second."""

    bytes: float
    flops: dict[str, float]


def ceilings(torch: Any, size: int) -> Ceilings:
    """A copy of ``size`` numbers; square matrix products of as many numbers, by cuBLAS."""
    import cupy

    a, b = cupy.zeros(size, FLOAT32), cupy.zeros(size, FLOAT32)
    copy = alternate({"copy": (lambda: cupy.copyto(b, a), None)})["copy"]
    side = math.isqrt(size // 16)
    x = cupy.ones((side, side), FLOAT32)
    flops = {"float32": 2 * side**3 / alternate({"gemm": (lambda: x @ x, None)})["gemm"]}
    if torch is not None:
        y = torch.ones((side, side), device="cuda")
        half = y.bfloat16()
        torch.backends.cuda.matmul.allow_tf32 = True
        for name, z in (("tf32", y), ("bfloat16", half)):
            flops[name] = 2 * side**3 / alternate({"gemm": (lambda z=z: z @ z, torch)})["gemm"]
    return Ceilings(2 * a.nbytes / copy, flops)


def peer(case: KernelCase, inputs: dict[str, Any], products: str, torch: Any) -> Callable[[], Any]:
    """cuDNN's call through PyTorch."""
    from nnlite.bench import torch_peer

    kind = torch.bfloat16 if products == "bfloat16" else torch.float32
    torch.backends.cudnn.allow_tf32 = products == "tf32"
    torch.backends.cudnn.benchmark = True
    tensors = {}
    for name, array in inputs.items():
        if array is not None and name not in SPECS[case.kernel].host:
            tensor = torch_peer._tensor(case, array, torch.channels_last).to(PEER)
            tensors[name] = tensor.to(kind) if tensor.is_floating_point() and tensor.ndim == 4 else tensor
    torch.set_default_dtype(kind)  # of the operand that a gradient only needs the shape of
    try:
        with torch.device(PEER):
            return torch_peer._call(case, tensors)
    finally:
        torch.set_default_dtype(torch.float32)


# ------------------------------------------------------------------------------------------- steps


def own_step(model: Any, x: Any, labels: Any) -> Callable[[], Any]:
    """Forward, loss, backward, SGD with momentum, on the GPU."""
    optimizer = nl.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        model.train()
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def torch_step(graph: Any, arrays: Any, images: Any, labels: Any, products: str, torch: Any) -> Any:
    """The same network in PyTorch, eager, channels_last; bfloat16 by autocast."""
    from nnlite.bench.torch_peer import TorchGraph

    net = TorchGraph(graph, arrays, "channels_last", training=True)
    net.leaves = {v: t.detach().to(PEER).requires_grad_(t.requires_grad) for v, t in net.leaves.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
    x = torch.from_numpy(np.ascontiguousarray(images)).to(PEER).contiguous(memory_format=torch.channels_last)
    wanted = torch.from_numpy(labels).to(PEER)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = products == "tf32"

    def step() -> None:
        with torch.autocast(PEER, torch.bfloat16, enabled=products == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(net(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def step_sides(name: str, products: str, torch: Any, batch: int = 64, side: int = 224) -> Any:
    x, labels = pictures(batch, side), np.arange(batch) % 10
    model = network(name)
    graph, leaves = nl.graph.trace(model, [nl.asarray(x[:1])])
    arrays = {value: leaves[value].numpy() for value in graph.arrays}
    model.to("cuda")
    there = nl.asarray(x).to("cuda"), nl.asarray(labels).to("cuda")
    sides: dict[str, Any] = {"nnlite": (own_step(model, *there), None)}
    if torch is not None:
        sides["torch"] = (torch_step(graph, arrays, x, labels, products, torch), torch)
    return sides
