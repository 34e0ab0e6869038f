"""The CUDA backend: C++/CUDA kernels (``csrc/cuda``) on CuPy arrays, with the signatures of every other's.

``NNLITE_CUDA=off`` keeps the extension from being imported. Variants are registered in any case, so that an
explanation can say why they do not serve. Nothing here imports CuPy before a kernel runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from nnlite.device import why_unavailable
from nnlite.geometry import Conv2dGeometry
from nnlite.kernels.spec import REGISTRY, DType, Variant

Supports = Callable[[Any, DType], str | None]


@lru_cache(maxsize=1)
def _load() -> tuple[Any, str | None]:
    """The extension module, or None and the reason why it cannot be used."""
    if os.environ.get("NNLITE_CUDA", "").strip().lower() in ("off", "0"):
        return None, "switched off by NNLITE_CUDA=off"
    if reason := why_unavailable():
        return None, reason
    try:
        return import_module("nnlite._cuda"), None
    except ModuleNotFoundError:
        return None, "its extension was not built; reinstall nnlite with nvcc on the path and NNLITE_CUDA=on"
    except ImportError as error:
        return None, f"its extension does not load ({error}); reinstall nnlite"


def unavailable() -> str | None:
    """None when kernels can run, else the reason: no driver, no GPU, no CuPy, or no extension."""
    return _load()[1]


@cache
def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(_load()[0], name)
    return function


def _stream() -> int:
    """The stream that CuPy uses in this thread."""
    import cupy

    return int(cupy.cuda.get_current_stream().ptr)


# ----------------------------------------------------------------------------------- what serves

_MOST = 2**31  # elements that 32 bits can count
_LONGEST = 2**14  # of a picture with its padding: kernels hold a place in 16 bits


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def _conv(g: Conv2dGeometry, dtype: DType) -> str | None:
    if dtype != np.float32:
        return "float32 only"
    if not (g.C and g.K):
        return "needs at least one channel"
    if max(map(_size, (g.x_shape, g.w_shape, g.y_shape))) >= _MOST:
        return "for arrays of fewer than 2^31 elements"
    if max(g.H + g.pad_top + g.pad_bottom, g.W + g.pad_left + g.pad_right) >= _LONGEST:
        return "for pictures of fewer than 2^14 pixels in height and width, padding included"
    if g.groups * max(g.R * g.S, g.stride_h * g.stride_w) >= 2**16:
        return "for fewer than 2^16 groups times taps or strides"
    return None


# ------------------------------------------------------------------------------------- variants


def _register(
    kernel: str, name: str, supports: Supports, workspace: bool = False, function: str = ""
) -> None:
    function = function or f"{kernel}_{name}"

    def run(geometry: Any, *operands: Any) -> None:
        _function(function)(_stream(), geometry.values, *operands)

    def size(geometry: Any) -> int:
        return int(_function(f"{function}_workspace")(geometry.values))

    variant = Variant(kernel, "cuda", name, run, supports)
    REGISTRY.add_variant(replace(variant, workspace=size) if workspace else variant)


# In order of preference.
_register("conv2d_forward", "exact", _conv)
_register("conv2d_grad_input", "exact", _conv, workspace=True)
