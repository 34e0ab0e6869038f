"""Calling what Numba compiled for a GPU: whether there is one, and arrays as kernels take them."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from nnlite.device import missing_driver
from nnlite.kernels.spec import DType
from nnlite.layout import Array


def simulated() -> bool:
    """Whether Numba's simulator stands in for a GPU."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@cache
def unavailable() -> str | None:
    """None when kernels can run, else the reason; never imports Numba."""
    if find_spec("numba") is None:
        return "Numba is not installed; pip install nnlite[numba]"
    return None if simulated() else missing_driver()


@cache
def compiled(module: str) -> Any:
    """Module ``jit.<module>``, imported when the first kernel of its kind is launched."""
    return import_module(f"nnlite.kernels.numba_cuda.jit.{module}")


def stream() -> Any:
    """The stream that CuPy uses in this thread, as Numba knows it."""
    if simulated():
        return 0
    import cupy
    from numba import cuda

    return cuda.external_stream(cupy.cuda.get_current_stream().ptr)


def flat(array: Array) -> Array:
    """A channels-last array [N,C,H,W] as one row of its elements in memory; never copies."""
    view: Array = array.transpose(0, 2, 3, 1)
    assert view.flags.c_contiguous, "kernels take channels-last arrays"
    return view.reshape(-1)


def absent(dtype: DType) -> Array:
    """What a kernel is given for an operand that is not there."""
    if simulated():
        return np.empty(0, dtype)
    import cupy

    nothing: Array = cupy.empty(0, dtype)
    return nothing
