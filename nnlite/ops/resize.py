"""Resizing pictures: nearest, linear and cubic, with every coordinate rule of ONNX.

Resizing is linear and separable: along each axis the result is a small matrix times the input, which
:func:`resize_matrix` builds from the rule. The gradient is the transposed matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import floor
from typing import Any, NamedTuple

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array
from nnlite.node import Node
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

MODES = ("nearest", "linear", "cubic")


class Rule(NamedTuple):
    """Where a result's pixel comes from, and how its neighbours are weighed."""

    mode: str = "linear"
    coordinates: str = "half_pixel"
    nearest: str = "floor"
    antialias: bool = False
    cubic_a: float = -0.75
    exclude_outside: bool = False


def _at(rule: Rule, i: Array, size: int, out: int, scale: float) -> Array:
    """Coordinates in the input of the result's pixels ``i``, as ONNX Resize defines them."""
    name = rule.coordinates
    if name == "align_corners":
        return i * ((size - 1) / (out - 1)) if out > 1 else i * 0
    if name == "asymmetric":
        return i / scale
    if name == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if name == "pytorch_half_pixel" and out == 1:
        return i * 0
    centre = (i + 0.5) / scale - 0.5
    if name == "half_pixel_symmetric":
        centre += size / 2 * (1 - out / (scale * size))
    return centre


COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn",
)  # fmt: skip
ROUNDINGS: dict[str, Callable[[Array, bool], Array]] = {
    "floor": lambda x, smaller: np.floor(x),
    "ceil": lambda x, smaller: np.ceil(x),
    "round_prefer_floor": lambda x, smaller: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x, smaller: np.floor(x + 0.5),
    "simple": lambda x, smaller: np.ceil(x) if smaller else np.floor(x),  # before operator set 11
}


def _triangle(distance: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(distance), 0))


def _cubic(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))


@lru_cache(maxsize=256)
def resize_matrix(size: int, out: int, scale: float, rule: Rule) -> Array:
    """[out, size] in float64: row p weighs the pixels that the result's pixel p is made of."""
    x = _at(rule, np.arange(out, dtype=np.float64), size, out, scale)
    matrix = np.zeros((out, size))
    if rule.mode == "nearest":
        chosen = np.clip(ROUNDINGS[rule.nearest](x, scale < 1), 0, size - 1).astype(int)
        matrix[np.arange(out), chosen] = 1
        return matrix
    shrink = min(scale, 1.0) if rule.antialias else 1.0  # antialiasing widens the filter by 1 / scale
    reach = floor((1 if rule.mode == "linear" else 2) / shrink) + 1
    first = np.floor(x).astype(int)
    for offset in range(-reach + 1, reach + 1):
        taps = first + offset
        distance = (taps - x) * shrink
        weights = _triangle(distance) if rule.mode == "linear" else _cubic(distance, rule.cubic_a)
        if rule.exclude_outside:
            weights = np.where((taps >= 0) & (taps < size), weights, 0)
        np.add.at(matrix, (np.arange(out), np.clip(taps, 0, size - 1)), weights)
    if rule.exclude_outside or rule.antialias:
        matrix /= matrix.sum(1, keepdims=True)
    return matrix


def _spatial(
    name: str, given: Sequence[float], shape: tuple[int, ...], fixed: Sequence[float]
) -> list[float]:
    """The part of ``given`` for the axes after N and C; for all axes, N and C must stay as they are."""
    listed = list(given)
    if len(listed) == len(shape) and len(shape) > 2:
        if listed[:2] != list(fixed):
            raise ShapeError(f"resize: {name}={listed} must leave N and C of x {list(shape)} alone")
        return listed[2:]
    if len(listed) != len(shape) - 2 or not listed:
        raise ShapeError(f"resize: {name}={listed} must have one entry per axis of x {list(shape)} after C")
    return listed


def _plan(
    shape: tuple[int, ...], sizes: Sequence[int] | None, scales: Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sizes of the result after C, and the scale along each axis."""
    if (sizes is None) == (scales is None):
        raise OperandError("resize: give either sizes or scales")
    if sizes is not None:
        outs = [int(n) for n in _spatial("sizes", sizes, shape, shape[:2])]
        ratios = [out / max(size, 1) for out, size in zip(outs, shape[2:], strict=True)]
    else:
        assert scales is not None
        ratios = [float(s) for s in _spatial("scales", scales, shape, (1, 1))]
        if not min(ratios) > 0:
            raise OperandError(f"resize: scales={ratios} must be above 0")
        outs = [floor(size * ratio) for size, ratio in zip(shape[2:], ratios, strict=True)]
    if min(outs) < 1 or 0 in shape[2:]:
        raise ShapeError(f"resize: x {list(shape)} to sizes {outs} leaves nothing; sizes must be at least 1")
    return tuple(outs), tuple(ratios)


def resize_shape(
    x: ArrayType, sizes: Sequence[int] | None, scales: Sequence[float] | None, **rule: Any
) -> ArrayType:
    if x.dtype.kind != "f":
        raise DTypeError(f"resize: x is {x.dtype} but must be floating-point; convert with astype")
    named = Rule(**rule)
    for value, known in (
        (named.mode, MODES), (named.coordinates, COORDINATES), (named.nearest, tuple(ROUNDINGS))
    ):  # fmt: skip
        if value not in known:
            raise OperandError(f"resize: {value!r} must be one of {', '.join(known)}")
    if named.antialias and named.mode == "nearest":
        raise OperandError("resize: antialias needs mode linear or cubic")
    outs, _ = _plan(x.shape, sizes, scales)
    return ArrayType((*x.shape[:2], *outs), x.dtype)


def _along(matrix: Array, x: Array, axis: int) -> Array:
    return np.moveaxis(np.tensordot(matrix.astype(x.dtype), x, (1, axis)), 0, axis)


def resize_forward(
    ctx: Context, x: Array, sizes: Sequence[int] | None, scales: Sequence[float] | None, **rule: Any
) -> Array:
    named = Rule(**rule)
    steps = []
    for i, (out, scale) in enumerate(zip(*_plan(x.shape, sizes, scales), strict=True)):
        size, axis = x.shape[2 + i], 2 + i
        if out == size and scale == 1 and named.coordinates != "tf_half_pixel_for_nn":
            continue
        matrix = resize_matrix(size, out, scale, named)
        steps.append((matrix, axis))
        x = x.take(matrix.argmax(1), axis) if named.mode == "nearest" else _along(matrix, x, axis)
    ctx.values["steps"] = steps
    return x


def resize_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    for matrix, axis in reversed(ctx.values["steps"]):
        gy = _along(matrix.T, gy, axis)
    return (gy,)


def resize_samples() -> Iterator[Sample]:
    twice = dict[str, Any](sizes=None, scales=(2.0, 2.0))
    yield Sample((2, 3, 3, 4), **twice, mode="nearest", coordinates="asymmetric")
    yield Sample((1, 2, 5, 4), sizes=(3, 7), scales=None, mode="nearest", nearest="round_prefer_ceil")
    for coordinates in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
        yield Sample((1, 2, 4, 5), sizes=(7, 3), scales=None, mode="linear", coordinates=coordinates)
    yield Sample((1, 2, 4, 3), sizes=None, scales=(1.5, 0.75), mode="linear")
    for outside in (True, False):
        smooth = dict[str, Any](mode="linear", antialias=True, exclude_outside=outside)
        yield Sample((1, 2, 8, 9), sizes=(3, 4), scales=None, **smooth)
    yield Sample((1, 2, 4, 5), sizes=(8, 3), scales=None, mode="cubic")
    yield Sample((1, 2, 9, 8), sizes=(4, 9), scales=None, mode="cubic", exclude_outside=True, cubic_a=-0.5)
    yield Sample((1, 2, 6), sizes=(9,), scales=None, mode="linear", onnx=False)


def resize_errors() -> Iterator[ErrorSample]:
    x = (1, 2, 4, 4)
    yield ErrorSample(OperandError, "either sizes or scales", x, sizes=None, scales=None)
    yield ErrorSample(OperandError, "'area' must be one of", x, sizes=(2, 2), scales=None, mode="area")
    yield ErrorSample(OperandError, "above 0", x, sizes=None, scales=(0.0, 1.0))
    yield ErrorSample(ShapeError, "leaves nothing", x, sizes=None, scales=(0.1, 1.0))
    yield ErrorSample(ShapeError, "leaves nothing", x, sizes=(0, 3), scales=None)
    yield ErrorSample(ShapeError, "one entry per axis", x, sizes=(3,), scales=None)
    yield ErrorSample(ShapeError, "leave N and C", x, sizes=(1, 3, 4, 4), scales=None)
    smooth = dict[str, Any](sizes=(2, 2), scales=None, mode="nearest", antialias=True)
    yield ErrorSample(OperandError, "antialias needs", x, **smooth)
    yield ErrorSample(DTypeError, "floating-point", np.ones((1, 1, 2, 2), int), sizes=(1, 1), scales=None)


def _given(n: OnnxNode, index: int) -> Any:
    """An optional list; exporters write an empty one for none."""
    value = n.host(index)
    return None if isinstance(value, tuple) and not value else value


def read_resize(n: OnnxNode) -> Any:
    mode = n.attribute("mode", "nearest")
    if n.version < 11:
        return read_upsample(n)
    if (policy := n.attribute("keep_aspect_ratio_policy", "stretch")) != "stretch":
        raise n.refuse(f"keep_aspect_ratio_policy {policy!r} is not supported, only 'stretch'")
    coordinates = n.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinates not in COORDINATES:
        raise n.refuse(f"coordinate_transformation_mode {coordinates!r} is not supported")
    n.attribute("extrapolation_value")  # of tf_crop_and_resize only
    axes, sizes = n.attribute("axes"), _given(n, 3)
    scales = _given(n, 2) if sizes is None else None
    if axes is not None and tuple(axes) != tuple(range(2, 2 + len(axes))):
        raise n.refuse(f"axes {list(axes)} must be those after N and C, in order")
    return n.emit(
        "resize", n.inputs[0], sizes=sizes, scales=scales, mode=mode, coordinates=coordinates,
        nearest=n.attribute("nearest_mode", "round_prefer_floor"),
        antialias=bool(n.attribute("antialias", 0)), cubic_a=n.attribute("cubic_coeff_a", -0.75),
        exclude_outside=bool(n.attribute("exclude_outside", 0)),
    )  # fmt: skip


def read_upsample(n: OnnxNode) -> Any:
    """Upsample, and Resize of operator set 10: asymmetric coordinates."""
    mode = n.attribute("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise n.refuse(f"mode {mode!r} is not supported")
    scales = n.attribute("scales") if n.version < 9 else n.host(1)
    rule = dict[str, Any](mode=mode, coordinates="asymmetric", nearest="simple")
    return n.emit("resize", n.inputs[0], sizes=None, scales=scales, **rule)


def write_resize(w: OnnxWriter, node: Node) -> str:
    (x,), params = node.inputs, dict(node.params)
    sizes, scales = params.pop("sizes"), params.pop("scales")
    rule = Rule(**params)
    attributes: dict[str, Any] = {"mode": rule.mode, "coordinate_transformation_mode": rule.coordinates}
    if rule.mode == "nearest":
        if rule.nearest == "simple":
            raise OperandError("resize: nearest='simple' is of operator set 10; use 'floor' to export")
        attributes["nearest_mode"] = rule.nearest
    if rule.mode == "cubic":
        attributes["cubic_coeff_a"] = float(rule.cubic_a)
    if rule.exclude_outside:
        attributes["exclude_outside"] = 1
    if rule.antialias:
        if w.version < 18:
            raise OperandError("resize: ONNX has antialias from operator set 18 on; export with opset=18")
        attributes["antialias"] = 1
    if scales is not None:
        all_scales = (1.0, 1.0, *scales) if x is not None and len(scales) < 3 else scales
        return w.add("Resize", [x, None, w.host(all_scales, np.float32)], **attributes)
    known = x.type if x is not None else None
    if known is None or len(sizes) == len(known.shape):
        return w.add("Resize", [x, None, None, w.host(sizes)], **attributes)
    if w.version >= 18:
        axes = tuple(range(2, 2 + len(sizes)))
        return w.add("Resize", [x, None, None, w.host(sizes)], axes=axes, **attributes)
    batch = w.add("Slice", [w.add("Shape", [x]), w.host((0,)), w.host((2,))])
    whole = w.add("Concat", [batch, w.host(sizes)], axis=0)
    return w.add("Resize", [x, None, None, whole], **attributes)


register(
    Op(
        name="resize",
        formula="y = A x Bᵀ per picture, A and B the matrices that weigh the pixels around the place, in x, "
        "of each pixel of y;  x [N,C,H,W], y [N,C,P,Q] with (P, Q) = sizes or ⌊scales · (H, W)⌋; any number "
        "of axes after C",
        gradient="gx = Aᵀ gy B",
        source="ONNX Resize-19; torch.nn.functional.interpolate; cubic: Keys 1981",
        shape=resize_shape,
        forward=resize_forward,
        backward=resize_backward,
        samples=resize_samples,
        errors=resize_errors,
        reads={"Resize": read_resize, "Upsample": read_upsample},
        writes=write_resize,
    )
)
