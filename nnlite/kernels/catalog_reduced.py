"""The rows of reduced precision: convolution of integers of 8 bits and of bfloat16, and roundings to them.

Integers: x, residual and y hold 0..255, standing for (q - zero)·scale, w holds -127..127, one scale for each
output channel. Between the sum and y is float32 arithmetic in the order of the formula, each operation
rounded: every variant gives the same bits. The caller folds scales and zeros
(``nnlite.graph.passes.reduce_precision``):

    scale = s_x s_w[k] / s_y,  bias = bias[k] / s_y + zero_y - zero_x Σw scale - zero_r residual_scale

bfloat16: x, w, residual and y hold bits (:mod:`nnlite.kernels.bfloat16`), sums are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import numpy as np

from nnlite.geometry import Conv2dGeometry, QuantiseGeometry, ReducedConv2dGeometry, conv2d_geometry
from nnlite.kernels.bfloat16 import to_bfloat16
from nnlite.kernels.catalog import FLOAT32_EPSILON
from nnlite.kernels.samples import conv2d_samples
from nnlite.kernels.spec import REGISTRY, DType, KernelSpec, Types
from nnlite.layout import Array

UINT8, INT8, BITS = np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.uint16)

# ------------------------------------------------------------------------------------- samples


def _reduced(g: Conv2dGeometry, **more: Any) -> ReducedConv2dGeometry:
    return ReducedConv2dGeometry(*g.ints(), **more)


def _geometries() -> Iterator[Conv2dGeometry]:
    """Every 7th of the convolutions' own samples, then what is special here."""
    yield from list(conv2d_samples())[::7]
    for channels in (1, 2, 3, 4, 7, 16, 33):  # whole and partial quads, in whole and partial vectors
        yield conv2d_geometry((2, channels, 5, 6), (channels + 9, channels, 3, 3), pads=(1, 1, 1, 1))
        yield conv2d_geometry((1, channels, 7, 5), (channels, 1, 3, 3), pads=(1, 1, 1, 1), groups=channels)
    yield conv2d_geometry((3, 100, 1, 1), (70, 100, 1, 1))  # linear
    yield conv2d_geometry((1, 40, 70, 3), (33, 40, 1, 1))  # several blocks of rows
    # Lines of 64 bytes: rows at even distances and not, lines of several taps, fewer rows for many taps.
    yield conv2d_geometry((1, 130, 6, 40), (50, 130, 1, 1))
    yield conv2d_geometry((1, 64, 4, 39), (17, 64, 3, 3), pads=(1, 1, 1, 1))
    yield conv2d_geometry((1, 136, 5, 40), (40, 68, 2, 2), (2, 2), groups=2)
    yield conv2d_geometry((1, 3, 17, 21), (20, 3, 12, 12))
    yield conv2d_geometry((1, 35, 3, 300), (35, 1, 3, 3), pads=(1, 1, 1, 1), groups=35)  # rows in pieces
    yield conv2d_geometry((1, 33, 9, 19), (33, 1, 7, 7), (2, 2), (3, 3, 3, 3), groups=33)
    yield conv2d_geometry((2, 20, 8, 9), (20, 1, 5, 5), (1, 2), (2, 2, 2, 2), (2, 1), groups=20)


def _int8_samples() -> Iterator[ReducedConv2dGeometry]:
    ends = ((0, 0.5, 0.0, 255.0), (3, 0.25, 12.0, 255.0), (128, 1.75, 0.0, 200.0))
    for index, geometry in enumerate(_geometries()):
        zero, residual_scale, low, high = ends[index % 3]
        yield _reduced(geometry, x_zero=zero, residual_scale=residual_scale, low=low, high=high)


def _bfloat16_samples() -> Iterator[ReducedConv2dGeometry]:
    for index, geometry in enumerate(_geometries()):
        low, high = ((-inf, inf), (0.0, inf), (-0.5, 6.0))[index % 3]
        yield _reduced(geometry, low=low, high=high)


# ----------------------------------------------------------------------------------- convolution


def _conv_types(x: DType, w: DType, y: DType | None) -> Callable[[ReducedConv2dGeometry, DType], Types]:
    def types(g: ReducedConv2dGeometry, dtype: DType) -> Types:
        return {
            "x": (g.x_shape, x),
            "w": (g.w_shape, w),
            "scale": ((g.K,), dtype),
            "bias": ((g.K,), dtype),
            "residual": (g.y_shape, x),
            "y": (g.y_shape, dtype if y is None else y),
        }

    return types


def _int8_inputs(g: ReducedConv2dGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # The extremes among them, where a product or a sum of two must not overflow; results across all bytes.
    x = rng.integers(0, 256, types["x"][0])
    w = rng.integers(-127, 128, types["w"][0])
    x[rng.random(x.shape) < 0.2] = 255
    w[rng.random(w.shape) < 0.2] = 127
    length = g.C // g.groups * g.R * g.S
    scale = rng.uniform(0.5, 1.5, g.K) * 60 / (160 * 80 * np.sqrt(length))
    return {
        "x": x.astype(np.uint8),
        "w": w.astype(np.int8),
        "scale": scale.astype(np.float32).astype(types["scale"][1]),
        "bias": rng.integers(60, 150, g.K).astype(types["bias"][1]),
        "residual": rng.integers(0, 100, types["residual"][0]).astype(np.uint8),
    }


def _bfloat16_inputs(g: ReducedConv2dGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # Sixteenths up to 2: their products and sums are exact in float32, so that only the last rounding is
    # left, and that is the same for everyone.
    def sixteenths(shape: tuple[int, ...]) -> Array:
        return rng.integers(-32, 33, shape) / 16

    return {
        "x": to_bfloat16(sixteenths(types["x"][0])),
        "w": to_bfloat16(sixteenths(types["w"][0])),
        "bias": sixteenths((g.K,)).astype(types["bias"][1]),
        "residual": to_bfloat16(sixteenths(types["residual"][0])),
    }


_BYTES: tuple[tuple[str, DType | None], ...] = (("", UINT8), ("_float", None))
for _suffix, _y in _BYTES:
    REGISTRY.add_spec(
        KernelSpec(
            name=f"conv2d_int8{_suffix}",
            formula="y[n,k,p,q] = clamp(scale[k] sum_crs w[k,c,r,s] x[n,c,h,w] + bias[k] +"
            " residual_scale residual[n,k,p,q], low, high), x being x_zero outside the picture"
            + (", rounded to the nearest, halves to the even one" if _y else "")
            + "; sums in 32 bits",
            inputs=("x", "w", "scale", "bias", "residual"),
            outputs=("y",),
            optional=frozenset({"residual"}),
            types=_conv_types(UINT8, INT8, _y),
            flops=lambda g: 2 * g.macs,
            tolerance=lambda g: 4 * FLOAT32_EPSILON,
            samples=_int8_samples,
            make_inputs=_int8_inputs,
        )
    )
_RESULTS: tuple[tuple[str, DType | None], ...] = (("", BITS), ("_float", None))
for _suffix, _y in _RESULTS:
    REGISTRY.add_spec(
        KernelSpec(
            name=f"conv2d_bfloat16{_suffix}",
            formula="y[n,k,p,q] = clamp(sum_crs w[k,c,r,s] x[n,c,h,w] + bias[k] +"
            " residual[n,k,p,q], low, high)" + (", rounded to bfloat16" if _y else "") + "; sums in float32",
            inputs=("x", "w", "bias", "residual"),
            outputs=("y",),
            optional=frozenset({"residual"}),
            types=_conv_types(BITS, BITS, _y),
            flops=lambda g: 2 * g.macs,
            tolerance=lambda g: 0.0,
            samples=_bfloat16_samples,
            make_inputs=_bfloat16_inputs,
        )
    )

# ------------------------------------------------------------------------------------- roundings


def _run_types(y: DType) -> Callable[[QuantiseGeometry, DType], Types]:
    return lambda g, dtype: {"x": ((g.size,), dtype), "y": ((g.size,), y)}


def _quantise_inputs(g: QuantiseGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # Halves among them, and numbers far beyond either end.
    x = (rng.integers(-100, 700, g.size) / 2 - g.zero) * g.scale
    x[rng.random(g.size) < 0.1] *= 1e6
    return {"x": x.astype(np.float32).astype(types["x"][1])}


def _quantise_samples() -> Iterator[QuantiseGeometry]:
    for size in (1, 7, 16, 65, 40_000):
        for scale, zero in ((1.0, 0.0), (0.5, 128.0), (0.03, 17.0)):
            yield QuantiseGeometry(size, float(np.float32(scale)), zero)


def _float_inputs(g: QuantiseGeometry, types: Types, rng: np.random.Generator) -> dict[str, Array]:
    # Halves between two neighbours among them, and infinities.
    x = rng.standard_normal(g.size).astype(np.float32)
    bits = x.view(np.uint32)
    bits[::3] = (bits[::3] & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    x[::16], x[6::64] = 3.4e38, -np.inf
    return {"x": x.astype(types["x"][1])}


REGISTRY.add_spec(
    KernelSpec(
        name="quantise",
        formula="y = clamp(round(x / scale) + zero, 0, 255), halves to the even one",
        inputs=("x",),
        outputs=("y",),
        types=_run_types(UINT8),
        flops=lambda g: 4 * g.size,
        tolerance=lambda g: 0.0,
        samples=_quantise_samples,
        make_inputs=_quantise_inputs,
    )
)
REGISTRY.add_spec(
    KernelSpec(
        name="round_bfloat16",
        formula="y = the bits of x rounded to bfloat16, to the nearest, halves to the one with last bit 0",
        inputs=("x",),
        outputs=("y",),
        types=_run_types(BITS),
        flops=lambda g: g.size,
        tolerance=lambda g: 0.0,
        samples=lambda: (QuantiseGeometry(size) for size in (1, 7, 16, 65, 40_000)),
        make_inputs=_float_inputs,
    )
)
