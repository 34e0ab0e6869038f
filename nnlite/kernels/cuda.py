"""The CUDA backend: C++/CUDA kernels (``csrc/cuda``) on CuPy arrays, with the signatures of every other's.

``NNLITE_CUDA=off`` keeps the extension from being imported. Variants are registered in any case, so that an
explanation can say why they do not serve. Nothing here imports CuPy before a kernel runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib import import_module
from operator import attrgetter
from typing import Any

import numpy as np

from nnlite.device import why_unavailable
from nnlite.errors import ConfigError
from nnlite.geometry import (
    CLAMP,
    FUNCTION,
    NO_ACTIVATION,
    Conv2dGeometry,
    NormGeometry,
    Pool2dGeometry,
    ReducedConv2dGeometry,
    ResizeGeometry,
)
from nnlite.kernels.spec import REGISTRY, DType, Variant

Supports = Callable[[Any, DType], str | None]


@lru_cache(maxsize=1)
def _load() -> tuple[Any, str | None]:
    """The extension module, or None and the reason why it cannot be used."""
    if os.environ.get("NNLITE_CUDA", "").strip().lower() in ("off", "0"):
        return None, "switched off by NNLITE_CUDA=off"
    if reason := why_unavailable():
        return None, reason
    if _products not in PRODUCTS:
        raise ConfigError(f"NNLITE_CUDA_PRODUCTS={_products} must be one of {', '.join(PRODUCTS)}")
    try:
        return import_module("nnlite._cuda"), None
    except ModuleNotFoundError:
        return None, "its extension was not built; reinstall nnlite with nvcc on the path and NNLITE_CUDA=on"
    except ImportError as error:
        return None, f"its extension does not load ({error}); reinstall nnlite"


def unavailable() -> str | None:
    """None when kernels can run, else the reason: no driver, no GPU, no CuPy, or no extension.

    Raises ConfigError for a wrong NNLITE_CUDA_PRODUCTS.
    """
    return _load()[1]


@cache
def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(_load()[0], name)
    return function


def _stream() -> int:
    """The stream that CuPy uses in this thread."""
    import cupy

    return int(cupy.cuda.get_current_stream().ptr)


@cache
def _capability() -> int:
    """Compute capability of the device in use when first asked: 90 is 9.0."""
    return int(_load()[0].compute_capability())


PRODUCTS = ("float32", "tf32", "bfloat16")
"""How convolutions of float32 arrays may multiply; sums and arrays are float32 whatever is chosen."""

_products = os.environ.get("NNLITE_CUDA_PRODUCTS", "").strip().lower() or "float32"


def use_products(kind: str) -> None:
    """Say how convolutions of float32 arrays on a GPU multiply: ``float32``, exactly, unless told otherwise.

    ``tf32`` and ``bfloat16`` round the two factors of a product on their way to the tensor cores, to 10 and
    7 bits of fraction: errors of up to 2⁻¹¹ and 2⁻⁹ in each. Sums are float32. ``NNLITE_CUDA_PRODUCTS`` sets
    the same for a process. What a plan has chosen stays. Raises ConfigError for another name.
    """
    from nnlite.kernels.select import forget

    global _products
    if kind not in PRODUCTS:
        raise ConfigError(f"products {kind!r} do not exist; choose from {', '.join(PRODUCTS)}")
    _products = kind
    forget()


# ----------------------------------------------------------------------------------- what serves

_MOST = 2**31  # elements that 32 bits can count
_LONGEST = 2**14  # of a picture with its padding: kernels hold a place in 16 bits


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def _conv(g: Conv2dGeometry, dtype: DType) -> str | None:
    return "float32 only" if dtype != np.float32 else _sizes(g)


def _sizes(g: Conv2dGeometry) -> str | None:
    if g.activation >= FUNCTION:
        return "a function that follows has a pass of its own"
    if not (g.C and g.K):
        return "needs at least one channel"
    if max(map(_size, (g.x_shape, g.w_shape, g.y_shape))) >= _MOST:
        return "for arrays of fewer than 2^31 elements"
    if max(g.H + g.pad_top + g.pad_bottom, g.W + g.pad_left + g.pad_right) >= _LONGEST:
        return "for pictures of fewer than 2^14 pixels in height and width, padding included"
    if g.groups * max(g.R * g.S, g.stride_h * g.stride_w) >= 2**16:
        return "for fewer than 2^16 groups times taps or strides"
    return None


def _tensor_cores(g: Conv2dGeometry, outputs: str) -> str | None:
    if _capability() < 80:
        return "for GPUs of compute capability 8.0 and newer"
    if g.groups > 1 and getattr(g, outputs) // g.groups < 16:
        return "for at least 16 channels of the result in a group"
    return _sizes(g)


def _rounded(g: Conv2dGeometry, dtype: DType, outputs: str, products: str) -> str | None:
    if dtype != np.float32:
        return "float32 only"
    if _products != products:
        return f"{products} products are not asked for (use_products, NNLITE_CUDA_PRODUCTS)"
    return _tensor_cores(g, outputs)


def _half(g: Conv2dGeometry, dtype: DType, outputs: str) -> str | None:
    return "float16 only" if dtype != np.float16 else _tensor_cores(g, outputs)


def _bfloat16(g: ReducedConv2dGeometry, dtype: DType) -> str | None:
    return "bounds and results in float32" if dtype != np.float32 else _tensor_cores(g, "K")


def _depthwise(g: Conv2dGeometry, dtype: DType) -> str | None:
    if g.groups != g.C or g.K != g.C or g.C == 1:
        return "for one input and one output channel per group and more than one group"
    if reason := _conv(g, dtype):
        return reason
    return None if g.R * g.S <= 192 and g.S <= 8 else "for at most 192 taps, and at most 8 in a row"


def _rows(g: NormGeometry, dtype: DType) -> str | None:
    if dtype != np.float32:
        return "float32 only"
    if not g.C:
        return "needs at least one channel"
    return None if g.M * g.C < _MOST else "for arrays of fewer than 2^31 elements"


def _lines(g: NormGeometry, dtype: DType) -> str | None:
    return _rows(g, dtype) or (None if g.activation == NO_ACTIVATION else "has no activation")


def _pictures(g: Pool2dGeometry | ResizeGeometry, dtype: DType) -> str | None:
    if dtype != np.float32:
        return "float32 only"
    if not min(g.C, g.H, g.W, g.P, g.Q):
        return "needs pictures that are not empty"
    return (
        None if max(_size(g.x_shape), _size(g.y_shape)) < _MOST else "for arrays of fewer than 2^31 elements"
    )


def _grouped(g: Conv2dGeometry, dtype: DType, outputs: str) -> str | None:
    if g.groups == 1 or getattr(g, outputs) // g.groups >= 16:
        return "for more than one group, of fewer than 16 channels of the result"
    return _conv(g, dtype)


# ------------------------------------------------------------------------------------- variants


def _register(
    kernel: str,
    name: str,
    supports: Supports,
    workspace: bool = False,
    function: str = "",
    values: Callable[[Any], tuple[Any, ...]] = attrgetter("values"),
) -> None:
    """``values``: what the extension is told of the geometry."""
    function = function or f"{kernel}_{name}"

    def run(geometry: Any, *operands: Any) -> None:
        _function(function)(_stream(), values(geometry), *operands)

    def size(geometry: Any) -> int:
        return int(_function(f"{function}_workspace")(values(geometry)))

    variant = Variant(kernel, "cuda", name, run, supports)
    REGISTRY.add_variant(replace(variant, workspace=size) if workspace else variant)


# In order of preference.
for _direction, _name, _supports in (
    ("forward", "depthwise", _depthwise),
    ("forward", "grouped", partial(_grouped, outputs="K")),
    ("forward", "tf32", partial(_rounded, outputs="K", products="tf32")),
    ("forward", "rounded16", partial(_rounded, outputs="K", products="bfloat16")),
    ("forward", "half", partial(_half, outputs="K")),
    ("forward", "exact", _conv),
    ("grad_input", "depthwise", _depthwise),
    ("grad_input", "grouped", partial(_grouped, outputs="C")),
    ("grad_input", "tf32", partial(_rounded, outputs="C", products="tf32")),
    ("grad_input", "rounded16", partial(_rounded, outputs="C", products="bfloat16")),
    ("grad_input", "half", partial(_half, outputs="C")),
    ("grad_input", "exact", _conv),
    ("grad_weight", "depthwise", _depthwise),
    ("grad_weight", "tf32", partial(_rounded, outputs="K", products="tf32")),
    ("grad_weight", "rounded16", partial(_rounded, outputs="K", products="bfloat16")),
    ("grad_weight", "half", partial(_half, outputs="K")),
    ("grad_weight", "exact", _conv),
):
    _register(f"conv2d_{_direction}", _name, _supports, workspace=_direction != "forward")

for _kernel in ("conv2d_bfloat16", "conv2d_bfloat16_float"):
    _register(
        _kernel, "tensor", _bfloat16, function=_kernel, values=lambda g: (*g.ints(), CLAMP, g.low, g.high)
    )

for _kernel in ("max_pool2d_forward", "max_pool2d_backward", "avg_pool2d_forward", "avg_pool2d_backward"):
    _register(_kernel, "gather", _pictures, function=_kernel)
_register("resize", "gather", _pictures, function="resize")

for _kernel, _workspace in (
    ("batch_norm_training_forward", True),
    ("batch_norm_training_backward", True),
    ("batch_norm_inference_forward", False),
    ("batch_norm_inference_backward", True),
    ("channel_sum", True),
):
    _register(_kernel, "rows", _rows, _workspace, _kernel)

for _kernel in ("softmax_forward", "softmax_backward", "log_softmax_forward", "log_softmax_backward"):
    _register(_kernel, "lines", _lines, function=_kernel)
_register("cross_entropy", "lines", _lines, function="cross_entropy")
_register("layer_norm_forward", "lines", _lines, function="layer_norm_forward")
_register("layer_norm_backward", "lines", _lines, True, "layer_norm_backward")
