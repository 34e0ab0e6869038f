"""The CUDA kernels on the emulated GPU (tests/csrc/cuda) against the float64 reference, for test_cuda.py.

    python tests/kernels/check_cuda.py conv2d_forward exact 7     checks each 7th sample of a variant

Every operand ends at the edge of a page that may not be touched, and its first byte lies where that leaves
it: a kernel that reads past an array, or takes an alignment for granted, dies at once.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import kernel_harness
import numpy as np
from kernel_harness import FLOAT16, FLOAT32, cases, failures, guarded, random_inputs

from nnlite.geometry import RELU, conv2d_geometry
from nnlite.kernels import SPECS, VARIANTS, cuda, unavailable


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

    def run(geometry, *operands):
        variant.run(geometry, *(None if a is None else OnGpu(a) for a in operands))

    return replace(variant, run=run)


def cost(geometry) -> int:
    """What a sample asks of the emulator, roughly, in multiplications."""
    return getattr(geometry, "macs", 0)


def large_tiles(kernel: str):
    """Geometries whose tiles are the larger ones: many pixels, and a short depth, for the emulator's sake."""
    if kernel == "conv2d_grad_weight":
        yield conv2d_geometry((2, 16, 9, 9), (72, 16, 3, 3), pads=(1, 1, 1, 1))
    elif kernel == "conv2d_grad_input":
        yield conv2d_geometry((1, 128, 128, 128), (56, 128, 1, 1))
        yield conv2d_geometry((1, 64, 128, 128), (56, 64, 1, 1))
    elif kernel == "conv2d_forward":
        yield conv2d_geometry((1, 56, 128, 128), (128, 56, 1, 1)).activated(RELU, 0.0, np.inf)
        yield conv2d_geometry((1, 56, 128, 128), (64, 56, 1, 1))


def dtype_of(name: str):
    """The element type that a variant is tested in."""
    return FLOAT16 if name == "half" else FLOAT32


def short_inputs(*args, **kwargs):
    """Random inputs that TF32 holds: its products are then exact, and so float32's tolerance its own."""
    inputs = random_inputs(*args, **kwargs)
    for array in inputs.values():
        bits = array.transpose(0, 2, 3, 1).view(np.uint32) if array.ndim == 4 else array.view(np.uint32)
        bits &= np.uint32(0xFFFFE000)
    return inputs


def main() -> None:
    kernel, name, every = sys.argv[1], sys.argv[2], int(sys.argv[3])
    emulate()
    if name == "tf32":
        cuda.allow_tf32()
        kernel_harness.random_inputs = short_inputs
    dtype = dtype_of(name)
    variant = emulated(kernel, name)
    served = [case for case in cases(SPECS[kernel], variant, dtype) if cost(case[0]) < 4_000_000]
    chosen = list(islice(served, 0, None, every))
    chosen += [(g, frozenset()) for g in large_tiles(kernel) if not variant.supports(g, dtype)]
    checked, wrong = 0, []
    for geometry, absent in chosen:
        checked += 1
        wrong += failures(variant, geometry, absent, dtype, allocate=guarded)
    print(f"{checked} checked, {len(wrong)} failures", *wrong[:10], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
