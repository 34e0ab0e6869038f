"""The CUDA kernels: on a GPU emulated by one thread of the CPU, and on a real one where there is one.

The emulated GPU (tests/csrc/cuda) runs the same sources, thread by thread: see there what it makes show.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from nnlite.geometry import conv2d_geometry
from nnlite.kernels import SPECS, VARIANTS, cuda, select, unavailable

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX") or any(shutil.which(name) for name in ("c++", "g++", "clang++"))

unavailable("cuda")  # importing a backend registers its variants
ROWS = [(kernel, v.name) for kernel, variants in VARIANTS.items() for v in variants if v.backend == "cuda"]


@pytest.fixture(scope="module")
def emulator():
    if not COMPILER or sys.platform != "linux":
        pytest.skip("the emulated GPU wants a C++ compiler and Linux")
    subprocess.run([sys.executable, str(ROOT / "tests/csrc/emulate.py")], check=True, timeout=900)


def emulate(script: str, *words: str, order: str = "forward") -> str:
    environment = os.environ | {"NNLITE_EMULATED_ORDER": order}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).parent / script), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Turns of threads that differ from kernel to kernel, so that each kind comes up in every run.
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(("kernel", "name"), ROWS)
def test_on_the_emulated_gpu(kernel, name):
    order = ("backward", "1", "2", "forward")[ROWS.index((kernel, name)) % 4]
    assert "0 failures" in emulate("check_cuda.py", kernel, name, "9", order=order)


def test_explains_why_it_does_not_serve():
    reason = unavailable("cuda")
    if reason is None:
        pytest.skip("the CUDA backend serves here")
    words = ("no NVIDIA driver", "finds no GPU", "CuPy", "switched off", "extension")
    assert any(word in reason for word in words)


def test_nothing_imports_cupy_to_find_out():
    code = "import sys, nnlite as nl; nl.kernels.unavailable('cuda'); sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.gpu
@pytest.mark.parametrize(("kernel", "name"), ROWS)
def test_on_a_gpu(kernel, name, request):
    if reason := unavailable("cuda"):
        pytest.skip(f"no GPU to run on: {reason}")
    import cupy
    from check_cuda import ROUNDED, dtype_of, large_tiles, short_inputs
    from kernel_harness import cases, outputs, random_inputs, reference, tolerance_in

    spec, dtype = SPECS[kernel], dtype_of(name)
    (variant,) = (v for v in VARIANTS[kernel] if (v.backend, v.name) == ("cuda", name))
    if name in ROUNDED:
        cuda.use_products(ROUNDED[name][0])
        request.addfinalizer(lambda: cuda.use_products("float32"))
    served = [*cases(spec, variant, dtype), *((g, frozenset()) for g in large_tiles(kernel))]
    for g, absent in islice(served, 0, None, 3):
        make = partial(short_inputs, ROUNDED[name][1]) if name in ROUNDED else random_inputs
        inputs = {n: None if n in absent else a for n, a in make(spec, g, dtype=dtype).items()}
        results = outputs(spec, g, dtype, absent)
        there = [None if a is None else cupy.asarray(a) for a in (*inputs.values(), *results.values())]
        scratch = cupy.full(variant.workspace(g), 255, cupy.uint8)
        variant.run(g, *there, scratch)
        found = dict(zip(results, there[len(inputs) :], strict=True))
        for name_, expected in reference(spec, g, inputs).items():
            if found[name_] is None:
                continue
            result = cupy.asnumpy(found[name_])
            if result.dtype.kind != "f":
                assert np.array_equal(result, expected), (name_, g)
                continue
            error = float(np.abs(result - expected).max(initial=0))
            assert error <= tolerance_in(dtype, spec, g) * spec.scale(name_, inputs, expected), (name_, g)


@pytest.mark.gpu
def test_it_is_the_first_choice_on_a_gpu():
    if reason := unavailable("cuda"):
        pytest.skip(f"no GPU to run on: {reason}")
    chosen = select("conv2d_forward", conv2d_geometry((1, 4, 5, 4), (8, 4, 3, 3)), device="cuda")
    assert chosen.variant.backend == "cuda"
