"""Which variant serves: by geometry and type alone, explained, and never replaced silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnlite
from nnlite.errors import BackendError
from nnlite.geometry import conv2d_geometry, pool2d_geometry
from nnlite.kernels import explain, launch, select, unavailable, use_backend

DENSE = conv2d_geometry((1, 8, 6, 6), (4, 8, 3, 3))
POOL = pool2d_geometry((1, 8, 6, 6), (2, 2), (2, 2))

needs_native = pytest.mark.skipif(
    unavailable("native") is not None, reason=f"native: {unavailable('native')}"
)


def run_python(code, **environment):
    """Standard output of ``code`` in a fresh interpreter."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)} | environment
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@needs_native
@pytest.mark.parametrize(
    ("x", "w", "groups", "forward", "grad_input", "grad_weight"),
    [
        ((2, 8, 9, 9), (4, 8, 3, 3), 1, "igemm", "igemm", "gemm"),
        ((2, 8, 9, 9), (8, 8, 3, 3), 1, "winograd4", "winograd4", "gemm"),
        ((9, 8, 7, 7), (8, 8, 3, 3), 1, "winograd2", "winograd4", "winograd"),
        ((1, 8, 9, 9), (8, 8, 3, 3), 1, "igemm", "winograd4", "gemm"),
        ((2, 8, 9, 9), (8, 8, 3, 1), 1, "igemm", "igemm", "gemm"),
        ((2, 3, 9, 9), (8, 3, 3, 3), 1, "stem", "igemm", "stem"),
        ((2, 8, 9, 9), (8, 1, 3, 3), 8, "depthwise", "depthwise", "depthwise"),
        ((2, 8, 9, 9), (16, 1, 3, 3), 8, "depthwise", "igemm", "gemm"),
        ((2, 8, 9, 9), (8, 2, 3, 3), 4, "igemm", "igemm", "gemm"),
    ],
)
def test_the_native_variant_follows_from_the_geometry(x, w, groups, forward, grad_input, grad_weight):
    g = conv2d_geometry(x, w, groups=groups)
    chosen = [
        str(select(f"conv2d_{kernel}", g).variant) for kernel in ("forward", "grad_input", "grad_weight")
    ]
    assert chosen == [f"native:{forward}", f"native:{grad_input}", f"native:{grad_weight}"]


@needs_native
def test_float64_goes_to_the_next_backend_and_the_decision_says_why():
    decision = select("conv2d_forward", DENSE, np.float64)
    assert str(decision.variant) == ("reference:taps" if unavailable("numba") else "numba:gemm")
    assert ("native:igemm", "float32 only") in decision.rejected
    assert "not native:igemm: float32 only" in str(decision)


@needs_native
def test_a_backend_asked_for_by_name_that_cannot_serve_raises_with_every_reason():
    message = r"conv2d_forward.*float64.*float32 only.*auto"
    with use_backend("native"), pytest.raises(BackendError, match=message):
        select("conv2d_forward", DENSE, np.float64)


def test_use_backend_holds_within_its_block_only():
    before = select("max_pool2d_forward", POOL).variant
    with use_backend("reference"):
        assert select("max_pool2d_forward", POOL).variant.backend == "reference"
        with use_backend("auto"):
            assert select("max_pool2d_forward", POOL).variant is before
    assert select("max_pool2d_forward", POOL).variant is before


def test_an_unknown_backend_is_refused():
    message = r"'cuba'.*no such backend; choose from native"
    with pytest.raises(BackendError, match=message), use_backend("cuba"):
        pass


def test_explain_reports_what_ran():
    x, y = np.zeros(POOL.x_shape, np.float32), np.empty(POOL.y_shape, np.float32)
    with use_backend("reference"):
        explanation = explain(launch, "avg_pool2d_forward", POOL, x, y)
    assert [str(d.variant) for d in explanation.decisions] == ["reference:windows"]
    assert "avg_pool2d_forward[N=1 C=8" in str(explanation)
    assert str(explain(lambda: 3)) == "no kernel with a choice of variants ran"


PACKAGE = Path(nnlite.__file__).parents[1]
ENTER = """
from nnlite.kernels import use_backend
try:
    use_backend("native").__enter__()
except Exception as error:
    print(type(error).__name__, error)
"""
SELECT = """
from nnlite.geometry import conv2d_geometry
from nnlite.kernels import select
print(select("conv2d_forward", conv2d_geometry((1, 8, 6, 6), (4, 8, 3, 3))))
"""


def test_the_environment_chooses_the_backend():
    assert run_python(SELECT, NNLITE_BACKEND="reference").endswith("reference:taps")


def test_native_switched_off_is_never_imported():
    code = SELECT + "import sys; assert 'nnlite._native' not in sys.modules"
    text = run_python(code, NNLITE_NATIVE="off", NNLITE_BACKEND="")
    assert f"float32: {'reference:taps' if unavailable('numba') else 'numba:gemm'}" in text
    assert "not native: switched off by NNLITE_NATIVE=off" in text


def test_native_asked_for_but_switched_off_raises():
    text = run_python(ENTER, NNLITE_NATIVE="off", NNLITE_BACKEND="")
    assert text == "BackendError backend 'native' cannot be used: switched off by NNLITE_NATIVE=off"
