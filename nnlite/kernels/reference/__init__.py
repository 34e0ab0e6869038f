"""The reference backend: NumPy, any floating type, always available, the oracle of all others."""

from __future__ import annotations

from nnlite.kernels.reference import conv2d, eltwise, lines, norm, optim, pool2d, reduced, resize

NAME = "reference"

__all__ = [
    "NAME",
    "conv2d",
    "eltwise",
    "lines",
    "norm",
    "optim",
    "pool2d",
    "reduced",
    "resize",
    "unavailable",
]


def unavailable() -> str | None:
    """None: NumPy is always there."""
    return None
