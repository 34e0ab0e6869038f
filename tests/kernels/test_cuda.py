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

from nnlite.errors import ConfigError
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


@pytest.fixture
def extension(emulator):
    sys.path.append(str(ROOT / "tests/csrc"))
    from emulate import load

    return load()


def face(shape, dtype="<f4", strides=None, read_only=False, address=4096):
    """What says that it is an array on a GPU."""
    data = dict(shape=shape, typestr=dtype, data=(address, read_only), strides=strides, version=3)
    return type("Face", (), {"__cuda_array_interface__": data})()


def nhwc(n, c, h, w):
    return (4 * h * w * c, 4, 4 * w * c, 4 * c)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.zeros((1, 4, 5, 4), np.float32)}, "x: expected an array on the GPU, got .*ndarray"),
        ({"x": face((1, 4, 5, 4), "<f8")}, "x: expected elements of type <f4, got <f8"),
        ({"w": face((8, 4, 1, 1))}, r"w: expected shape \[8, 4, 3, 3\], got \[8, 4, 1, 1\]"),
        ({"x": face((1, 4, 5, 4))}, r"x: expected channels-last memory .* with strides \[320, 80, 16, 4\]"),
        (
            {"y": face((1, 8, 3, 2), strides=nhwc(1, 8, 3, 2), read_only=True)},
            "y: expected a writeable array",
        ),
        ({"x": face((1, 4, 5, 4), strides=nhwc(1, 4, 5, 4), address=4098)}, "x: expected memory aligned"),
        ({"bias": face((4,))}, r"bias: expected shape \[8\], got \[4\]"),
    ],
)
def test_wrong_operands_are_refused(extension, changed, message):
    g = conv2d_geometry((1, 4, 5, 4), (8, 4, 3, 3))
    operands = {
        "x": face(g.x_shape, strides=nhwc(*g.x_shape)),
        "w": face(g.w_shape, strides=nhwc(*g.w_shape)),
        "bias": None,
        "residual": None,
        "y": face(g.y_shape, strides=nhwc(*g.y_shape)),
    }
    with pytest.raises(ValueError, match=message):
        extension.conv2d_forward_exact(0, g.values, *(operands | changed).values(), None)


def test_too_little_workspace_is_refused(extension):
    g = conv2d_geometry((1, 4, 5, 4), (8, 4, 3, 3))
    arrays = [face(shape, strides=nhwc(*shape)) for shape in (g.y_shape, g.w_shape, g.x_shape)]
    assert extension.conv2d_grad_input_exact_workspace(g.values) == 4 * 8 * 4 * 9
    for workspace in (None, face((100,), "|u1")):
        with pytest.raises(ValueError, match="workspace: expected 1152 bytes of uint8 on the GPU"):
            extension.conv2d_grad_input_exact(0, g.values, *arrays, workspace)


def test_what_32_bits_cannot_count_is_refused_and_not_chosen(extension):
    large = conv2d_geometry((1, 1, 3, 20000), (1, 1, 3, 3))
    with pytest.raises(ValueError, match="fewer than 2\\^14 pixels"):
        extension.conv2d_grad_input_exact_workspace(large.values)
    for g in (large, conv2d_geometry((9000, 512, 32, 32), (1, 512, 1, 1))):
        variants = [v for v in VARIANTS["conv2d_forward"] if (v.backend, v.name) == ("cuda", "exact")]
        assert "fewer than" in variants[0].supports(g, np.dtype(np.float32))


def test_products_are_chosen_by_name():
    with pytest.raises(
        ConfigError, match="products 'tf16' do not exist; choose from float32, tf32, bfloat16"
    ):
        cuda.use_products("tf16")


def test_a_wrong_wish_for_a_whole_process_is_an_error(monkeypatch):
    monkeypatch.setattr(cuda, "why_unavailable", lambda: None)
    monkeypatch.setattr(cuda, "_products", "tf16")
    with pytest.raises(ConfigError, match="NNLITE_CUDA_PRODUCTS=tf16 must be one of float32, tf32, bfloat16"):
        cuda._load.__wrapped__()


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
        there = [a if a is None or n in spec.host else cupy.asarray(a) for n, a in (inputs | results).items()]
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
