"""What only the Numba backend promises: imported late, announced once, the same bits on any threads."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kernel_harness import FLOAT32, FLOAT64, failures, outputs, random_inputs, run

import nnlite
from nnlite.geometry import (
    CLAMP,
    FUNCTIONS,
    RELU,
    EltwiseGeometry,
    FunctionGeometry,
    NormGeometry,
    ResizeGeometry,
    conv2d_geometry,
    pool2d_geometry,
)
from nnlite.kernels import SPECS, VARIANTS, describe_backends, select, unavailable, use_backend
from nnlite.layout import channels_last
from nnlite.threads import get_num_threads, set_num_threads

needs_numba = pytest.mark.skipif(unavailable("numba") is not None, reason=f"numba: {unavailable('numba')}")
PACKAGE = Path(nnlite.__file__).parents[1]

SMALL_LAUNCH = """
import sys
import numpy as np
import nnlite
from nnlite.geometry import NormGeometry
from nnlite.kernels import launch, unavailable, use_backend
g = NormGeometry(4, 3, 1e-5)
x, channel = np.ones((4, 3), np.float32), np.ones(3, np.float32)
y = np.empty_like(x)
def normalise(x=x, channel=channel, y=y):
    launch("batch_norm_inference_forward", g, x, None, channel, channel, None, y)
"""


def run_python(code, **environment):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE), "NNLITE_BACKEND": ""} | environment
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


# ------------------------------------------------------------------------------------ import and choice


@pytest.mark.skipif(unavailable("native") is not None, reason=f"native: {unavailable('native')}")
def test_numba_is_not_imported_while_another_backend_serves():
    code = SMALL_LAUNCH + (
        "unavailable('numba')\nnormalise()\n"
        "with use_backend('reference'): normalise()\n"
        "assert not {'numba', 'llvmlite'} & set(sys.modules)"
    )
    run_python(code)


@needs_numba
def test_choosing_does_not_import_numba_and_launching_does():
    code = SMALL_LAUNCH + (
        "from nnlite.kernels import select\n"
        "with use_backend('numba'):\n"
        "    select('batch_norm_inference_forward', g)\n"
        "    assert 'numba' not in sys.modules\n"
        "    normalise()\n"
        "assert 'numba' in sys.modules"
    )
    run_python(code)


ABSENT = "import sys; sys.modules['numba'] = None\n" + SMALL_LAUNCH


def test_numba_asked_for_but_missing_is_an_error_with_the_remedy():
    code = ABSENT + "try: use_backend('numba').__enter__()\nexcept Exception as e: print(type(e).__name__, e)"
    assert run_python(code).stdout.strip() == (
        "BackendError backend 'numba' cannot be used: Numba is not installed; pip install nnlite[numba]"
    )


def test_numba_asked_for_by_the_environment_but_missing_is_an_error_too():
    code = ABSENT + "try: normalise()\nexcept Exception as e: print(type(e).__name__, e)"
    text = run_python(code, NNLITE_BACKEND="numba").stdout
    assert text.startswith("BackendError")
    assert "pip install nnlite[numba]" in text


def test_without_native_and_numba_the_reference_serves_and_says_once_what_would_be_faster():
    result = run_python(ABSENT + "normalise(); normalise()", NNLITE_NATIVE="off")
    assert result.stderr.count("pip install nnlite[numba]") == 1


@needs_numba
def test_without_native_numba_serves():
    code = SMALL_LAUNCH + "print(nnlite.explain(normalise).decisions[0].variant)"
    assert run_python(code, NNLITE_NATIVE="off").stdout.strip() == "numba:rows"
    assert run_python(code, NNLITE_BACKEND="numba").stdout.strip() == "numba:rows"


@needs_numba
def test_half_precision_is_not_served():
    with use_backend("auto"):
        decision = select("conv2d_forward", conv2d_geometry((1, 8, 6, 6), (4, 8, 3, 3)), np.float16)
    assert ("numba:gemm", "float32 and float64 only") in decision.rejected


@needs_numba
def test_backends_tell_the_version():
    detail = {row["name"]: row["detail"] for row in describe_backends()["backends"]}
    assert detail["numba"].startswith("Numba 0.")


# ------------------------------------------------------------------------------------------ compilation


@needs_numba
def test_compiling_is_announced_once_and_not_when_the_code_is_on_disk(tmp_path):
    code = SMALL_LAUNCH + (
        "with use_backend('numba'):\n"
        "    normalise(); normalise()\n"
        "    normalise(*(a.astype(np.float64) for a in (x, channel, y)))\n"
    )
    first = run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).stderr
    assert first.splitlines() == [
        "nnlite: Numba compiles kernels; this takes seconds, and later runs find them on disk"
    ]
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).stderr == ""


# ---------------------------------------------------------------------------------------------- threads

LARGE = {  # geometries that are cut into many chunks
    "conv2d": [
        conv2d_geometry((3, 40, 30, 29), (70, 40, 3, 3), pads=(1, 1, 1, 1)),
        conv2d_geometry((2, 3, 64, 64), (33, 3, 7, 7), (2, 2), (3, 3, 3, 3)),
        conv2d_geometry((2, 50, 40, 40), (50, 1, 3, 3), pads=(1, 1, 1, 1), groups=50),
        conv2d_geometry((4, 32, 28, 28), (64, 8, 3, 3), (2, 2), groups=4),
    ],
    "gather": [pool2d_geometry((4, 67, 40, 40), (3, 3), (2, 2), (1, 1, 1, 1))],
    "rows": [NormGeometry(20_001, 67, 1e-5), NormGeometry(20_001, 67, 1e-5, RELU, 0.0)],
    "run": [EltwiseGeometry(50_001, 0.5, 2.0, CLAMP, -1.0, 1.5)],
    "lines": [NormGeometry(20_001, 67, 1e-5)],
    "taps": [ResizeGeometry(3, 67, 40, 41, 80, 30, 160, 60)],
    "function": [FunctionGeometry(50_001, FUNCTIONS.index("silu"))],
}


def large_samples(variant):
    if variant.kernel.startswith("function"):
        return LARGE["function"]
    return LARGE.get(variant.name) or LARGE[variant.kernel[:6]]


@pytest.fixture
def threads():
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def numba_variants():
    unavailable("numba")  # registers them
    return [v for variants in VARIANTS.values() for v in variants if v.backend == "numba"]


@needs_numba
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("variant", numba_variants(), ids=lambda v: f"{v.kernel}-{v.name}")
def test_the_bits_do_not_depend_on_the_number_of_threads(variant, dtype, threads):
    spec = SPECS[variant.kernel]
    served = [g for g in large_samples(variant) if not variant.supports(g, dtype)]
    assert served
    for geometry in served:
        inputs = random_inputs(spec, geometry, dtype=dtype)
        first = None
        for count in (1, 2, 3, 5):  # Numba caps what is more than NUMBA_NUM_THREADS
            threads(count)
            results = outputs(spec, geometry, dtype)
            run(variant, geometry, inputs, results)
            bits = {name: channels_last(a).tobytes() for name, a in results.items()}
            first = first or bits
            assert bits == first, (count, geometry)


@needs_numba
@pytest.mark.parametrize("variant", numba_variants(), ids=lambda v: f"{v.kernel}-{v.name}")
def test_large_geometries_are_right(variant):
    served = [g for g in large_samples(variant) if not variant.supports(g, FLOAT32)]
    found = [f for g in served for f in failures(variant, g, frozenset())]
    assert not found, "\n".join(found)


@needs_numba
def test_numbas_own_number_of_threads_is_left_as_it_was(threads):
    with use_backend("numba"):
        variant = select("batch_norm_inference_forward", LARGE["rows"][0]).variant
    import numba

    before = numba.get_num_threads()
    threads(1)
    assert not failures(variant, LARGE["rows"][0], frozenset())
    assert numba.get_num_threads() == before


@needs_numba
def test_python_threads_may_call_at_the_same_time():
    geometry, spec = LARGE["conv2d"][0], SPECS["conv2d_forward"]
    with use_backend("numba"):
        variant = select("conv2d_forward", geometry).variant

    def call(seed):
        results = outputs(spec, geometry, FLOAT32)
        run(variant, geometry, random_inputs(spec, geometry, seed), results)
        return results["y"]

    alone = [call(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for expected, actual in zip(alone, pool.map(call, range(4)), strict=True):
            np.testing.assert_array_equal(actual, expected)


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_a_forked_child_computes_too():
    code = SMALL_LAUNCH + (
        "import os\n"
        "with use_backend('numba'):\n"
        "    normalise()\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        normalise()\n"
        "        os._exit(7)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "    normalise()\n"
    )
    run_python(code.replace("import os\n", "import os, warnings\nwarnings.simplefilter('ignore')\n"))


# --------------------------------------------------------------------------------------------- numerics


@needs_numba
def test_an_empty_batch():
    g = conv2d_geometry((0, 5, 6, 6), (4, 5, 3, 3))
    for kernel in ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"):
        spec, results = SPECS[kernel], outputs(SPECS[kernel], g, FLOAT32)
        with use_backend("numba"):
            run(select(kernel, g).variant, g, random_inputs(spec, g), results)
        assert all((a == 0).all() for a in results.values())


@needs_numba
def test_nan_and_infinity_pass_through_max_pooling_as_in_the_reference():
    g = pool2d_geometry((2, 19, 9, 8), (3, 3), (2, 2), (1, 1, 1, 1))
    values = [np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0, 1.0]
    x = channels_last(np.random.default_rng(0).choice(values, g.x_shape).astype(np.float32))
    spec, results = SPECS["max_pool2d_forward"], {}
    for variant in VARIANTS["max_pool2d_forward"]:
        if variant.backend in ("numba", "reference"):
            results[variant.backend] = outputs(spec, g, FLOAT32)
            run(variant, g, {"x": x}, results[variant.backend])
    np.testing.assert_array_equal(results["numba"]["y"], results["reference"]["y"])
    np.testing.assert_array_equal(results["numba"]["indices"], results["reference"]["indices"])


@needs_numba
def test_infinity_in_a_pixel_stays_within_the_windows_that_hold_it():
    # Tiles are filled up with zeros; none of them may meet the infinity and make a NaN of it.
    g = conv2d_geometry((1, 5, 12, 12), (7, 5, 3, 3), pads=(1, 1, 1, 1))
    spec = SPECS["conv2d_forward"]
    inputs = {name: np.abs(a) for name, a in random_inputs(spec, g).items()}
    inputs["x"][0, 2, 5, 6] = np.inf
    results = outputs(spec, g, FLOAT32)
    with use_backend("numba"):
        run(select("conv2d_forward", g).variant, g, inputs, results)
    expected = np.zeros((12, 12), bool)
    expected[4:7, 5:8] = True
    assert not np.isnan(results["y"]).any()
    np.testing.assert_array_equal(np.isinf(results["y"]), np.broadcast_to(expected, g.y_shape))


@needs_numba
@pytest.mark.parametrize("kernel", ["max_pool2d_forward", "avg_pool2d_forward", "avg_pool2d_backward"])
def test_what_a_window_reaches_beyond_the_picture_takes_no_time(kernel):
    """Only a file that means harm asks for 2^40 rows of padding; looked at one by one they took hours."""
    wide = 1 << 40
    g = pool2d_geometry((1, 3, 5, 7), (wide, 2), (1, 2), (wide // 2, 1, wide // 2, 1))
    spec, results = SPECS[kernel], {}
    inputs = {name: array.astype(np.float64) for name, array in random_inputs(spec, g).items()}
    for variant in VARIANTS[kernel]:
        if variant.backend in ("numba", "reference"):
            results[variant.backend] = outputs(spec, g, FLOAT64)
            run(variant, g, inputs, results[variant.backend])
    for name, expected in results["reference"].items():
        np.testing.assert_allclose(results["numba"][name], expected, rtol=1e-12, atol=1e-12)
