"""Every kernel on CuPy's arrays: the reference, whose NumPy words CuPy's functions carry out on the GPU.

It stands last among the backends for a GPU, so that whatever no compiled kernel serves runs all the same, in
several passes over memory; elementwise kernels have versions of one pass (``cupy_elementwise``).
"""

from __future__ import annotations

from dataclasses import replace

from nnlite.device import why_unavailable
from nnlite.kernels import cupy_elementwise, reference
from nnlite.kernels.spec import REGISTRY

__all__ = ["cupy_elementwise", "unavailable"]


def unavailable() -> str | None:
    """None when CuPy finds a GPU, else what is missing."""
    return why_unavailable()


for _variants in REGISTRY.variants.values():
    for _variant in [one for one in _variants if one.backend == reference.NAME]:
        REGISTRY.add_variant(replace(_variant, backend="cupy"))
