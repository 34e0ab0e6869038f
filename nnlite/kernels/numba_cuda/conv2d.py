"""Convolution: grids and operands of ``jit/conv2d.py``."""

from __future__ import annotations

from operator import attrgetter

from nnlite.geometry import FUNCTION, Conv2dGeometry
from nnlite.kernels.numba_cpu.launch import floating
from nnlite.kernels.numba_cuda.launch import absent, compiled, flat, stream
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array

_ints = attrgetter(
    "N", "C", "H", "W", "K", "R", "S", "P", "Q", "stride_h", "stride_w", "pad_top", "pad_left", "pad_bottom",
    "pad_right", "dilation_h", "dilation_w", "groups",
)  # fmt: skip


def _launch(
    which: str, g: Conv2dGeometry, rows: int, columns: int, left: Array, right: Array, out: Array,
    bias: Array | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    if not rows * columns:
        return
    kernel, tile = compiled("conv2d").kernel(which, str(out.dtype)), compiled("product").TILE
    grid = (-(-rows // tile), -(-columns // tile), g.groups)
    nothing = absent(out.dtype)
    kernel[grid, (tile, tile), stream()](
        flat(left), flat(right), nothing if bias is None else bias,
        nothing if residual is None else flat(residual), flat(out), g.low, g.high, _ints(g),
    )  # fmt: skip


def forward(
    g: Conv2dGeometry, x: Array, w: Array, bias: Array | None, residual: Array | None, y: Array,
    workspace: Array | None,
) -> None:  # fmt: skip
    _launch("forward", g, g.N * g.P * g.Q, g.K // g.groups, x, w, y, bias, residual)


def grad_input(g: Conv2dGeometry, gy: Array, w: Array, gx: Array, workspace: Array | None) -> None:
    _launch("grad_input", g, g.N * g.H * g.W, g.C // g.groups, gy, w, gx)


def grad_weight(g: Conv2dGeometry, x: Array, gy: Array, gw: Array, workspace: Array | None) -> None:
    _launch("grad_weight", g, g.K // g.groups, g.R * g.S * g.C // g.groups, gy, x, gw)


def _serves(g: Conv2dGeometry, dtype: DType) -> str | None:
    return "a function that follows has a pass of its own" if g.activation >= FUNCTION else floating(dtype)


for _name, _run in (("forward", forward), ("grad_input", grad_input), ("grad_weight", grad_weight)):
    REGISTRY.add_variant(Variant(f"conv2d_{_name}", "numba-cuda", "tiles", _run, _serves))
