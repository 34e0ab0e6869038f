"""Quantised and back at once: the rounding that a quantised model applies between its layers.

The true derivative is 0 nearly everywhere. As in training that knows of quantisation, the gradient goes
straight through where nothing was clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.element_types import dtype_named
from nnlite.ops.quantise import attributes, check_quantised, limits, read_dequantize, spread
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Sample,
    register,
)


def fake_quantize_shape(
    x: ArrayType, scale: ArrayType, zero_point: ArrayType | None, axis: int, dtype: str
) -> ArrayType:
    check_quantised("fake_quantize", x, scale, zero_point, axis, 0)
    kind = dtype_named(dtype)
    if kind.kind not in "iu":
        raise DTypeError(f"fake_quantize: {dtype} is no type of integers")
    if x.dtype.kind not in "fi":
        raise DTypeError(f"fake_quantize: x is {x.dtype} but must be floating-point or int32")
    return ArrayType(x.shape, scale.dtype)


def fake_quantize_forward(
    ctx: Context, x: Array, scale: Array, zero_point: Array | None, axis: int, dtype: str
) -> Array:
    step = spread(scale, x.shape, axis, 0)
    zero = np.zeros((), np.float64, like=x) if zero_point is None else zero_point.astype(np.float64)
    zero = spread(zero, x.shape, axis, 0)
    low, high = limits(dtype_named(dtype))
    with np.errstate(all="ignore"):
        quotient = as_array(x / step, np.result_type(scale.dtype, np.float32))
        whole = np.rint(quotient).astype(np.float64) + zero
    ctx.save((whole >= low) & (whole <= high))
    kept = np.clip(whole, low, high) - zero
    return as_array(kept.astype(scale.dtype) * step, scale.dtype)


def fake_quantize_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    return gy * ctx.saved[0], None, None


def read(n: OnnxNode) -> Any:
    """DequantizeLinear; with the QuantizeLinear before it, where there is one, a node that gradients pass."""
    quantised, axis = n.inputs[0], n.attribute("axis", 1)
    before = None if quantised is None else quantised.node
    if before is None or before.op.name != "quantize" or n.attribute("output_dtype", 0):
        return read_dequantize(n)
    params = before.params
    plain = not params.get("block_size") and params.get("precision") is None
    same = tuple(before.inputs[1:]) == (*n.inputs[1:], None)[:2] and params["axis"] == axis
    if not (plain and same and dtype_named(params["dtype"]).kind in "iu"):
        return read_dequantize(n)
    n.attribute("block_size")
    return n.emit("fake_quantize", *before.inputs, axis=axis, dtype=params["dtype"])


def write_fake_quantize(w: OnnxWriter, node: Node) -> str:
    x, scale, zero = node.inputs
    point: Any = (
        zero if zero is not None else w.host(np.zeros((), node.params["dtype"]), node.params["dtype"])
    )
    if zero is None and scale is not None and scale.type is not None and scale.type.shape:
        point = w.host(np.zeros(scale.type.shape), node.params["dtype"])
    quantised = w.add("QuantizeLinear", [x, scale, point], **attributes(node))
    return w.add("DequantizeLinear", [quantised, scale, point], **attributes(node))


_X = np.array([[0.4, -1.3, 2.5], [7.2, -300.0, 3.4]])


def fake_quantize_samples() -> Iterator[Sample]:
    plain = dict[str, Any](gradcheck=False)
    yield Sample(_X, np.array(0.5), None, axis=1, dtype="uint8", **plain)
    yield Sample(_X, np.array([0.5, 0.25]), np.array([1, -2], np.int8), axis=0, dtype="int8", **plain)


def fake_quantize_errors() -> Iterator[ErrorSample]:
    one = np.array(0.5)
    yield ErrorSample(DTypeError, "no type of integers", _X, one, None, axis=1, dtype="float32")
    yield ErrorSample(
        DTypeError, "must be floating-point", np.ones((2, 2), bool), one, None, axis=1, dtype="int8"
    )
    yield ErrorSample(ShapeError, "as x along axis 1", _X, np.ones(2), None, axis=1, dtype="int8")


register(
    Op(
        name="fake_quantize",
        formula="y = (q - zero_point) · scale with q = round(x / scale) + zero_point clipped to the range of "
        "dtype: dequantize(quantize(x))",
        gradient="gx = gy where q was not clipped, straight through the rounding; none for scale and zero "
        "point",
        source="ONNX QuantizeLinear-25, DequantizeLinear-25; Bengio et al. 2013, arXiv:1308.3432; "
        "torch.fake_quantize_per_tensor_affine",
        shape=fake_quantize_shape,
        forward=fake_quantize_forward,
        backward=fake_quantize_backward,
        samples=fake_quantize_samples,
        errors=fake_quantize_errors,
        reads={"DequantizeLinear": read},
        writes=write_fake_quantize,
    )
)
