"""Pooling: grids and operands of ``jit/pool2d.py``."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np

from nnlite.geometry import Pool2dGeometry
from nnlite.kernels.numba_cpu.launch import floating
from nnlite.kernels.numba_cuda.launch import absent, compiled, flat, simulated, stream
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array

_ints = attrgetter(*Pool2dGeometry.__dataclass_fields__)
THREADS = 256


def _launch(which: str, g: Pool2dGeometry, size: int, *arrays: Any) -> None:
    if not size:
        return
    threads = 8 if simulated() else THREADS
    grid = -(-size // threads)
    getattr(compiled("pool2d"), which)[grid, threads, stream()](*arrays, tuple(map(int, _ints(g))))


def max_forward(
    g: Pool2dGeometry, x: Array, y: Array, indices: Array | None, workspace: Array | None
) -> None:
    places = absent(np.dtype(np.int32)) if indices is None else flat(indices)
    _launch("max_forward", g, y.size, flat(x), flat(y), places)


def max_backward(g: Pool2dGeometry, gy: Array, indices: Array, gx: Array, workspace: Array | None) -> None:
    _launch("max_backward", g, gx.size, flat(gy), flat(indices), flat(gx))


def avg_forward(g: Pool2dGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    _launch("avg_forward", g, y.size, flat(x), flat(y))


def avg_backward(g: Pool2dGeometry, gy: Array, gx: Array, workspace: Array | None) -> None:
    _launch("avg_backward", g, gx.size, flat(gy), flat(gx))


def _serves(g: Pool2dGeometry, dtype: DType) -> str | None:
    return floating(dtype) or (None if g.H * g.W < 2**31 else "input positions must fit int32")


for _name, _run in (
    ("max_pool2d_forward", max_forward),
    ("max_pool2d_backward", max_backward),
    ("avg_pool2d_forward", avg_forward),
    ("avg_pool2d_backward", avg_backward),
):
    REGISTRY.add_variant(Variant(_name, "numba-cuda", "elements", _run, _serves))
