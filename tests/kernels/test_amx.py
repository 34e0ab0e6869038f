"""Products by AMX's tiles, emulated and by a processor that has them, bit for bit in the manual's order.

Every kernel on every sample: test_native.py and, under sanitizers, check_kernels.cpp, where ``amx_emulated``
is one more instruction set.
"""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import FLOAT32, cases, outputs, random_inputs, run
from test_native import run_python

from nnlite.geometry import ReducedConv2dGeometry, conv2d_geometry
from nnlite.kernels import SPECS, VARIANTS, unavailable
from nnlite.kernels.bfloat16 import from_bfloat16, to_bfloat16
from nnlite.kernels.native import native_info
from nnlite.layout import channels_last
from nnlite.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.skipif(unavailable("native") is not None, reason=f"native: {unavailable('native')}")
INFO = native_info() if unavailable("native") is None else None
TILES = ("amx", "amx_emulated")


def products(kernel):
    return next(v for v in VARIANTS[kernel] if str(v) == "native:gemm")


@pytest.fixture
def use():
    """Chooses an instruction set; the one before comes back."""
    from nnlite import _native

    before = _native.isa()

    def choose(isa):
        if isa not in INFO.usable_isas:
            pytest.skip(f"this build or CPU has no {isa}")
        _native.use_isa(isa)

    yield choose
    _native.use_isa(before)


# ------------------------------------------------------------------------- the order of the sums


def windows(x, g):
    """x [N,C,H,W] -> [N·P·Q, R·S, C], zeros outside the picture."""
    padded = np.pad(x, ((0, 0), (0, 0), (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)))
    taps = [
        padded[:, :, r : r + g.P * g.stride_h : g.stride_h, s : s + g.Q * g.stride_w : g.stride_w]
        for r in range(g.R)
        for s in range(g.S)
    ]
    return np.stack(taps, 0).transpose(1, 3, 4, 0, 2).reshape(g.N * g.P * g.Q, g.R * g.S, g.C)


def in_lines(taps):
    """[rows, taps, C] -> [rows, lines, 32]: each tap filled up to pairs, the whole to lines of 32."""
    rows, count, channels = taps.shape
    pairs = np.zeros((rows, count, -(-channels // 2) * 2), np.float32)
    pairs[..., :channels] = taps
    flat = pairs.reshape(rows, -1)
    lines = np.zeros((rows, -(-flat.shape[1] // 32), 32), np.float32)
    lines.reshape(rows, -1)[:, : flat.shape[1]] = flat
    return lines


def tdpbf16ps(sums, x, w):
    """sums [M,N] += x [M,32] w [N,32]: a sum of the first numbers of pairs, one of the second, then both.

    A product of two bfloat16 numbers is exact in float32, so that rounding each sum is the manual's fused
    multiply-add.
    """
    first, second = np.zeros_like(sums), np.zeros_like(sums)
    for k in range(0, 32, 2):
        first += x[:, k, None] * w[None, :, k]
        second += x[:, k + 1, None] * w[None, :, k + 1]
    sums += first + second


@pytest.mark.parametrize("isa", TILES)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "pad"),
    [
        ((1, 64, 5, 14), (48, 64, 1, 1), 0),
        ((2, 37, 1, 9), (33, 37, 1, 1), 0),
        ((1, 32, 4, 40), (32, 32, 3, 3), 1),
        ((1, 7, 6, 5), (10, 7, 3, 3), 1),
        ((1, 3, 17, 21), (20, 3, 12, 12), 0),
    ],
)
def test_sums_of_bfloat16_are_made_in_the_manuals_order(use, isa, x_shape, w_shape, pad):
    use(isa)
    g = ReducedConv2dGeometry(*conv2d_geometry(x_shape, w_shape, pads=(pad,) * 4).ints())
    spec, rng = SPECS["conv2d_bfloat16_float"], np.random.default_rng(0)
    inputs = random_inputs(spec, g) | {"residual": None, "bias": np.zeros(g.K, np.float32)}
    for name, shape in (("x", g.x_shape), ("w", g.w_shape)):
        inputs[name] = channels_last(to_bfloat16(rng.standard_normal(shape).astype(np.float32)))
    results = outputs(spec, g, FLOAT32)
    run(products(spec.name), g, inputs, results)

    x = in_lines(windows(from_bfloat16(inputs["x"]), g))
    w = in_lines(from_bfloat16(inputs["w"]).transpose(0, 2, 3, 1).reshape(g.K, g.R * g.S, g.C))
    sums = np.zeros((len(x), g.K), np.float32)
    for line in range(x.shape[1]):
        tdpbf16ps(sums, x[:, line], w[:, line])
    assert not np.array_equal(sums, np.einsum("mlk,nlk->mn", x, w).astype(np.float32)), "any order would do"
    np.testing.assert_array_equal(results["y"], sums.reshape(g.N, g.P, g.Q, g.K).transpose(0, 3, 1, 2))


# --------------------------------------------------------------------- the processor's own products


@pytest.mark.parametrize(
    "kernel", ["conv2d_int8", "conv2d_int8_float", "conv2d_bfloat16", "conv2d_bfloat16_float"]
)
def test_the_processor_and_the_emulation_give_the_same_bits(use, kernel):
    use("amx")
    spec, variant = SPECS[kernel], products(kernel)
    rng = np.random.default_rng(0)
    for g, absent in cases(spec, variant):
        inputs = random_inputs(spec, g)
        if "bfloat16" in kernel:  # numbers whose sums are not exact
            for name in ("x", "w"):
                inputs[name] = channels_last(
                    to_bfloat16(rng.standard_normal(inputs[name].shape).astype(np.float32))
                )
        inputs |= dict.fromkeys(absent)
        bits = []
        for isa in TILES:
            use(isa)
            results = outputs(spec, g, FLOAT32)
            run(variant, g, inputs, results, prepared=True)
            bits.append(results["y"].tobytes())
        assert bits[0] == bits[1], g


@pytest.mark.parametrize("isa", TILES)
@pytest.mark.parametrize("kernel", ["conv2d_int8", "conv2d_bfloat16_float"])
def test_the_bits_do_not_depend_on_the_number_of_threads(use, isa, kernel):
    use(isa)
    spec, rng = SPECS[kernel], np.random.default_rng(0)
    g = ReducedConv2dGeometry(
        *conv2d_geometry((3, 40, 30, 29), (70, 40, 3, 3), pads=(1, 1, 1, 1)).ints(), high=255.0
    )
    inputs = random_inputs(spec, g)
    if kernel != "conv2d_int8":
        inputs["x"] = channels_last(to_bfloat16(rng.standard_normal(g.x_shape).astype(np.float32)))
    before, bits = get_num_threads(), set()
    try:
        for count in (1, 2, 3, 5):
            set_num_threads(count)
            results = outputs(spec, g, FLOAT32)
            run(products(kernel), g, inputs, results)
            bits.add(results["y"].tobytes())
    finally:
        set_num_threads(before)
    assert len(bits) == 1


# ----------------------------------------------------------------------------------------- choice


def test_the_emulation_is_never_chosen_by_itself():
    code = "from nnlite.kernels.native import native_info; print(native_info().isa)"
    result = run_python("-c", code, NNLITE_ISA="")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == INFO.usable_isas[0] != "amx_emulated"


def test_what_the_processor_lacks_cannot_be_chosen():
    lacking = sorted(set(INFO.compiled_isas) - set(INFO.usable_isas))
    if not lacking:
        pytest.skip("this CPU lacks none of the build's instruction sets")
    from nnlite import _native

    for isa in lacking:
        with pytest.raises(ValueError, match=f"this CPU has no {isa}; it has "):
            _native.use_isa(isa)
    assert _native.isa() == INFO.isa
