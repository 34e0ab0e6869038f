"""What only the native backend promises: instruction sets, threads, forks, checked operands, denormals."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import islice, product
from math import inf
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from kernel_harness import FLOAT32, failures, forms, outputs, random_inputs, run

import nnlite
from nnlite.errors import ConfigError
from nnlite.geometry import (
    CLAMP,
    FUNCTIONS,
    RELU,
    EltwiseGeometry,
    FunctionGeometry,
    NormGeometry,
    PictureGeometry,
    QuantiseGeometry,
    ReducedConv2dGeometry,
    ResizeGeometry,
    conv2d_geometry,
    pool2d_geometry,
)
from nnlite.kernels import SPECS, VARIANTS, select, unavailable
from nnlite.kernels.native import native_info
from nnlite.layout import channels_last
from nnlite.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.skipif(unavailable("native") is not None, reason=f"native: {unavailable('native')}")
PACKAGE = Path(nnlite.__file__).parents[1]
HARNESS = Path(__file__).with_name("kernel_harness.py")
USABLE = native_info().usable_isas if unavailable("native") is None else ()


def run_python(*arguments, **environment):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)} | environment
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def threads():
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def native_variants():
    return [v for variants in VARIANTS.values() for v in variants if v.backend == "native"]


# -------------------------------------------------------------------------------- instruction sets


ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2", "baseline", "neon", "amx_emulated")


@pytest.mark.parametrize("isa", ISAS)
def test_each_instruction_set_stays_within_its_arrays_and_is_right(isa):
    if isa not in USABLE:
        pytest.skip(f"this build or CPU has no {isa}")
    result = run_python(HARNESS, "native", "3", NNLITE_ISA=isa)
    assert result.returncode == 0, result.stderr


def test_an_instruction_set_that_is_not_there_is_a_clear_error():
    code = "import nnlite.kernels as k; k.unavailable('native')"
    result = run_python("-c", code, NNLITE_ISA="avx1024")
    assert result.returncode != 0
    assert "NNLITE_ISA=avx1024: there is no instruction set 'avx1024' in this build; it has " in result.stderr


def test_native_info_tells_what_runs():
    info = native_info()
    assert info.isa in info.usable_isas
    assert set(info.usable_isas) <= set(info.compiled_isas)
    assert info.num_threads == get_num_threads()


# ----------------------------------------------------------------------------------------- threads

LARGE = {  # geometries that are cut into many chunks
    "conv2d_forward": [
        conv2d_geometry((3, 40, 30, 29), (70, 40, 3, 3), pads=(1, 1, 1, 1)),
        conv2d_geometry((2, 130, 11, 12), (150, 130, 3, 3), pads=(1, 1, 1, 1)),
        conv2d_geometry((9, 40, 6, 6), (70, 40, 3, 3), pads=(1, 1, 1, 1)),
        conv2d_geometry((9, 70, 16, 16), (40, 70, 4, 4), (2, 2), (1, 1, 1, 1)),
        conv2d_geometry((4, 130, 8, 8), (150, 130, 4, 4), (2, 2), (1, 1, 1, 1)),
        conv2d_geometry((1, 40, 112, 112), (70, 40, 3, 3), (2, 2), (1, 1, 1, 1)),
        conv2d_geometry((1, 200, 56, 55), (210, 200, 3, 3), pads=(1, 1, 1, 1)),
        conv2d_geometry((2, 300, 80, 80), (192, 300, 1, 1)),
        conv2d_geometry((100, 700, 1, 1), (300, 700, 1, 1)),
        conv2d_geometry((3, 40, 30, 29), (70, 40, 3, 3), (2, 1), pads=(1, 1, 1, 1)),
        conv2d_geometry((3, 3, 64, 64), (33, 3, 7, 7), (2, 2), (3, 3, 3, 3)),
        conv2d_geometry((4, 50, 40, 40), (50, 1, 3, 3), pads=(1, 1, 1, 1), groups=50),
        conv2d_geometry(
            (3, 64, 120, 128), (64, 1, 5, 5), (2, 2), (2, 2, 2, 2), groups=64
        ),  # gx past the caches
        conv2d_geometry((9, 32, 28, 28), (64, 8, 3, 3), (2, 2), groups=4),
    ],
    "max_pool2d_forward": [pool2d_geometry((4, 67, 40, 40), (3, 3), (2, 2), (1, 1, 1, 1))],
    "batch_norm_training_forward": [
        NormGeometry(20_001, 67, 1e-5),
        NormGeometry(20_001, 67, 1e-5, RELU, 0.0, inf),
    ],
    "conv2d_int8": [
        ReducedConv2dGeometry(
            *conv2d_geometry(*shapes, pads=pads, groups=groups).ints(), x_zero=3, high=255.0
        )
        for shapes, pads, groups in (
            (((3, 40, 30, 29), (70, 40, 3, 3)), (1, 1, 1, 1), 1),
            (((100, 700, 1, 1), (300, 700, 1, 1)), (0, 0, 0, 0), 1),
            (((4, 50, 40, 40), (50, 1, 3, 3)), (1, 1, 1, 1), 50),
        )
    ],
    "quantise": [QuantiseGeometry(300_007, 0.5, 3.0)],
    "combine": [EltwiseGeometry(300_007, 0.5, 2.0, CLAMP, -1.0, 1.0)],
    "function_forward": [FunctionGeometry(300_007, FUNCTIONS.index(name)) for name in ("silu", "gelu")],
    "scale_channels": [PictureGeometry(7, 67, 40, 41)],
    "resize": [ResizeGeometry(3, 67, 40, 41, 80, 30, 160, 60)],
}


def large_samples(kernel):
    kind = type(next(iter(SPECS[kernel].samples())))
    return next(samples for samples in LARGE.values() if isinstance(samples[0], kind))


@pytest.mark.parametrize("variant", native_variants(), ids=lambda v: f"{v.kernel}-{v.name}")
def test_the_bits_do_not_depend_on_the_number_of_threads(variant, threads):
    spec = SPECS[variant.kernel]
    served = [g for g in large_samples(variant.kernel) if not variant.supports(g, FLOAT32)]
    assert served
    for geometry, prepared in product(served, forms(variant)):
        inputs = random_inputs(spec, geometry)
        first = None
        for count in (1, 2, 3, 5):
            threads(count)
            results = outputs(spec, geometry, FLOAT32)
            run(variant, geometry, inputs, results, prepared=prepared)
            bits = {name: channels_last(a).tobytes() for name, a in results.items()}
            first = first or bits
            assert bits == first, (count, geometry)


@pytest.mark.parametrize("name", ["igemm", "stem", "depthwise"])
def test_prepared_weights_give_the_same_bits(name):
    spec = SPECS["conv2d_forward"]
    variant = next(v for v in VARIANTS[spec.name] if str(v) == f"native:{name}")
    for geometry in (*LARGE[spec.name], *islice(spec.samples(), 0, None, 7)):
        if variant.supports(geometry, FLOAT32):
            continue
        inputs, results = random_inputs(spec, geometry), []
        for prepared in (False, True):
            results.append(outputs(spec, geometry, FLOAT32))
            run(variant, geometry, inputs, results[-1], prepared=prepared)
        np.testing.assert_array_equal(results[0]["y"], results[1]["y"], str(geometry))


def test_python_threads_may_call_at_the_same_time(threads):
    threads(3)
    geometry = LARGE["conv2d_forward"][0]
    variant = select("conv2d_forward", geometry).variant
    spec = SPECS["conv2d_forward"]

    def call(seed):
        results = outputs(spec, geometry, FLOAT32)
        run(variant, geometry, random_inputs(spec, geometry, seed), results)
        return results["y"]

    alone = [call(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for expected, actual in zip(alone, pool.map(call, range(4)), strict=True):
                np.testing.assert_array_equal(actual, expected)


def test_the_number_of_threads_is_validated(threads):
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ConfigError, match="must be an integer from 1 to 1024"):
            threads(wrong)


@pytest.mark.parametrize("wrong", ["0", "two", "-1", "1e3"])
def test_a_wrong_number_in_the_environment_is_named(wrong):
    result = run_python("-c", "import nnlite.threads as t; t.get_num_threads()", NNLITE_NUM_THREADS=wrong)
    assert f"ConfigError: NNLITE_NUM_THREADS='{wrong}' must be an integer" in result.stderr


def test_the_environment_sets_the_number_of_threads():
    code = "from nnlite.kernels.native import native_info; print(native_info().num_threads)"
    assert run_python("-c", code, NNLITE_NUM_THREADS="3").stdout.strip() == "3"


FORK = """
import os, sys, threading
sys.path.insert(0, {directory!r})
from kernel_harness import *
from nnlite.geometry import conv2d_geometry
from nnlite.kernels import select
from nnlite.threads import set_num_threads
set_num_threads(3)
g = conv2d_geometry((4, 40, 30, 29), (70, 40, 3, 3), pads=(1, 1, 1, 1))
spec, variant = SPECS["conv2d_forward"], select("conv2d_forward", g).variant
inputs = random_inputs(spec, g)
def call():
    results = outputs(spec, g, FLOAT32)
    run(variant, g, inputs, results)
    return results["y"].tobytes()
expected = call()
stop = threading.Event()
def busy():
    while not stop.is_set():
        call()
other = threading.Thread(target=busy)
other.start()  # forks happen while the pool works for another thread
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if call() == call() == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call() == expected
stop.set()
other.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_too():
    code = FORK.format(directory=str(HARNESS.parent))
    result = run_python("-W", "ignore::DeprecationWarning", "-c", code)
    assert result.returncode == 0, result.stderr


# ---------------------------------------------------------------------------------------- operands

G = conv2d_geometry((2, 5, 6, 6), (4, 5, 3, 3))


def convolve(**changed):
    spec = SPECS["conv2d_forward"]
    operands = random_inputs(spec, G) | outputs(spec, G, FLOAT32)
    operands |= {name: change(operands[name]) for name, change in changed.items()}
    variant = next(v for v in VARIANTS["conv2d_forward"] if str(v) == "native:igemm")
    workspace = operands.get("workspace", np.empty(variant.workspace(G), np.uint8))
    variant.run(G, *(operands[n] for n in (*spec.inputs, *spec.outputs)), workspace)


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(np.float32)
    return raw.reshape(array.shape)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("x", lambda a: a.astype(np.float64), "x: expected float32, got float64"),
        ("x", lambda a: a[:, :4], r"x: expected shape \[2, 5, 6, 6\], got \[2, 4, 6, 6\]"),
        ("x", np.ascontiguousarray, r"x: expected channels-last memory .* got shape .* with strides"),
        ("x", lambda a: a.tolist(), "x: expected an array, got <class 'list'>"),
        ("x", lambda a: None, "x: expected an array"),
        ("w", lambda a: a[..., 0], r"w: expected shape \[4, 5, 3, 3\], got \[4, 5, 3\]"),
        ("w", lambda a: a.astype(np.int32), "w: expected float32, got int32"),
        ("bias", lambda a: np.zeros(8, np.float32)[::2], "bias: expected channels-last memory"),
        ("bias", unaligned, "bias: expected memory aligned"),
        ("y", read_only, "y: expected a writeable array"),
        ("y", lambda a: a.astype(">f4"), "y: expected float32"),
    ],
)
def test_a_wrong_operand_is_named_and_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        convolve(**{name: change})


def test_a_wrong_workspace_is_refused():
    spec = SPECS["conv2d_forward"]
    operands = [*random_inputs(spec, G).values(), *outputs(spec, G, FLOAT32).values()]
    variant = next(v for v in VARIANTS["conv2d_forward"] if str(v) == "native:igemm")
    size = variant.workspace(G)
    short, typed, strided = (
        np.empty(size - 1, np.uint8),
        np.empty(size, np.int8),
        np.empty(2 * size, np.uint8),
    )
    for wrong in (None, short, typed, strided[::2]):
        with pytest.raises(ValueError, match=f"workspace: expected {size} bytes of uint8"):
            variant.run(G, *operands, wrong)


def test_weights_prepared_for_another_variant_or_instruction_set_are_refused():
    g = conv2d_geometry((1, 8, 9, 9), (8, 8, 3, 3), pads=(1, 1, 1, 1))
    spec = SPECS["conv2d_forward"]
    operands = random_inputs(spec, g) | outputs(spec, g, FLOAT32)
    known = {v.name: v.preparation for v in VARIANTS[spec.name] if v.backend == "native"}
    igemm, winograd = known["igemm"], known["winograd2"]
    prepared = np.zeros(winograd.size(g), np.uint8)
    winograd.prepare(g, operands["w"], prepared)
    assert prepared.size > igemm.size(g)
    workspace = np.empty(igemm.workspace(g), np.uint8)
    message = "prepared: expected conv2d_forward_igemm .*, got weights prepared for another"
    with pytest.raises(ValueError, match=message):
        igemm.run(g, operands["x"], prepared, None, None, operands["y"], workspace)
    with pytest.raises(ValueError, match=f"prepared: expected {igemm.size(g)} bytes of uint8"):
        igemm.run(g, operands["x"], operands["w"], None, None, operands["y"], workspace)


def test_a_nan_passes_through_the_epilogue_of_a_convolution():
    spec = SPECS["conv2d_forward"]
    for geometry in (
        conv2d_geometry((2, 8, 9, 9), (19, 8, 3, 3), pads=(1, 1, 1, 1)),
        conv2d_geometry((2, 3, 19, 9), (19, 3, 3, 3), (2, 2)),
        conv2d_geometry((2, 19, 9, 9), (19, 1, 3, 3), groups=19),
        conv2d_geometry((2, 19, 9, 9), (19, 1, 3, 4), groups=19),
        conv2d_geometry((2, 5, 9, 9), (10, 1, 3, 3), groups=5),
    ):
        g = geometry.activated(CLAMP, -1.0, 1.0)
        inputs = random_inputs(spec, g)
        inputs["residual"][:, ::3] = np.nan
        for variant in VARIANTS[spec.name]:
            if unavailable(variant.backend) is None and not variant.supports(g, FLOAT32):
                results = outputs(spec, g, FLOAT32)
                run(variant, g, inputs, results)
                np.testing.assert_array_equal(np.isnan(results["y"]), np.isnan(inputs["residual"]))


@pytest.mark.parametrize("name", ["winograd2", "winograd4"])
def test_winograd_called_on_what_it_does_not_serve_is_refused(name):
    g = conv2d_geometry((2, 8, 9, 9), (8, 8, 3, 3), (2, 2))
    for kernel in ("conv2d_forward", "conv2d_grad_input"):
        variant = next(v for v in VARIANTS[kernel] if str(v) == f"native:{name}")
        spec = SPECS[kernel]
        operands = [*random_inputs(spec, g).values(), *outputs(spec, g, FLOAT32).values()]
        with pytest.raises(ValueError, match="winograd takes 3x3 kernels, stride 1"):
            variant.run(g, *operands, None)


def test_a_variant_called_on_what_it_does_not_serve_is_refused():
    variant = next(v for v in VARIANTS["conv2d_forward"] if str(v) == "native:depthwise")
    operands = [*random_inputs(SPECS["conv2d_forward"], G).values(), np.empty(G.y_shape, np.float32), None]
    with pytest.raises(ValueError, match="depthwise takes groups=C"):
        variant.run(G, *operands)


def test_strides_of_axes_of_size_one_mean_nothing():
    g = conv2d_geometry((1, 8, 1, 1), (4, 8, 1, 1))
    spec = SPECS["conv2d_forward"]
    inputs = random_inputs(spec, g)
    inputs["x"] = np.lib.stride_tricks.as_strided(inputs["x"], g.x_shape, (12, 4, 20, 28))
    results = outputs(spec, g, FLOAT32)
    run(select("conv2d_forward", g).variant, g, inputs, results)
    expected = (
        inputs["residual"].reshape(1, 4)
        + inputs["x"].reshape(1, 8) @ inputs["w"].reshape(4, 8).T
        + inputs["bias"]
    )
    np.testing.assert_allclose(results["y"].reshape(1, 4), expected, rtol=1e-5)


def test_the_geometry_passes_in_the_order_of_ints():
    for spec in SPECS.values():
        geometry = next(iter(spec.samples()))
        names = [field.name for field in fields(geometry)]
        values = attrgetter(*names)(geometry)
        assert values[: len(geometry.ints())] == geometry.ints()


def test_an_empty_batch():
    g = conv2d_geometry((0, 5, 6, 6), (4, 5, 3, 3))
    for kernel in ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"):
        spec = SPECS[kernel]
        results = outputs(spec, g, FLOAT32)
        run(select(kernel, g).variant, g, random_inputs(spec, g), results)
        assert all((a == 0).all() for a in results.values())


def test_a_kernel_of_more_taps_than_one_block_of_pointers():
    # 31 x 31 taps go through in blocks, and the blocks' products are added up.
    g = conv2d_geometry((1, 2, 33, 32), (3, 2, 31, 31), pads=(3, 0, 0, 3))
    for kernel in ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"):
        for variant in VARIANTS[kernel]:
            if unavailable(variant.backend) is None and not variant.supports(g, FLOAT32):
                assert not failures(variant, g, frozenset())


# ---------------------------------------------------------------------------------------- numerics


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64", "aarch64", "arm64"), reason="no flush-to-zero mode"
)
def test_denormals_are_zeros_within_kernels_and_nowhere_else():
    tiny = np.float32(1e-39)
    g = pool2d_geometry((4, 32, 64, 64), (2, 2), (2, 2))
    x = channels_last(np.full(g.x_shape, tiny))
    y = channels_last(np.full(g.y_shape, np.nan, np.float32))
    run(select("avg_pool2d_forward", g).variant, g, {"x": x}, {"y": y})
    assert (y == 0).all()
    assert np.multiply(tiny, np.float32(0.5)) != 0  # the caller's own mode is back


def test_batch_norm_keeps_its_digits_where_the_mean_is_large():
    g = NormGeometry(5000, 19, 1e-5)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((g.M, g.C)) + 4096).astype(np.float32)
    spec = SPECS["batch_norm_training_forward"]
    inputs = {"x": x, "weight": np.ones(g.C, np.float32), "bias": np.zeros(g.C, np.float32), "residual": None}
    results = outputs(spec, g, FLOAT32)
    run(select(spec.name, g).variant, g, inputs, results)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(results["inv_std"], 1 / np.sqrt(exact.var(0) + g.epsilon), rtol=1e-6)
    np.testing.assert_allclose(results["mean"], exact.mean(0), rtol=1e-7)


def test_nan_and_infinity_pass_through_max_pooling_as_in_the_reference():
    g = pool2d_geometry((2, 19, 9, 8), (3, 3), (2, 2), (1, 1, 1, 1))
    rng = np.random.default_rng(0)
    x = rng.choice([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0, 1.0], g.x_shape).astype(np.float32)
    spec = SPECS["max_pool2d_forward"]
    results = {}
    for variant in VARIANTS["max_pool2d_forward"]:
        if variant.backend in ("native", "reference"):
            made = outputs(spec, g, FLOAT32)
            run(variant, g, {"x": channels_last(x)}, made)
            results[variant.backend] = made
    np.testing.assert_array_equal(results["native"]["y"], results["reference"]["y"])
    np.testing.assert_array_equal(results["native"]["indices"], results["reference"]["indices"])


@pytest.mark.parametrize("kernel", ["combine", "activation_backward"])
@pytest.mark.parametrize("act", [(RELU, 0.0, inf), (CLAMP, -1.0, 1.0), (0, -inf, inf)])
def test_nan_and_infinity_pass_through_elementwise_kernels_as_in_the_reference(kernel, act):
    values = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 7.0], np.float32)
    first, second = (a.ravel().copy() for a in np.meshgrid(values, values))
    spec, g = SPECS[kernel], EltwiseGeometry(first.size, 1.0, 1.0, *act)
    results = []
    with np.errstate(invalid="ignore"):
        for variant in VARIANTS[kernel]:
            if variant.backend in ("native", "reference"):
                made = outputs(spec, g, FLOAT32)
                run(variant, g, dict(zip(spec.inputs, (first, second), strict=True)), made)
                results.append(next(iter(made.values())))
    np.testing.assert_array_equal(*results)


def test_elementwise_kernels_may_write_over_their_operands():
    g = EltwiseGeometry(100_003, 0.5, -2.0, RELU, 0.0, inf)
    for kernel in ("combine", "activation_backward"):
        spec = SPECS[kernel]
        inputs = random_inputs(spec, g)
        made = outputs(spec, g, FLOAT32)
        run(select(kernel, g).variant, g, inputs, made)
        for name in spec.inputs:
            again = {n: a.copy() for n, a in inputs.items()}
            run(select(kernel, g).variant, g, again, {spec.outputs[0]: again[name]})
            np.testing.assert_array_equal(again[name], made[spec.outputs[0]])
