"""The CUDA kernels on the emulated GPU (tests/csrc/cuda) against the float64 reference, for test_cuda.py.

    python tests/kernels/check_cuda.py                            all of them, on every sample: minutes
    python tests/kernels/check_cuda.py conv2d_forward exact 7     one variant, on each 7th

Every operand ends at the edge of a page that may not be touched, and its first byte lies where that leaves
it: a kernel that reads past an array, or takes an alignment for granted, dies at once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import kernel_harness
import numpy as np
from kernel_harness import (
    FLOAT16,
    FLOAT32,
    cases,
    failures,
    guarded,
    outputs,
    random_inputs,
    run,
)

from nnlite.geometry import RELU, conv2d_geometry, describe
from nnlite.kernels import SPECS, VARIANTS, cuda, unavailable

given = os.environ.get("NNLITE_EMULATED_ORDER", "forward")


class OnGpu:
    """An array that says, as CuPy's do, where on the GPU it lies."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        face = self.array.__array_interface__
        return {name: face[name] for name in ("shape", "typestr", "data", "strides", "version")}


def emulate():
    """From now on the backend's functions are those of the emulated GPU."""
    sys.path.append(str(Path(__file__).parents[1] / "csrc"))
    from emulate import load

    module = load()
    cuda._load = lambda: (module, None)
    cuda._stream = lambda: 0
    cuda._function.cache_clear()
    cuda._capability.cache_clear()
    unavailable.cache_clear()
    return module


def emulated(kernel: str, name: str):
    """The variant, taking NumPy's arrays."""
    (variant,) = (v for v in VARIANTS[kernel] if (v.backend, v.name) == ("cuda", name))

    spec = SPECS[kernel]
    names = (*spec.inputs, *spec.outputs, "workspace")

    def on_gpu(geometry, *operands):
        there = [a if a is None or n in spec.host else OnGpu(a) for n, a in zip(names, operands, strict=True)]
        variant.run(geometry, *there)

    return replace(variant, run=on_gpu)


def cost(geometry) -> int:
    """What a sample asks of the emulator, roughly, in multiplications."""
    return getattr(geometry, "macs", 0)


def large_tiles(kernel: str):
    """Geometries whose tiles are the larger ones: many pixels, and a short depth, for the emulator's sake."""
    if kernel == "conv2d_grad_weight":
        yield conv2d_geometry((2, 16, 9, 9), (72, 16, 3, 3), pads=(1, 1, 1, 1))
    elif kernel == "conv2d_grad_input":
        yield conv2d_geometry((1, 128, 128, 128), (40, 128, 1, 1))
        yield conv2d_geometry((2, 128, 128, 128), (24, 128, 1, 1))
        yield conv2d_geometry((1, 64, 128, 128), (24, 64, 1, 1))
    elif kernel == "conv2d_forward":
        yield conv2d_geometry((1, 40, 128, 128), (128, 40, 1, 1)).activated(RELU, 0.0, np.inf)
        yield conv2d_geometry((1, 24, 128, 128), (64, 24, 1, 1))
        yield conv2d_geometry((2, 24, 128, 128), (128, 24, 1, 1))


def dtype_of(name: str):
    """The element type that a variant is tested in."""
    return FLOAT16 if name == "half" else FLOAT32


# Variant -> the products that it serves, and the bits of a float32 that they keep.
ROUNDED = {"tf32": ("tf32", 0xFFFFE000), "rounded16": ("bfloat16", 0xFFFF0000)}


def short_inputs(kept: int, *args, **kwargs):
    """Random inputs that nothing is rounded of: products are then exact, and float32's tolerance holds."""
    inputs = random_inputs(*args, **kwargs)
    for array in inputs.values():
        bits = array.transpose(0, 2, 3, 1).view(np.uint32) if array.ndim == 4 else array.view(np.uint32)
        bits &= np.uint32(kept)
    return inputs


def orders_that_matter(variant, geometry, absent, dtype) -> list[str]:
    """Orders of a block's threads that change a bit of the results: there is none."""
    spec = SPECS[variant.kernel]
    inputs = random_inputs(spec, geometry, seed=1, dtype=dtype)
    inputs |= dict.fromkeys(absent & set(inputs))
    bits = {}
    for order in ("forward", "backward", "7"):
        os.environ["NNLITE_EMULATED_ORDER"] = order
        results = outputs(spec, geometry, dtype, absent)
        run(variant, geometry, inputs, results)
        bits[order] = [None if a is None else a.tobytes() for a in results.values()]
    os.environ["NNLITE_EMULATED_ORDER"] = given
    return [f"{describe(geometry)}: order {o} matters" for o in bits if bits[o] != bits["forward"]]


def check(kernel: str, name: str, every: int) -> tuple[int, list[str]]:
    """How many cases of each ``every``-th sample were checked, and what is wrong."""
    products, kept = ROUNDED.get(name, ("float32", 0))
    cuda.use_products(products)
    kernel_harness.random_inputs = partial(short_inputs, kept) if kept else random_inputs
    dtype = dtype_of(name)
    variant = emulated(kernel, name)
    served = [case for case in cases(SPECS[kernel], variant, dtype) if cost(case[0]) < 4_000_000]
    chosen = list(islice(served, 0, None, every))
    chosen += [(g, frozenset()) for g in large_tiles(kernel) if not variant.supports(g, dtype)]
    wrong = []
    for index, (geometry, absent) in enumerate(chosen):
        wrong += failures(variant, geometry, absent, dtype, allocate=guarded)
        if index % 4 == 0 and cost(geometry) < 4_000_000:
            wrong += orders_that_matter(variant, geometry, absent, dtype)
    return len(chosen), [f"{kernel} {name}: {failure}" for failure in wrong]


def main() -> None:
    emulate()
    if len(sys.argv) > 1:
        rows, every = [(sys.argv[1], sys.argv[2])], int(sys.argv[3])
    else:
        rows = [(kernel, v.name) for kernel, vs in VARIANTS.items() for v in vs if v.backend == "cuda"]
        every = 1
    done = [check(kernel, name, every) for kernel, name in rows]
    wrong = [failure for _, failures_ in done for failure in failures_]
    print(f"{sum(count for count, _ in done)} checked, {len(wrong)} failures", *wrong[:10], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
