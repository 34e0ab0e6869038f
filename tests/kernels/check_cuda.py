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

from kernel_harness import FLOAT32, cases, failures, guarded

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


def main() -> None:
    kernel, name, every = sys.argv[1], sys.argv[2], int(sys.argv[3])
    emulate()
    variant = emulated(kernel, name)
    served = [case for case in cases(SPECS[kernel], variant, FLOAT32) if cost(case[0]) < 4_000_000]
    checked, wrong = 0, []
    for geometry, absent in islice(served, 0, None, every):
        checked += 1
        wrong += failures(variant, geometry, absent, allocate=guarded)
    print(f"{checked} checked, {len(wrong)} failures", *wrong[:10], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
