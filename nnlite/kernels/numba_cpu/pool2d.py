"""Pooling: operands handed to ``jit/pool2d.py`` as they lie in memory."""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from nnlite.geometry import Pool2dGeometry
from nnlite.kernels.numba_cpu.launch import compiled, flat, floating, session
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array

_ints = attrgetter(*Pool2dGeometry.__dataclass_fields__)
_NO_INDICES = np.empty(0, np.int32)


def max_forward(
    g: Pool2dGeometry, x: Array, y: Array, indices: Array | None, workspace: Array | None
) -> None:
    places = _NO_INDICES if indices is None else flat(indices)
    with session():
        compiled("pool2d").max_forward(flat(x), flat(y), places, _ints(g))


def max_backward(g: Pool2dGeometry, gy: Array, indices: Array, gx: Array, workspace: Array | None) -> None:
    with session():
        compiled("pool2d").max_backward(flat(gy), flat(indices), flat(gx), _ints(g))


def avg_forward(g: Pool2dGeometry, x: Array, y: Array, workspace: Array | None) -> None:
    with session():
        compiled("pool2d").avg_forward(flat(x), flat(y), _ints(g))


def avg_backward(g: Pool2dGeometry, gy: Array, gx: Array, workspace: Array | None) -> None:
    with session():
        compiled("pool2d").avg_backward(flat(gy), flat(gx), _ints(g))


def _serves(g: Pool2dGeometry, dtype: DType) -> str | None:
    return floating(dtype) or (None if g.H * g.W < 2**31 else "input positions must fit int32")


for _name, _run in (
    ("max_pool2d_forward", max_forward),
    ("max_pool2d_backward", max_backward),
    ("avg_pool2d_forward", avg_forward),
    ("avg_pool2d_backward", avg_backward),
):
    REGISTRY.add_variant(Variant(_name, "numba", "gather", _run, _serves))
