"""Quantisation: floats as integers with a scale and a zero point, and back.

One scale for the whole array, one per element of an axis, or one per block of elements along an axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.element_types import code_of, dtype_named
from nnlite.ops.quantised_layers import QUANTISED_LAYERS, kind_name
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
from nnlite.ops.storage import LARGEST, RANGES, is_storage, stored


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The lowest and the highest integer of a type."""
    if dtype.name in RANGES:
        return RANGES[dtype.name]
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def check_quantised(
    op: str, x: ArrayType, scale: ArrayType, zero_point: ArrayType | None, axis: int, block_size: int
) -> None:
    """Raises DTypeError or ShapeError unless scale and zero point fit x."""
    if scale.dtype.kind != "f" or is_storage(scale.dtype):
        raise DTypeError(f"{op}: the scale is {scale.dtype} but must be floating-point")
    single = all(t is None or t.shape in ((), (1,)) for t in (scale, zero_point))
    if zero_point is not None and zero_point.shape != scale.shape and not single:
        raise ShapeError(
            f"{op}: the zero point {list(zero_point.shape)} and the scale {list(scale.shape)} must be of "
            "one shape"
        )
    if single:
        return
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise ShapeError(f"{op}: axis {axis} is out of range for x {list(x.shape)}")
    size = x.shape[axis]
    if block_size:
        wanted = list(x.shape)
        wanted[axis] = -(-size // block_size)
        if block_size < 0 or list(scale.shape) != wanted:
            raise ShapeError(f"{op}: the scale {list(scale.shape)} must be {wanted}, one for each block")
    elif scale.shape != (size,):
        raise ShapeError(
            f"{op}: the scale {list(scale.shape)} must be [] or [{size}], as x along axis {axis}"
        )


def spread(scale: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or zero point so that it broadcasts with x."""
    if scale.size == 1:
        return scale.reshape(())
    if block_size:
        return np.repeat(scale, block_size, axis)[tuple(map(slice, shape))]
    return scale.reshape([n if i == axis % len(shape) else 1 for i, n in enumerate(shape)])


# -------------------------------------------------------------------------------------- quantize


def quantize_shape(
    x: ArrayType,
    scale: ArrayType,
    zero_point: ArrayType | None,
    axis: int,
    dtype: str,
    block_size: int = 0,
    saturate: bool = True,
    precision: str | None = None,
) -> ArrayType:
    check_quantised("quantize", x, scale, zero_point, axis, block_size)
    kind = dtype_named(dtype)
    if kind.kind not in "iu" and not is_storage(kind):
        raise DTypeError(f"quantize: {dtype} is no type that numbers are quantised to")
    if x.dtype.kind not in "fi":
        raise DTypeError(f"quantize: x is {x.dtype} but must be floating-point or int32")
    return ArrayType(x.shape, kind)


def quantize_forward(
    ctx: Context,
    x: Array,
    scale: Array,
    zero_point: Array | None,
    axis: int,
    dtype: str,
    block_size: int = 0,
    saturate: bool = True,
    precision: str | None = None,
) -> Array:
    kind, divisor = dtype_named(dtype), spread(scale, x.shape, axis, block_size)
    with np.errstate(all="ignore"):
        if precision is None:
            quotient = as_array(x / divisor, np.result_type(scale.dtype, np.float32))
        else:
            quotient = (x.astype(precision) / divisor.astype(precision)).astype(np.float32)
        if kind.name not in RANGES and is_storage(kind):
            return stored(quotient, kind, saturate)
        # In double precision every integer of up to 32 bits is exact.
        whole = np.rint(quotient).astype(np.float64)
        if zero_point is not None:
            whole += spread(zero_point, x.shape, axis, block_size).astype(np.float64)
        y: Array = np.clip(whole, *limits(kind)).astype(np.int64).astype(kind)
        return y


def _options(n: OnnxNode) -> dict[str, Any]:
    axis = n.attribute("axis", 1) if n.version >= 13 else 1
    return dict(axis=axis, block_size=n.attribute("block_size", 0))


def read_quantize(n: OnnxNode) -> Any:
    kind = n.kind(2) or n.attribute("output_dtype", 0) or 2
    n.attribute("output_dtype")
    precision = kind_name(n, code) if (code := n.attribute("precision", 0)) else None
    inputs = (*n.inputs, None)[:3]
    return n.emit(
        "quantize", *inputs, dtype=kind_name(n, kind), saturate=bool(n.attribute("saturate", 1)),
        precision=None if precision == "float32" else precision, **_options(n),
    )  # fmt: skip


def attributes(node: Node) -> dict[str, Any]:
    """axis and block_size, where they say anything."""
    params, scale = node.params, node.inputs[1]
    known = None if scale is None or scale.type is None else scale.type.shape
    result: dict[str, Any] = {} if known is not None and len(known) == 0 else {"axis": params["axis"]}
    if params.get("block_size"):
        result["block_size"] = params["block_size"]
    return result


def write_quantize(w: OnnxWriter, node: Node) -> str:
    given, kind = attributes(node), dtype_named(node.params["dtype"])
    if not node.params.get("saturate", True):
        given["saturate"] = 0
    if node.params.get("precision"):
        code = code_of(node.params["precision"])
        given["precision"] = int(code)
    if node.inputs[2] is None and kind != np.uint8:
        given["output_dtype"] = code_of(kind)
    return w.add("QuantizeLinear", node.inputs, **given)


_X = np.array([[0.4, -1.3, 2.5], [7.2, -300.0, 3.5]])
_INT8 = np.array([1, -2], np.int8)


def quantize_samples() -> Iterator[Sample]:
    yield Sample(_X, np.array(0.5), None, axis=1, dtype="uint8")
    yield Sample(_X, np.array(0.5), np.array(128, np.uint8), axis=1, dtype="uint8")
    yield Sample(_X, np.array([0.5, 0.25]), _INT8, axis=0, dtype="int8")
    blocks = np.array([[0.5, 0.25], [2.0, 4.0]])
    yield Sample(_X, blocks, np.zeros((2, 2), np.int8), axis=1, dtype="int8", block_size=2)


def _errors(x: Any, **params: Any) -> Iterator[ErrorSample]:
    one = np.array(0.5)
    yield ErrorSample(DTypeError, "the scale is", x, np.array(2), None, axis=1, **params)
    yield ErrorSample(ShapeError, "of one shape", x, one, np.zeros(3, np.uint8), axis=1, **params)
    yield ErrorSample(ShapeError, "as x along axis 1", x, np.ones(2), None, axis=1, **params)
    yield ErrorSample(
        ShapeError, "one for each block", x, np.ones((2, 3)), None, axis=1, block_size=2, **params
    )
    yield ErrorSample(ShapeError, "out of range", x, np.ones(2), None, axis=2, **params)


def quantize_errors() -> Iterator[ErrorSample]:
    yield from _errors(_X, dtype="uint8")
    yield ErrorSample(DTypeError, "no type that", _X, np.array(0.5), None, axis=1, dtype="float32")
    yield ErrorSample(DTypeError, "must be floating", _X > 0, np.array(0.5), None, axis=1, dtype="uint8")


register(
    Op(
        name="quantize",
        formula="y = round(x / scale) + zero_point (0 where absent), halves to the even integer, clipped to "
        "the range of dtype; scale of shape [], of x's size along axis, or one for each block_size elements",
        gradient="none: integers carry no gradient",
        source="ONNX QuantizeLinear-25",
        shape=quantize_shape,
        forward=quantize_forward,
        backward=None,
        samples=quantize_samples,
        errors=quantize_errors,
        reads={"QuantizeLinear": read_quantize, **QUANTISED_LAYERS},
        writes=write_quantize,
    )
)

# ------------------------------------------------------------------------------------ dequantize


def dequantize_shape(
    x: ArrayType, scale: ArrayType, zero_point: ArrayType | None, axis: int, block_size: int = 0
) -> ArrayType:
    check_quantised("dequantize", x, scale, zero_point, axis, block_size)
    if x.dtype.kind not in "iu" and not is_storage(x.dtype):
        raise DTypeError(f"dequantize: x is {x.dtype} but must be integers")
    return ArrayType(x.shape, scale.dtype)


def dequantize_forward(
    ctx: Context, x: Array, scale: Array, zero_point: Array | None, axis: int, block_size: int = 0
) -> Array:
    wide = np.float64 if x.dtype.itemsize > 2 else np.float32  # in which differences are exact
    steps = x.astype(wide)
    if zero_point is not None and zero_point.dtype.name not in LARGEST:
        steps -= spread(zero_point, x.shape, axis, block_size).astype(wide)
    ctx.save(steps.astype(scale.dtype, copy=False))
    ctx.values["scale_shape"] = scale.shape
    return as_array(steps * spread(scale, x.shape, axis, block_size), scale.dtype)


def dequantize_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    shape, gradient = ctx.values["scale_shape"], gy * ctx.saved[0]
    axis, block = ctx.params["axis"], ctx.params.get("block_size", 0)
    if np.prod(shape) == 1:
        return None, gradient.sum().reshape(shape), None
    if block:
        starts = np.arange(0, gradient.shape[axis], block, like=gradient)
        return None, np.add.reduceat(gradient, starts, axis), None
    others = tuple(i for i in range(gradient.ndim) if i != axis % gradient.ndim)
    return None, gradient.sum(others), None


def read_dequantize(n: OnnxNode) -> Any:
    y = n.emit("dequantize", *(*n.inputs, None)[:3], **_options(n))
    kind = n.attribute("output_dtype", 0)
    if not kind or kind_name(n, kind) in ("float32", "float16", "bfloat16"):
        return y  # half precision is computed in float32
    return n.emit("cast", y, dtype=kind_name(n, kind))


_Q = np.array([[3, -1, 0], [-128, 127, 5]], np.int8)
register(
    Op(
        name="dequantize",
        formula="y = (x - zero_point) · scale, zero_point 0 where absent; scale as in quantize",
        gradient="gscale = Σ gy · (x - zero_point) over what has that scale; none for integers",
        source="ONNX DequantizeLinear-25",
        shape=dequantize_shape,
        forward=dequantize_forward,
        backward=dequantize_backward,
        samples=lambda: [
            Sample(_Q, np.array(0.5), None, axis=1),
            Sample(_Q, np.array(0.5), np.array(3, np.int8), axis=1),
            Sample(_Q, np.array([0.5, 0.25, 2.0]), np.array([1, -1, 0], np.int8), axis=-1),
            Sample(_Q, np.array([[0.5, 0.25], [2.0, 4.0]]), None, axis=1, block_size=2),
        ],
        errors=lambda: [
            *_errors(_Q),
            ErrorSample(DTypeError, "must be integers", (2, 3), np.array(0.5), None, axis=1),
        ],
        writes=lambda w, node: w.add("DequantizeLinear", node.inputs, **attributes(node)),
    )
)
