"""The kernels for CUDA arrays in Numba's simulator: every thread, barrier and piece of shared memory, slowly.

As a program it checks them, small geometries of every kind, in a process where the simulator is on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest

from nnlite.errors import BackendError
from nnlite.geometry import CLAMP, RELU, conv2d_geometry
from nnlite.kernels import SPECS, VARIANTS, select, unavailable, use_backend

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="Numba is not installed; nnlite[numba]")


def small_convolutions():
    """stride x dilation x groups x asymmetric padding x batch on pictures of 20 pixels: one round of each."""
    kinds = product([(1, 1), (2, 1)], [(1, 1), (1, 2)], [1, 2, 4], [(0, 0, 0, 0), (1, 0, 2, 1)], [1, 2])
    for index, (stride, dilation, groups, pads, batch) in enumerate(kinds):
        if index % 6 == index // 6 % 6:  # a sixth of the table, spread
            kernel = [(3, 2), (1, 1), (2, 3)][index % 3]
            yield conv2d_geometry((batch, 4, 5, 4), (8, 4 // groups, *kernel), stride, pads, dilation, groups)


def geometries(kernel):
    """What one kernel is checked on."""
    if kernel == "conv2d_forward":
        acts = ((RELU, 0.0, np.inf), (CLAMP, -0.5, 0.5))
        yield from (g.activated(*acts[i % 2]) if i % 3 else g for i, g in enumerate(small_convolutions()))
    elif kernel.startswith("conv2d"):
        yield from small_convolutions()
    else:
        small = (g for g in SPECS[kernel].samples() if g.N * g.C * g.H * g.W <= 1000)
        yield from islice(small, 0, None, 47)


def check(kernel):
    """Everything that is wrong with a kernel's variant."""
    from kernel_harness import FLOAT32, FLOAT64, failures, optional_cases

    (variant,) = (v for v in VARIANTS[kernel] if v.backend == "numba-cuda")
    absent = optional_cases(SPECS[kernel])
    found = []
    for index, geometry in enumerate(geometries(kernel)):
        dtype = FLOAT64 if index % 5 == 4 else FLOAT32
        found += failures(variant, geometry, absent[index % len(absent)], dtype)
    return found


@needs_numba
@pytest.mark.parametrize("kernels", ["conv2d_forward conv2d_grad_input", "conv2d_grad_weight", "pool"])
def test_in_the_simulator(kernels):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), environment.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, *kernels.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout


def test_arrays_of_numpy_are_never_handed_to_it():
    with pytest.raises(BackendError, match="numba-cuda"), use_backend("numba-cuda"):
        select("conv2d_forward", conv2d_geometry((1, 4, 5, 4), (8, 4, 3, 3)))


def test_arrays_of_a_gpu_are_never_handed_to_a_processor():
    with pytest.raises(BackendError, match="does not compute on cuda arrays"), use_backend("reference"):
        select("conv2d_forward", conv2d_geometry((1, 4, 5, 4), (8, 4, 3, 3)), device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"])
def test_on_a_gpu(kernel):
    if reason := unavailable("numba-cuda"):
        pytest.skip(f"numba-cuda: {reason}")
    cupy = pytest.importorskip("cupy", reason="CuPy holds the arrays; nnlite[cuda12] or nnlite[cuda13]")
    from kernel_harness import FLOAT32, outputs, random_inputs, reference

    spec = SPECS[kernel]
    for g in islice(spec.samples(), 0, None, 7):
        inputs = random_inputs(spec, g)
        results = {n: cupy.asarray(a) for n, a in outputs(spec, g, FLOAT32).items()}
        variant = select(kernel, g, device="cuda").variant
        variant.run(g, *(cupy.asarray(a) for a in inputs.values()), *results.values(), None)
        for name, expected in reference(spec, g, inputs).items():
            scale = spec.scale(name, inputs, expected)
            error = float(np.abs(cupy.asnumpy(results[name]) - expected).max())
            assert error <= spec.tolerance(g) * scale, (name, g)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    assert unavailable("numba-cuda") is None
    names = [n for n in SPECS if n in sys.argv[1:] or ("pool" in sys.argv[1:] and "pool2d" in n)]
    wrong = [f"{name}: {failure}" for name in names for failure in check(name)]
    print(f"{len(names)} kernels, {len(wrong)} failures", *wrong[:10], sep="\n")
    sys.exit(bool(wrong))
