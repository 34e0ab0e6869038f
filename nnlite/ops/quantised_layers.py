"""ONNX's layers of integers (ConvInteger, QLinearMatMul, …), said by simpler ops.

Their sums are those of int32, exactly: 8-bit products are summed in double precision, where every integer
up to 2^53 is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.node import Value
from nnlite.ops.element_types import dtype_of, name_of
from nnlite.ops.onnx_window import conv_window
from nnlite.ops.record import OnnxNode


def kind_name(n: OnnxNode, kind: int) -> str:
    """The NumPy name of an ONNX element type."""
    try:
        return str(dtype_of(kind).name)
    except KeyError:
        raise n.refuse(f"the element type {name_of(kind) or kind} is not supported") from None


def _input(n: OnnxNode, index: int) -> Value | None:
    return n.inputs[index] if index < len(n.inputs) else None


def _centred(n: OnnxNode, index: int, zero_index: int, *behind: int) -> Any:
    """Input ``index`` less its zero point, in float64; a list of zero points gets axes ``behind``."""
    x = n.emit("cast", _input(n, index), dtype="float64")
    zero = _input(n, zero_index)
    if zero is None:
        return x
    zero = n.emit("cast", zero, dtype="float64")
    return n.emit("sub", x, _with_axes(n, zero, n.rank(zero_index), *behind))


def _with_axes(n: OnnxNode, value: Any, rank: int | None, *behind: int) -> Any:
    """A list with axes of size 1 behind; a single number, or what has more axes, as it is."""
    if not behind or rank == 0 or (rank is not None and rank > 1):
        return value
    return n.emit("reshape", value, shape=(-1, *behind))


def _rescaled(n: OnnxNode, total: Any, scales: tuple[Any, Any, Any], zero: int) -> Any:
    """Sums as the integers of the result: times (first · second / third scale), plus the zero point."""
    first, second, third = scales
    factor = n.emit("div", n.emit("mul", first, second), third)
    y = n.emit("mul", n.emit("cast", total, dtype="float32"), factor)
    kind = n.kind(zero)
    if kind is None:
        raise n.refuse("the element type of its result's zero point is not known")
    one = n.leaf(np.asarray(1, np.float32))
    point = n.emit("reshape", _input(n, zero), shape=())
    return n.emit("quantize", y, one, point, axis=0, dtype=kind_name(n, kind))


def _convolution(n: OnnxNode, x: Any, w: Any, bias: Any, weight: int) -> Any:
    rank = n.rank(weight) or n.rank(0)
    known = n.known(_input(n, weight))
    window = conv_window(n, known.shape[2:] if known is not None else ())
    if rank is None and known is None and not n.attribute("kernel_shape"):
        raise n.refuse("the number of its axes is not known")
    return n.emit("conv_nd", x, w, bias, **window, groups=n.attribute("group", 1))


def read_conv_integer(n: OnnxNode) -> Any:
    ones = (1,) * ((n.rank(1) or n.rank(0) or 4) - 1)
    x, w = _centred(n, 0, 2), _centred(n, 1, 3, *ones)
    return n.emit("cast", _convolution(n, x, w, None, 1), dtype="int32")


def read_qlinear_conv(n: OnnxNode) -> Any:
    rank = n.rank(3) or n.rank(0) or 4
    x, w = _centred(n, 0, 2), _centred(n, 3, 5, *(1,) * (rank - 1))
    bias = _input(n, 8)
    if bias is not None:
        bias = n.emit("cast", bias, dtype="float64")
    total = _convolution(n, x, w, bias, 3)
    w_scale = _with_axes(n, _input(n, 4), n.rank(4), *(1,) * (rank - 2))
    return _rescaled(n, total, (_input(n, 1), w_scale, _input(n, 6)), 7)


def read_matmul_integer(n: OnnxNode) -> Any:
    product = n.emit("matmul", _centred(n, 0, 2, 1), _centred(n, 1, 3))
    return n.emit("cast", product, dtype="int32")


def read_qlinear_matmul(n: OnnxNode) -> Any:
    product = n.emit("matmul", _centred(n, 0, 2, 1), _centred(n, 3, 5))
    a_scale = _with_axes(n, _input(n, 1), n.rank(1), 1)
    y_scale = _with_axes(n, _input(n, 6), n.rank(6), 1)
    return _rescaled(n, product, (a_scale, _input(n, 4), y_scale), 7)


QUANTISED_LAYERS = {
    "ConvInteger": read_conv_integer,
    "QLinearConv": read_qlinear_conv,
    "MatMulInteger": read_matmul_integer,
    "QLinearMatMul": read_qlinear_matmul,
}
"""ONNX operator -> reader."""
