"""Windows in ONNX files: of how many axes they are, and which op computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite.ops.record import OnnxNode

FLOATS = (1, 10, 11, 16)
"""ONNX's codes of float, float16, double and bfloat16."""


def conv_window(n: OnnxNode, kernel: Sequence[int]) -> dict[str, Any]:
    """strides, pads and dilations of an ONNX convolution node."""
    declared = n.attribute("kernel_shape")
    if declared is not None and kernel and tuple(declared) != tuple(kernel):
        raise n.refuse(f"kernel_shape {declared} disagrees with the weight's {list(kernel)}")
    lists = [n.attribute(name) or () for name in ("strides", "dilations")]
    ranks = [n.rank(i) for i in (0, 1)]
    known = [len(kernel), len(declared or ()), *map(len, lists), *(rank - 2 for rank in ranks if rank)]
    axes = next((count for count in known if count), 2)
    auto_pad = n.attribute("auto_pad", "NOTSET")
    padding: Any = auto_pad.lower()
    pads = n.attribute("pads")
    if auto_pad in ("NOTSET", ""):
        padding = tuple(pads or (0,) * (2 * axes))
    stride, dilation = (tuple(given or (1,) * axes) for given in lists)
    return dict(stride=stride, padding=padding, dilation=dilation)


def widen_window(window: dict[str, Any]) -> dict[str, Any]:
    """A window along one axis as one along two, of which the first has size 1."""
    padding = window["padding"]
    if not isinstance(padding, str) and len(padding) == 2:
        padding = (0, padding[0], 0, padding[1])
    wide = dict(window, padding=padding)
    neutral = dict(stride=1, dilation=1, output_padding=0, kernel_size=1)
    return wide | {key: (neutral[key], *wide[key]) for key in neutral if key in wide}


def emit_conv(n: OnnxNode, flat: str, any_axes: str, window: dict[str, Any], **more: Any) -> Any:
    """Two axes have kernels of their own, one axis goes through them, more have the general op."""
    x, w, bias = n.inputs[0], n.inputs[1], n.inputs[2] if len(n.inputs) > 2 else None
    axes = len(window["stride"])
    if axes == 2:
        return n.emit(flat, x, w, bias, **window, **more)
    if axes > 2:
        return n.emit(any_axes, x, w, bias, **window, **more)
    wide = [n.emit("unsqueeze", operand, axes=(2,)) for operand in (x, w)]
    return n.emit("squeeze", n.emit(flat, *wide, bias, **widen_window(window), **more), axes=(2,))


def emit_pool(n: OnnxNode, flat: str, any_axes: str, window: dict[str, Any], **more: Any) -> Any:
    """Two axes have kernels of their own, one axis goes through them, more (and integers) do not."""
    axes, integers = len(window["kernel_size"]), n.kind(0) not in (None, *FLOATS)
    if axes > 2 or integers:
        return n.emit(any_axes, n.inputs[0], **window, **more)
    if axes == 2:
        return n.emit(flat, n.inputs[0], **window, **more)
    wide = n.emit("unsqueeze", n.inputs[0], axes=(2,))
    return n.emit("squeeze", n.emit(flat, wide, **widen_window(window), **more), axes=(2,))
