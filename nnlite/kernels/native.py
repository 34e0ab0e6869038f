"""The native backend: C++ kernels (``csrc/cpu``) behind the same signatures as every other's.

``NNLITE_NATIVE=off`` keeps the extension from being imported; ``NNLITE_ISA`` chooses the instruction
set. Variants are registered in any case, so that an explanation can say why they do not serve.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from nnlite import threads
from nnlite.errors import ConfigError
from nnlite.geometry import (
    NO_ACTIVATION,
    Conv2dGeometry,
    EltwiseGeometry,
    FunctionGeometry,
    NormGeometry,
    PictureGeometry,
    Pool2dGeometry,
    QuantiseGeometry,
    ReducedConv2dGeometry,
    ResizeGeometry,
)
from nnlite.kernels import winograd
from nnlite.kernels.spec import REGISTRY, DType, Preparation, Variant

Supports = Callable[[Any, DType], str | None]


@lru_cache(maxsize=1)
def _load() -> tuple[Any, str | None]:
    """The extension module, or None and the reason why it cannot be used."""
    if os.environ.get("NNLITE_NATIVE", "").strip().lower() in ("off", "0"):
        return None, "switched off by NNLITE_NATIVE=off"
    try:
        # By its full name: "from nnlite import" would ask the package's lazy attributes first.
        _native = import_module("nnlite._native")
    except ModuleNotFoundError:
        return None, "the extension was not built; install a C++ compiler and reinstall"
    except ImportError as error:
        return None, f"the extension does not load ({error}); reinstall nnlite"
    if isa := os.environ.get("NNLITE_ISA", "").strip().lower():
        try:
            _native.use_isa(isa)
        except ValueError as error:
            raise ConfigError(f"NNLITE_ISA={isa}: {error}") from None
    threads.follow(_native.set_num_threads)
    return _native, None


@cache
def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(_load()[0], name)
    return function


def unavailable() -> str | None:
    """None when the extension can be used, else the reason; raises ConfigError for a wrong NNLITE_ISA."""
    return _load()[1]


def kept(functions: Iterable[Callable[[], None]]) -> Callable[[], None]:
    """One call of the extension that makes the kernel calls of ``functions``, in order and without Python.

    Each function makes one kernel call; its operands are checked now, and must stay where they are for as
    long as the result is used.
    """
    calls = _function("Calls")()
    for function in functions:
        count = calls.keep(function)
        assert count == 1, f"a kept function makes one kernel call, not {count}"
    run: Callable[[], None] = calls
    return run


@dataclass(frozen=True)
class NativeInfo:
    """What the native backend runs on."""

    isa: str
    usable_isas: tuple[str, ...]
    compiled_isas: tuple[str, ...]
    num_threads: int


def native_info() -> NativeInfo | None:
    """Instruction set and threads in use, or None when the backend is not available."""
    native, reason = _load()
    if reason:
        return None
    return NativeInfo(
        native.isa(), tuple(native.usable_isas()), tuple(native.compiled_isas()), native.num_threads()
    )


# ----------------------------------------------------------------------------------- what serves


def _float32(geometry: Any, dtype: DType) -> str | None:
    return None if dtype == np.float32 else "float32 only"


def _conv(g: Conv2dGeometry, dtype: DType) -> str | None:
    return _float32(g, dtype) or (None if g.C and g.K else "needs at least one channel")


def _stem(g: Conv2dGeometry, dtype: DType) -> str | None:
    if g.groups != 1 or g.C > 4 or g.S == 1:
        return "for at most 4 input channels, ungrouped, and kernels wider than 1"
    return _conv(g, dtype) or (None if g.dilation_w == 1 else "needs dilation_w=1")


def _stem_grad(g: Conv2dGeometry, dtype: DType) -> str | None:
    if reason := _stem(g, dtype):
        return reason
    if g.dilation_h != 1:
        return "needs dilation_h=1"
    # Every lane sums up a gradient of its own.
    return None if g.K * g.C * g.R * g.S <= 1 << 16 else "for at most 65536 weights"


def _winograd(rule: Callable[..., str | None], **options: Any) -> Supports:
    """A rule of :mod:`nnlite.kernels.winograd` for what a convolution takes anyway."""
    return lambda g, dtype: _conv(g, dtype) or rule(g, **options)


def _depthwise(g: Conv2dGeometry, dtype: DType) -> str | None:
    if g.groups != g.C or g.C == 1:
        return "for one input channel per group and more than one group"
    return _conv(g, dtype) or (None if g.R * g.S <= 961 else "kernels of at most 961 elements")


def _depthwise_single(g: Conv2dGeometry, dtype: DType) -> str | None:
    return _depthwise(g, dtype) or (None if g.K == g.C else "needs one output channel per input channel")


def _pool(g: Pool2dGeometry, dtype: DType) -> str | None:
    if reason := _float32(g, dtype):
        return reason
    if not g.C:
        return "needs at least one channel"
    return None if g.H * g.W < 2**31 else "input positions must fit int32"


def _norm(g: NormGeometry, dtype: DType) -> str | None:
    return _float32(g, dtype) or (None if g.C else "needs at least one channel")


def _reduced_gemm(g: ReducedConv2dGeometry, dtype: DType) -> str | None:
    taps = g.R * g.S
    if taps > 341 or taps * g.C // g.groups > 65536:
        return "for at most 341 taps and 65536 products per sum"
    return _conv(g, dtype)


def _reduced_depthwise(g: ReducedConv2dGeometry, dtype: DType) -> str | None:
    if reason := _depthwise_single(g, dtype):
        return reason
    # Interleaved columns of a window: rows in pairs for bfloat16, in fours for bytes.
    small = g.R <= 64 and (g.R + 1) // 2 * ((g.S - 1) * g.dilation_w + 1) <= 256
    return None if small else "for smaller windows"


def _line(g: NormGeometry, dtype: DType) -> str | None:
    return _norm(g, dtype) or (None if g.activation == NO_ACTIVATION else "has no activation")


def _pictures(g: PictureGeometry, dtype: DType) -> str | None:
    return _float32(g, dtype) or (None if min(g.C, g.H, g.W) else "needs pictures that are not empty")


def _resize(g: ResizeGeometry, dtype: DType) -> str | None:
    if not min(g.C, g.H, g.W, g.P, g.Q):
        return "needs pictures that are not empty"
    return _float32(g, dtype) or (None if max(g.row_taps, g.column_taps) < 2**31 else "taps must fit int32")


# ------------------------------------------------------------------------------------- variants


def _preparation(function: str, supports: Supports, phases: bool = False) -> Preparation:
    """Of a forward convolution: ``function`` and the extension's four functions beside it.

    ``phases``: the order of the weights follows from strides, pads and dilation.
    """
    size, prepare, run, workspace = (
        f"{function}_{end}" for end in ("prepared_size", "prepare", "prepared", "prepared_workspace")
    )
    return Preparation(
        operand="w",
        size=lambda g: int(_function(size)(g.values)),
        prepare=lambda g, weights, prepared: _function(prepare)(g.values, weights, prepared),
        run=lambda g, *operands: _function(run)(g.values, *operands),
        key=lambda g: (*g.w_shape, g.groups, *(g.ints()[9:17] if phases else ())),
        supports=supports,
        workspace=lambda g: int(_function(workspace)(g.values)),
    )


def _register(
    kernel: str,
    name: str,
    function: str,
    geometry: type,
    supports: Supports,
    workspace: bool = False,
    preparation: Preparation | None = None,
) -> None:
    # A convolution and a pooling pass their geometry as one tuple of integers, all else number by number.
    spread = geometry in (NormGeometry, EltwiseGeometry, FunctionGeometry, QuantiseGeometry)

    def run(geometry: Any, *operands: Any) -> None:
        if spread:
            _function(function)(*geometry.values, *operands)
        else:
            _function(function)(geometry.values, *operands)

    def size(geometry: Any) -> int:
        measure = _function(f"{function}_workspace")
        return int(measure(*geometry.values) if spread else measure(geometry.values))

    measure = {"workspace": size} if workspace else {}
    REGISTRY.add_variant(Variant(kernel, "native", name, run, supports, preparation=preparation, **measure))


# In order of preference.
for _name, _supports in (
    ("depthwise", _depthwise),
    ("stem", _stem),
    ("winograd4x2", _winograd(winograd.tiles_of_4_two_taps, three=True)),
    ("winograd4", _winograd(winograd.tiles_of_4)),
    ("winograd2", _winograd(winograd.tiles_of_2)),
    ("igemm", _conv),
):
    _function_name = f"conv2d_forward_{_name}"
    _register(
        "conv2d_forward", _name, _function_name, Conv2dGeometry, _supports,
        workspace=True, preparation=_preparation(_function_name, _supports, phases=_name == "winograd4x2"),
    )  # fmt: skip

for _name, _supports in (
    ("depthwise", _depthwise_single),
    ("winograd4x2", _winograd(winograd.tiles_of_4_two_taps, gradient=True)),
    ("winograd4", _winograd(winograd.tiles_of_4, gradient=True)),
    ("winograd2", _winograd(winograd.tiles_of_2, gradient=True)),
    ("igemm", _conv),
):
    _function_name = f"conv_transpose2d_forward_{_name}"
    _register(
        "conv_transpose2d_forward", _name, _function_name, Conv2dGeometry, _supports, workspace=True,
        preparation=_preparation(_function_name, _supports, phases=_name in ("winograd4x2", "igemm")),
    )  # fmt: skip

for _direction, _name, _supports in (
    ("grad_input", "depthwise", _depthwise_single),
    ("grad_input", "winograd4x2", _winograd(winograd.tiles_of_4_two_taps, gradient=True)),
    ("grad_input", "winograd4", _winograd(winograd.tiles_of_4, gradient=True)),
    ("grad_input", "winograd2", _winograd(winograd.tiles_of_2, gradient=True)),
    ("grad_input", "igemm", _conv),
    ("grad_weight", "depthwise", _depthwise_single),
    ("grad_weight", "winograd", _winograd(winograd.weight_gradient)),
    ("grad_weight", "winograd4x2", _winograd(winograd.tiles_of_4_two_taps)),
    ("grad_weight", "stem", _stem_grad),
    ("grad_weight", "gemm", _conv),
):
    _kernel = f"conv2d_{_direction}"
    _register(_kernel, _name, f"{_kernel}_{_name}", Conv2dGeometry, _supports, workspace=True)

for _kernel in ("max_pool2d_forward", "max_pool2d_backward", "avg_pool2d_forward", "avg_pool2d_backward"):
    _register(_kernel, "gather", _kernel, Pool2dGeometry, _pool)

for _kernel, _workspace in (
    ("batch_norm_training_forward", True),
    ("batch_norm_training_backward", True),
    ("batch_norm_inference_forward", False),
    ("batch_norm_inference_backward", True),
    ("channel_sum", True),
):
    _register(_kernel, "rows", _kernel, NormGeometry, _norm, workspace=_workspace)

for _kernel in ("softmax_forward", "softmax_backward", "log_softmax_forward", "log_softmax_backward"):
    _register(_kernel, "lines", _kernel, NormGeometry, _line)
for _kernel in ("cross_entropy", "layer_norm_forward"):
    _register(_kernel, "lines", _kernel, NormGeometry, _line)
_register("layer_norm_backward", "lines", "layer_norm_backward", NormGeometry, _line, workspace=True)

_register("scale_channels", "run", "scale_channels", PictureGeometry, _pictures)
_register("resize", "taps", "resize", ResizeGeometry, _resize)

for _kernel in ("function_forward", "function_backward"):
    _register(_kernel, "run", _kernel, FunctionGeometry, _float32)

for _kernel in ("combine", "multiply", "activation_backward", "sgd_step", "adam_step"):
    _register(_kernel, "run", _kernel, EltwiseGeometry, _float32)


def _register_reduced(kernel: str, how: str, supports: Supports) -> None:
    """A convolution of reduced precision: its integers as one tuple, then what follows its sums."""
    kind = kernel.removesuffix("_float")
    function = f"{kind}_{how}{kernel.removeprefix(kind)}"
    absent = (None,) if kind == "conv2d_bfloat16" else ()  # it has no scale

    def split(g: ReducedConv2dGeometry) -> tuple[Any, ...]:
        return (g.ints(), g.x_zero, g.residual_scale, g.low, g.high)

    def on(suffix: str) -> Callable[..., None]:
        def run(g: ReducedConv2dGeometry, x: Any, w: Any, *operands: Any) -> None:
            _function(function + suffix)(*split(g), x, w, *absent, *operands)

        return run

    def measure(suffix: str) -> Callable[[Any], int]:
        return lambda g: int(_function(function + suffix)(*split(g)))

    def prepare(g: ReducedConv2dGeometry, weights: Any, prepared: Any) -> None:
        _function(f"{function}_prepare")(*split(g), weights, prepared)

    def key(g: ReducedConv2dGeometry) -> tuple[Any, ...]:
        return (*g.w_shape, g.groups)

    preparation = Preparation(
        "w",
        measure("_prepared_size"),
        prepare,
        on("_prepared"),
        key,
        supports,
        measure("_prepared_workspace"),
    )
    REGISTRY.add_variant(
        Variant(kernel, "native", how, on(""), supports, measure("_workspace"), preparation=preparation)
    )


for _kernel in ("conv2d_int8", "conv2d_int8_float", "conv2d_bfloat16", "conv2d_bfloat16_float"):
    _register_reduced(_kernel, "depthwise", _reduced_depthwise)
    _register_reduced(_kernel, "gemm", _reduced_gemm)

for _kernel in ("quantise", "round_bfloat16"):
    _register(_kernel, "run", _kernel, QuantiseGeometry, _float32)
