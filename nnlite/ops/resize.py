"""Resizing pictures: nearest, linear and cubic, with every coordinate rule of ONNX.

Resizing is linear and separable: along each axis a pixel of the result is a weighted sum of a few of the
input's, which ``resize_taps.py`` finds by the rule. The gradient has the same weights, transposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor
from typing import Any, NamedTuple

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.geometry import ResizeGeometry
from nnlite.kernels import launch
from nnlite.layout import Array, channels_inside, channels_second, is_channels_last
from nnlite.node import Node
from nnlite.ops.one_axis import OneAxis
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
from nnlite.ops.resize_taps import (
    COORDINATES,
    MODES,
    ROUNDINGS,
    Along,
    Rule,
    Taps,
    nearest_pixels,
    outside_of,
    resize_taps,
    same_taps,
    transposed_taps,
)

POLICIES = ("stretch", "not_larger", "not_smaller")


def _weighed(x: Array, taps: dict[int, Taps]) -> Array:
    """``x`` with each axis in ``taps`` replaced by the weighed sums; in the memory order that it has."""
    if x.ndim == 4 and set(taps) <= {2, 3} and is_channels_last(x):
        return _resized(x, *(taps.get(axis) or same_taps(x.shape[axis]) for axis in (2, 3)))
    for axis, along in taps.items():
        seen = OneAxis(x, axis)
        # As pictures [outer, inner, size, 1]; where nothing lies further inside, as pictures of one row.
        narrow = seen.blocks.shape[2] == 1
        picture = seen.blocks[:, None] if narrow else seen.blocks[:, :, None]
        pair = (same_taps(1), along) if narrow else (along, same_taps(1))
        y = channels_inside(_resized(channels_second(picture), *pair))
        x = seen.picture(y.reshape(len(seen.blocks), -1, seen.blocks.shape[2]))
    return x


def _resized(x: Array, rows: Taps, columns: Taps) -> Array:
    N, C, H, W = x.shape
    P, Q = len(rows.start) - 1, len(columns.start) - 1
    y = memory.empty((N, C, P, Q), x.dtype, like=x)
    if y.size:
        geometry = ResizeGeometry(N, C, H, W, P, Q, len(rows.source), len(columns.source))
        launch("resize", geometry, x, *rows.beside(x), *columns.beside(x), y)
    return y


class Target(NamedTuple):
    """What a picture is resized to: sizes or scales of some axes, and which part of them."""

    sizes: Sequence[int] | None
    scales: Sequence[float] | None
    axes: tuple[int, ...] | None = None
    policy: str = "stretch"
    roi: Sequence[float] | None = None


def _axes(target: Target, rank: int, count: int) -> tuple[int, ...]:
    """The axes that are resized: those named, or those after N and C, or all."""
    if target.axes is not None:
        if not all(-rank <= axis < rank for axis in target.axes):
            raise ShapeError(f"resize: axes={target.axes} are out of range for {rank} axes")
        axes = tuple(axis % rank for axis in target.axes)
    else:
        axes = tuple(range(rank)) if count == rank else tuple(range(2, rank))
    if len(axes) != count or not axes:
        raise ShapeError(
            f"resize: {count} sizes or scales are given for axes {list(axes)} of {rank}; give one for each "
            "axis after N and C, or one for every axis"
        )
    return axes


def _plan(shape: tuple[int, ...], target: Target) -> list[Along]:
    """What happens along each axis."""
    sizes, scales = target.sizes, target.scales
    if (sizes is None) == (scales is None):
        raise OperandError("resize: give either sizes or scales")
    given: Sequence[float] = sizes if sizes is not None else scales  # type: ignore[assignment]
    axes = _axes(target, len(shape), len(given))
    before = [shape[axis] for axis in axes]
    if sizes is None:
        ratios = [float(s) for s in given]
        if not min(ratios) > 0:
            raise OperandError(f"resize: scales={ratios} must be above 0")
        outs = [floor(size * ratio) for size, ratio in zip(before, ratios, strict=True)]
    else:
        outs = [int(n) for n in given]
        ratios = [out / max(size, 1) for out, size in zip(outs, before, strict=True)]
        if target.policy != "stretch":
            chosen = min(ratios) if target.policy == "not_larger" else max(ratios)
            ratios = [chosen] * len(axes)
            outs = [floor(size * chosen + 0.5) for size in before]
    if min(outs) < 1 or 0 in before:
        raise ShapeError(f"resize: x {list(shape)} to sizes {outs} leaves nothing; sizes must be at least 1")
    crops: list[Any] = [None] * len(axes)
    if target.roi is not None:
        if len(target.roi) != 2 * len(axes):
            raise ShapeError(f"resize: roi={list(target.roi)} must be {len(axes)} starts and as many ends")
        bounds = [float(bound) for bound in target.roi]
        crops = list(zip(bounds[: len(axes)], bounds[len(axes) :], strict=True))
    return [Along(*step) for step in zip(axes, before, outs, ratios, crops, strict=True)]


def resize_shape(
    x: ArrayType,
    sizes: Sequence[int] | None,
    scales: Sequence[float] | None,
    axes: tuple[int, ...] | None = None,
    policy: str = "stretch",
    roi: Sequence[float] | None = None,
    outside: float = 0.0,
    **rule: Any,
) -> ArrayType:
    named = Rule(**rule)
    for value, known in (
        (named.mode, MODES), (named.coordinates, COORDINATES), (named.nearest, tuple(ROUNDINGS)),
        (policy, POLICIES),
    ):  # fmt: skip
        if value not in known:
            raise OperandError(f"resize: {value!r} must be one of {', '.join(known)}")
    if x.dtype.kind not in ("fiu" if named.mode == "nearest" else "f"):
        raise DTypeError(f"resize: x is {x.dtype} but must be floating-point; convert with astype")
    if named.antialias and named.mode == "nearest":
        raise OperandError("resize: antialias needs mode linear or cubic")
    if (named.coordinates == "tf_crop_and_resize") != (roi is not None):
        raise OperandError("resize: a roi goes with the coordinates tf_crop_and_resize, and they with a roi")
    shape = list(x.shape)
    for along in _plan(x.shape, Target(sizes, scales, axes, policy, roi)):
        shape[along.axis] = along.out
    return ArrayType(tuple(shape), x.dtype)


def resize_forward(
    ctx: Context,
    x: Array,
    sizes: Sequence[int] | None,
    scales: Sequence[float] | None,
    axes: tuple[int, ...] | None = None,
    policy: str = "stretch",
    roi: Sequence[float] | None = None,
    outside: float = 0.0,
    **rule: Any,
) -> Array:
    named = Rule(**rule)
    steps = []
    for along in _plan(x.shape, Target(sizes, scales, axes, policy, roi)):
        moved = along.crop is not None or named.coordinates == "tf_half_pixel_for_nn"
        if along.out != along.size or along.scale != 1 or moved:
            steps.append(along)
    if x.dtype.kind == "f":
        y = _weighed(x, {along.axis: resize_taps(named, along) for along in steps})
    else:  # integers have no weights, only nearest neighbours
        y = x
        for along in steps:
            y = OneAxis(y, along.axis).take(nearest_pixels(named, along))
    if roi is not None:
        y = y.copy("K")
        for along in steps:
            np.moveaxis(y, along.axis, 0)[np.asarray(outside_of(named, along), like=y)] = outside
    ctx.values["rule"], ctx.values["steps"] = named, steps
    return y


def resize_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    steps = reversed(ctx.values["steps"])
    return (_weighed(gy, {along.axis: transposed_taps(ctx.values["rule"], along) for along in steps}),)


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
    yield Sample((1, 4, 3, 2), sizes=(5, 7), scales=None, axes=(2, 1), mode="linear")
    yield Sample((2, 3, 4), sizes=None, scales=(1.0, 2.0, 0.5), mode="nearest", coordinates="asymmetric")
    for policy in ("not_larger", "not_smaller"):
        yield Sample((1, 2, 4, 6), sizes=(7, 8), scales=None, policy=policy, mode="linear")
    crop = dict[str, Any](coordinates="tf_crop_and_resize", roi=(0.3, -0.2, 0.9, 0.7), outside=3.0)
    yield Sample((1, 2, 5, 4), sizes=(3, 6), scales=None, mode="linear", **crop)
    yield Sample((1, 2, 5, 4), sizes=(1, 6), scales=None, mode="nearest", **crop)


def resize_errors() -> Iterator[ErrorSample]:
    x = (1, 2, 4, 4)
    yield ErrorSample(OperandError, "either sizes or scales", x, sizes=None, scales=None)
    yield ErrorSample(OperandError, "'area' must be one of", x, sizes=(2, 2), scales=None, mode="area")
    yield ErrorSample(OperandError, "above 0", x, sizes=None, scales=(0.0, 1.0))
    yield ErrorSample(ShapeError, "leaves nothing", x, sizes=None, scales=(0.1, 1.0))
    yield ErrorSample(ShapeError, "leaves nothing", x, sizes=(0, 3), scales=None)
    yield ErrorSample(ShapeError, "one for each axis", x, sizes=(3,), scales=None)
    yield ErrorSample(ShapeError, "out of range", x, sizes=(3,), scales=None, axes=(4,))
    yield ErrorSample(OperandError, "'larger' must be one of", x, sizes=(3, 3), scales=None, policy="larger")
    yield ErrorSample(OperandError, "a roi goes with", x, sizes=(3, 3), scales=None, roi=(0.0, 0.0, 1.0, 1.0))
    crop = dict[str, Any](sizes=(3, 3), scales=None, coordinates="tf_crop_and_resize")
    yield ErrorSample(ShapeError, "2 starts and as many ends", x, **crop, roi=(0.0, 1.0))
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
    coordinates = n.attribute("coordinate_transformation_mode", "half_pixel")
    axes, sizes = n.attribute("axes"), _given(n, 3)
    outside = n.attribute("extrapolation_value", 0.0)
    crop = dict(roi=n.host(1), outside=outside) if coordinates == "tf_crop_and_resize" else {}
    return n.emit(
        "resize", n.inputs[0], sizes=sizes, scales=_given(n, 2) if sizes is None else None, mode=mode,
        axes=None if axes is None else tuple(axes), coordinates=coordinates,
        policy=n.attribute("keep_aspect_ratio_policy", "stretch"),
        nearest=n.attribute("nearest_mode", "round_prefer_floor"),
        antialias=bool(n.attribute("antialias", 0)), cubic_a=n.attribute("cubic_coeff_a", -0.75),
        exclude_outside=bool(n.attribute("exclude_outside", 0)), **crop,
    )  # fmt: skip


def read_upsample(n: OnnxNode) -> Any:
    """Upsample, and Resize of operator set 10: asymmetric coordinates."""
    mode = n.attribute("mode", "nearest")
    if n.version < 7 and mode == "bilinear":
        mode = "linear"
    if mode not in ("nearest", "linear"):
        raise n.refuse(f"mode {mode!r} is not supported")
    scales = n.host(1) if n.version >= 9 else n.attribute("scales")
    if n.version < 7:
        scales = (1.0, 1.0, n.attribute("height_scale"), n.attribute("width_scale"))
    rule = dict[str, Any](mode=mode, coordinates="asymmetric", nearest="simple")
    return n.emit("resize", n.inputs[0], sizes=None, scales=scales, **rule)


def write_resize(w: OnnxWriter, node: Node) -> str:
    (x,), params = node.inputs, dict(node.params)
    target = Target(*(params.pop(name, None) for name in ("sizes", "scales", "axes")))
    policy, roi, outside = (
        params.pop("policy", "stretch"),
        params.pop("roi", None),
        params.pop("outside", 0.0),
    )
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
    newer = {
        "antialias": int(rule.antialias),
        "keep_aspect_ratio_policy": None if policy == "stretch" else policy,
    }
    newer["axes"] = target.axes
    for name, value in newer.items():
        if value:
            if w.version < 18:
                raise OperandError(f"resize: ONNX has {name} from operator set 18 on; export with opset=18")
            attributes[name] = value
    if roi is not None:
        attributes["extrapolation_value"] = float(outside)
    known = x.type if x is not None else None
    given = target.sizes if target.sizes is not None else target.scales
    partial = target.axes is None and known is not None and len(given or ()) != len(known.shape)
    if partial and target.sizes is not None and w.version >= 18:
        partial, attributes["axes"] = False, tuple(range(2, 2 + len(target.sizes)))
    if partial and roi is not None:
        starts, ends = roi[: len(roi) // 2], roi[len(roi) // 2 :]
        roi = (0.0, 0.0, *starts, 1.0, 1.0, *ends)
    region = None if roi is None else w.host(roi, np.float32)
    if target.scales is not None:
        scales = (1.0, 1.0, *target.scales) if partial else target.scales
        return w.add("Resize", [x, region, w.host(scales, np.float32)], **attributes)
    sizes: Any = w.host(target.sizes)
    if partial:
        batch = w.add("Slice", [w.add("Shape", [x]), w.host((0,)), w.host((2,))])
        sizes = w.add("Concat", [batch, sizes], axis=0)
    return w.add("Resize", [x, region, None, sizes], **attributes)


register(
    Op(
        name="resize",
        formula="y = A x Bᵀ per picture, A and B the matrices that weigh the pixels around the place, in x, "
        "of each pixel of y;  x [N,C,H,W], y [N,C,P,Q] with (P, Q) = sizes or ⌊scales · (H, W)⌋; any number "
        "of axes after C, or those named; roi: the part that is resized, ``outside`` beyond the picture",
        gradient="gx = Aᵀ gy B",
        source="ONNX Resize-19; torch.nn.functional.interpolate; cubic: Keys 1981",
        shape=resize_shape,
        forward=resize_forward,
        backward=resize_backward,
        samples=resize_samples,
        errors=resize_errors,
        reads={"Resize": read_resize, "Upsample": read_upsample},
        writes=write_resize,
        kernels=("resize",),
    )
)
