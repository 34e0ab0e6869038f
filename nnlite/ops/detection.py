"""What detectors need behind their networks: non-maximum suppression and RoiAlign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.device import to_host
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.one_axis import add_at
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

# ------------------------------------------------------------------------------------------- nms


def nms_shape(
    boxes: ArrayType,
    scores: ArrayType,
    max_per_class: int,
    iou_threshold: float,
    score_threshold: float | None,
    center: bool,
) -> ArrayType:
    fits = len(boxes.shape) == len(scores.shape) == 3 and boxes.shape[2] == 4
    if not fits or (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2]):
        raise ShapeError(
            f"nms: boxes {list(boxes.shape)} and scores {list(scores.shape)} must be [N,boxes,4] and "
            "[N,classes,boxes]"
        )
    if boxes.dtype.kind != "f" or scores.dtype.kind != "f":
        raise DTypeError(f"nms: boxes are {boxes.dtype}, scores {scores.dtype}; both must be floating-point")
    if not 0 <= iou_threshold <= 1:
        raise OperandError(f"nms: iou_threshold={iou_threshold} must be between 0 and 1")
    return ArrayType((-1, 3), np.dtype(np.int64))


def _corners(boxes: Array, center: bool) -> tuple[Array, Array, Array, Array]:
    """Lower and upper ends along both axes, whichever diagonal the boxes are given by."""
    if center:
        half = boxes[..., 2:] / 2
        low, high = boxes[..., :2] - half, boxes[..., :2] + half
    else:
        low, high = (
            np.minimum(boxes[..., :2], boxes[..., 2:]),
            np.maximum(boxes[..., :2], boxes[..., 2:]),
        )
    return low[..., 0], low[..., 1], high[..., 0], high[..., 1]


def _suppressed(corners: Sequence[Array], best: int, rest: Array, threshold: float) -> Array:
    """Which of ``rest`` overlap box ``best`` by more than ``threshold``."""
    a0, a1, b0, b1 = corners
    height = np.minimum(b0[best], b0[rest]) - np.maximum(a0[best], a0[rest])
    width = np.minimum(b1[best], b1[rest]) - np.maximum(a1[best], a1[rest])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    areas = (b0 - a0) * (b1 - a1)
    union = areas[best] + areas[rest] - shared
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return as_array(overlap > threshold)


def nms_forward(
    ctx: Context,
    boxes: Array,
    scores: Array,
    max_per_class: int,
    iou_threshold: float,
    score_threshold: float | None,
    center: bool,
) -> Array:
    # One box after the other decides about those that follow: that is no work for a GPU.
    given, boxes, scores = boxes, to_host(boxes), to_host(scores)
    chosen: list[tuple[int, int, int]] = []
    for image in range(boxes.shape[0]):
        corners = _corners(boxes[image], center)
        for label in range(scores.shape[1]):
            score = scores[image, label]
            order = np.argsort(-score, kind="stable")
            if score_threshold is not None:
                order = order[score[order] > score_threshold]
            for _ in range(int(max_per_class)):
                if not order.size:
                    break
                best, order = int(order[0]), order[1:]
                chosen.append((image, label, best))
                order = order[~_suppressed(corners, best, order, iou_threshold)]
    return np.asarray(chosen, np.int64, like=given).reshape(-1, 3)


_BOXES = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1]]])
_SCORES = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5], [0.1, 0.2, 0.9, 0.3, 0.4]]])
_PLAIN: dict[str, Any] = dict(max_per_class=3, iou_threshold=0.5, score_threshold=0.0, center=False)


def nms_samples() -> Iterator[Sample]:
    yield Sample(_BOXES, _SCORES, **_PLAIN)
    yield Sample(_BOXES, _SCORES, **_PLAIN | dict(score_threshold=0.45, max_per_class=1))
    yield Sample(_BOXES[..., [2, 3, 0, 1]], _SCORES, **_PLAIN | dict(iou_threshold=0.9))
    yield Sample(_BOXES + 1, _SCORES, **_PLAIN | dict(center=True, score_threshold=None))


def nms_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "must be .N,boxes,4", (1, 5, 3), (1, 2, 5), **_PLAIN)
    yield ErrorSample(ShapeError, "N,classes,boxes", (1, 5, 4), (1, 2, 6), **_PLAIN)
    yield ErrorSample(
        DTypeError, "floating-point", np.zeros((1, 1, 4), int), np.zeros((1, 1, 1), int), **_PLAIN
    )
    yield ErrorSample(
        OperandError, "between 0 and 1", (1, 5, 4), (1, 2, 5), **_PLAIN | dict(iou_threshold=2.0)
    )


def read_nms(n: OnnxNode) -> Any:
    return n.emit(
        "nms", *n.inputs[:2], max_per_class=n.scalar(2, 0), iou_threshold=n.scalar(3, 0.0),
        score_threshold=n.scalar(4), center=bool(n.attribute("center_point_box", 0)),
    )  # fmt: skip


def write_nms(w: OnnxWriter, node: Node) -> str:
    params = node.params
    numbers = [w.host([params["max_per_class"]]), w.host([params["iou_threshold"]], np.float32)]
    if params["score_threshold"] is not None:
        numbers.append(w.host([params["score_threshold"]], np.float32))
    return w.add("NonMaxSuppression", [*node.inputs, *numbers], center_point_box=int(params["center"]))


register(
    Op(
        name="nms",
        formula="y [count, 3] = (image, class, box): per image and class the boxes by falling score, above "
        "score_threshold, at most max_per_class, without those that overlap a better one by more than "
        "iou_threshold (intersection / union);  boxes [N,boxes,4] as two corners or centre and size",
        gradient="none: integers carry no gradient",
        source="ONNX NonMaxSuppression-11; torchvision.ops.nms",
        shape=nms_shape,
        forward=nms_forward,
        backward=None,
        samples=nms_samples,
        errors=nms_errors,
        reads={"NonMaxSuppression": read_nms},
        writes=write_nms,
    )
)

# ------------------------------------------------------------------------------------- roi_align

MAX_SAMPLES = 1 << 14
"""Sampling places along one side of a region; more are no region of a picture."""


def roi_align_shape(
    x: ArrayType,
    rois: ArrayType,
    batch: ArrayType,
    output_size: tuple[int, int],
    scale: float,
    sampling: int,
    mode: str,
    half_pixel: bool,
) -> ArrayType:
    if len(x.shape) != 4 or 0 in x.shape[2:]:
        raise ShapeError(f"roi_align: x has shape {list(x.shape)} but must be [N,C,H,W]")
    if len(rois.shape) != 2 or rois.shape[1] != 4 or batch.shape != rois.shape[:1]:
        raise ShapeError(
            f"roi_align: rois {list(rois.shape)} and batch {list(batch.shape)} must be [rois,4] and [rois]"
        )
    if x.dtype.kind != "f" or rois.dtype != x.dtype or batch.dtype.kind not in "iu":
        raise DTypeError(
            f"roi_align: x is {x.dtype}, rois {rois.dtype}, batch {batch.dtype}; the first two must be of "
            "one floating type, batch of integers"
        )
    if min(output_size) < 1 or sampling < 0 or mode not in ("avg", "max"):
        raise OperandError(
            f"roi_align: output_size={output_size} must be at least 1, sampling={sampling} at least 0, "
            f"mode={mode!r} 'avg' or 'max'"
        )
    return ArrayType((rois.shape[0], x.shape[1], *output_size), x.dtype)


def _taps(start: Any, length: Any, size: int, out: int, sampling: int) -> tuple[Array, Array]:
    """Along one axis: indices and weights [out, samples, 2] of the two elements around every place."""
    count = sampling or max(int(np.ceil(length / out)), 0)
    if not np.isfinite(length) or out * count > MAX_SAMPLES:
        raise OperandError(f"roi_align: a region {length:g} elements long is beyond {MAX_SAMPLES}")
    step = length / out
    at = start + np.arange(out)[:, None] * step + (np.arange(count) + 0.5) * step / max(count, 1)
    outside = ~((at >= -1) & (at <= size))
    at = np.clip(np.where(outside, 0, at), 0, size - 1)
    low = np.minimum(at.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    weights = np.stack([1 - (at - low), at - low], -1) * ~outside[..., None]
    return np.stack([low, high], -1), weights


def _regions(x: Array, rois: Array, batch: Array, params: Any) -> Iterator[tuple[int, Any, Any]]:
    """For each region its picture and the taps along both axes."""
    offset = x.dtype.type(0.5 if params["half_pixel"] else 0)
    bounds = to_host(rois) * x.dtype.type(params["scale"]) - offset
    for (x0, y0, x1, y1), image in zip(bounds, to_host(batch).tolist(), strict=True):
        if not 0 <= image < x.shape[0]:
            raise OperandError(f"roi_align: picture {image} is out of range for a batch of {x.shape[0]}")
        least = -np.inf if params["half_pixel"] else 1
        sides = np.maximum(y1 - y0, least), np.maximum(x1 - x0, least)
        taps = [
            _taps(start, side, size, out, params["sampling"])
            for start, side, size, out in zip(
                (y0, x0), sides, x.shape[2:], params["output_size"], strict=True
            )
        ]
        rows, columns = (tuple(np.asarray(part, like=x) for part in along) for along in taps)
        yield image, rows, columns


def _matrix(taps: tuple[Array, Array], size: int, dtype: Any) -> Array:
    """[out, size]: row p averages the places of output p. Both axes together average the region."""
    where, weights = taps
    out, count = weights.shape[:2]
    matrix = np.zeros((out, size), like=weights)
    add_at(matrix, (np.arange(out, like=where)[:, None, None], where), weights)
    return as_array(matrix / max(count, 1), dtype)


def _weighted(x: Array, rows: Any, columns: Any) -> Array:
    """[C, P, samples, Q, samples]: every element around every place times its weight, for the maximum."""
    where = rows[0].reshape(rows[0].shape[0], -1), columns[0].reshape(columns[0].shape[0], -1)
    weights = rows[1].reshape(where[0].shape)[:, :, None, None] * columns[1].reshape(where[1].shape)
    return as_array(x[:, where[0][:, :, None, None], where[1]] * weights.astype(x.dtype))


def _highest(values: Array) -> Array:
    """[C, P, Q]: which of all samples is the highest."""
    moved = values.transpose(0, 1, 3, 2, 4)
    return as_array(moved.reshape(*moved.shape[:3], -1).argmax(-1))


def roi_align_forward(ctx: Context, x: Array, rois: Array, batch: Array, **params: Any) -> Array:
    y = np.zeros((rois.shape[0], x.shape[1], *params["output_size"]), x.dtype, like=x)
    for i, (image, rows, columns) in enumerate(_regions(x, rois, batch, params)):
        if params["mode"] == "avg":
            left, right = _matrix(rows, x.shape[2], x.dtype), _matrix(columns, x.shape[3], x.dtype)
            y[i] = left @ x[image] @ right.T
        elif rows[0].size and columns[0].size:
            y[i] = _weighted(x[image], rows, columns).max((2, 4))
    ctx.save(x, rois, batch)
    return y


def roi_align_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, rois, batch = ctx.saved
    assert x is not None and rois is not None and batch is not None
    gx = np.zeros(x.shape, gy.dtype, like=gy)
    for i, (image, rows, columns) in enumerate(_regions(x, rois, batch, ctx.params)):
        if ctx.params["mode"] == "avg":
            left, right = _matrix(rows, x.shape[2], gy.dtype), _matrix(columns, x.shape[3], gy.dtype)
            gx[image] += left.T @ gy[i] @ right
        elif rows[0].size and columns[0].size:
            best = _highest(_weighted(x[image], rows, columns))
            across = columns[0].shape[1] * 2
            (row_at, row_weight), (column_at, column_weight) = (
                (where.reshape(where.shape[0], -1), weights.reshape(where.shape[0], -1))
                for where, weights in (rows, columns)
            )
            p, q = np.arange(best.shape[1], like=best)[:, None], np.arange(best.shape[2], like=best)
            tap = best // across, best % across
            weight = row_weight[p, tap[0]] * column_weight[q, tap[1]]
            channel = np.arange(x.shape[1], like=x)[:, None, None]
            add_at(gx[image], (channel, row_at[p, tap[0]], column_at[q, tap[1]]), gy[i] * weight)
    return gx, None, None


_ROIS = np.array([[0.3, 0.4, 4.7, 5.2], [1.1, 2.2, 3.3, 3.9], [-1.0, -1.5, 9.0, 3.0]])
_ALIGN: dict[str, Any] = dict(output_size=(2, 3), scale=1.0, sampling=2, mode="avg", half_pixel=True)


def roi_align_samples() -> Iterator[Sample]:
    batch = np.array([0, 1, 1])
    yield Sample((2, 3, 6, 5), _ROIS, batch, **_ALIGN)
    yield Sample((2, 3, 6, 5), _ROIS * 2, batch, **_ALIGN | dict(sampling=0, scale=0.5, half_pixel=False))
    yield Sample((2, 3, 6, 5), _ROIS, batch, **_ALIGN | dict(mode="max", sampling=0))


def roi_align_errors() -> Iterator[ErrorSample]:
    x, batch = (2, 3, 6, 5), np.array([0, 1, 1])
    yield ErrorSample(ShapeError, "must be .N,C,H,W", (3, 6, 5), _ROIS, batch, **_ALIGN)
    yield ErrorSample(ShapeError, "rois,4", x, (3, 5), batch, **_ALIGN)
    yield ErrorSample(DTypeError, "batch of integers", x, _ROIS, (3,), **_ALIGN)
    yield ErrorSample(OperandError, "at least 1", x, _ROIS, batch, **_ALIGN | dict(output_size=(0, 1)))
    yield ErrorSample(OperandError, "'avg' or 'max'", x, _ROIS, batch, **_ALIGN | dict(mode="min"))
    yield ErrorSample(OperandError, "out of range for a batch", x, _ROIS, batch + 1, **_ALIGN)
    yield ErrorSample(OperandError, "is beyond", x, _ROIS * 1e9, batch, **_ALIGN | dict(sampling=0))


def read_roi_align(n: OnnxNode) -> Any:
    mode = n.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in ("half_pixel", "output_half_pixel"):
        raise n.refuse(f"coordinate_transformation_mode {mode!r} is not known")
    size = n.attribute("output_height", 1), n.attribute("output_width", 1)
    return n.emit(
        "roi_align", *n.inputs, output_size=size, scale=n.attribute("spatial_scale", 1.0),
        sampling=n.attribute("sampling_ratio", 0), mode=n.attribute("mode", "avg"),
        half_pixel=mode == "half_pixel" and n.version >= 16,
    )  # fmt: skip


def write_roi_align(w: OnnxWriter, node: Node) -> str:
    params = node.params
    half = {"coordinate_transformation_mode": "half_pixel" if params["half_pixel"] else "output_half_pixel"}
    if w.version < 16:
        if params["half_pixel"]:
            raise OperandError("roi_align: half_pixel needs operator set 16; export with opset=16")
        half = {}
    height, width = params["output_size"]
    return w.add(
        "RoiAlign", node.inputs, output_height=height, output_width=width, mode=params["mode"],
        sampling_ratio=params["sampling"], spatial_scale=float(params["scale"]), **half,
    )  # fmt: skip


register(
    Op(
        name="roi_align",
        formula="y[r,c,p,q] = mean (or maximum) over sampling² places of bin p,q of region r of "
        "x[batch[r],c] between its elements; regions (x1, y1, x2, y2) times scale, less 0.5 with half_pixel; "
        "sampling 0: as many as the bin has elements;  x [N,C,H,W], rois [R,4], batch [R], y [R,C,P,Q]",
        gradient="gx: gy spread over the elements around each place by their weights; none for the regions",
        source="He et al. 2017, arXiv:1703.06870; ONNX RoiAlign-22; torchvision.ops.roi_align",
        shape=roi_align_shape,
        forward=roi_align_forward,
        backward=roi_align_backward,
        samples=roi_align_samples,
        errors=roi_align_errors,
        reads={"RoiAlign": read_roi_align},
        writes=write_roi_align,
    )
)
