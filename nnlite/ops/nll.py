"""Negative log-likelihood of labels, with class weights and labels to ignore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.loss import REDUCTIONS
from nnlite.ops.one_axis import places_along
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


def nll_loss_shape(
    x: ArrayType, labels: ArrayType, weight: ArrayType | None, ignore_index: int, reduction: str
) -> ArrayType:
    if len(x.shape) < 2 or labels.shape != (x.shape[0], *x.shape[2:]):
        raise ShapeError(
            f"nll_loss: x {list(x.shape)} must be [N,classes,...] and labels {list(labels.shape)} [N,...]"
        )
    if x.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise DTypeError(
            f"nll_loss: x is {x.dtype} and labels {labels.dtype}; they must be floating-point and integers"
        )
    if weight is not None and (weight.shape != x.shape[1:2] or weight.dtype != x.dtype):
        raise ShapeError(f"nll_loss: weight {weight} must be {x.dtype}[{x.shape[1]}], one for each class")
    if reduction not in REDUCTIONS:
        raise OperandError(f"nll_loss: reduction={reduction!r} must be one of {', '.join(REDUCTIONS)}")
    return ArrayType(labels.shape if reduction == "none" else (), x.dtype)


def _weights(x: Array, labels: Array, weight: Array | None, ignore_index: int) -> tuple[Array, Array]:
    """Labels with 0 for those ignored, and the weight of each place, 0 where it is ignored."""
    counted = labels != ignore_index
    safe = np.where(counted, labels, 0)
    classes = x.shape[1]
    if safe.size and not 0 <= safe.min() <= safe.max() < classes:
        bad = int(safe.min()) if safe.min() < 0 else int(safe.max())
        raise OperandError(f"nll_loss: label {bad} is not one of the {classes} classes 0..{classes - 1}")
    places = counted.astype(x.dtype) if weight is None else np.where(counted, weight[safe], 0)
    return safe, as_array(places, x.dtype)


def nll_loss_forward(
    ctx: Context, x: Array, labels: Array, weight: Array | None, ignore_index: int, reduction: str
) -> Array:
    safe, places = _weights(x, labels, weight, ignore_index)
    losses = -places * np.take_along_axis(x, safe[:, None], 1)[:, 0]
    total = places.sum() if reduction == "mean" else np.ones_like(x, x.dtype, "C", shape=())
    ctx.save(safe, as_array(places / total if total else places * np.nan))
    ctx.values["x_shape"] = x.shape
    if reduction == "none":
        return as_array(losses, x.dtype)
    with np.errstate(invalid="ignore"):  # nothing but ignored labels: 0 / 0, as in PyTorch
        return as_array(losses.sum() / total, x.dtype)


def nll_loss_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    safe, places = ctx.saved
    assert safe is not None and places is not None
    gx = np.zeros(ctx.values["x_shape"], gy.dtype, like=gy)
    gx[places_along(safe[:, None], 1)] = (-gy * places)[:, None].astype(gy.dtype)
    return gx, None, None  # class weights are given, not learned


_LABELS = np.array([0, 4, 2])
_WEIGHT = np.array([0.5, 1.0, 2.0, 1.5, 0.25])


def nll_loss_samples() -> Iterator[Sample]:
    for reduction in REDUCTIONS:
        params = dict[str, Any](ignore_index=-100, reduction=reduction)
        yield Sample((3, 5), _LABELS, None, **params)
        yield Sample((3, 5), _LABELS, _WEIGHT, **params)
    pixels = np.array([[[0, 1], [-1, 2]]])
    yield Sample((1, 3, 2, 2), pixels, None, ignore_index=-1, reduction="mean")


def nll_loss_errors() -> Iterator[ErrorSample]:
    plain = dict[str, Any](ignore_index=-100, reduction="mean")
    yield ErrorSample(OperandError, "label 5 is not one of", (2, 5), np.array([0, 5]), None, **plain)
    yield ErrorSample(ShapeError, "must be .N,classes", (3, 5), np.array([0, 1]), None, **plain)
    yield ErrorSample(ShapeError, "one for each class", (3, 5), _LABELS, (4,), **plain)
    yield ErrorSample(DTypeError, "integers", (2, 5), (2,), None, **plain)
    yield ErrorSample(OperandError, "reduction='max'", (3, 5), _LABELS, None, **plain | dict(reduction="max"))


def read_nll_loss(n: OnnxNode) -> Any:
    weight = n.inputs[2] if len(n.inputs) > 2 else None
    ignored = n.attribute("ignore_index")
    return n.emit(
        "nll_loss", *n.inputs[:2], weight, reduction=n.attribute("reduction", "mean"),
        ignore_index=-100 if ignored is None else ignored,
    )  # fmt: skip


def write_nll_loss(w: OnnxWriter, node: Node) -> str:
    attributes = {"reduction": node.params["reduction"], "ignore_index": node.params["ignore_index"]}
    return w.add("NegativeLogLikelihoodLoss", node.inputs, **attributes)


register(
    Op(
        name="nll_loss",
        formula="loss[n,…] = -weight[label] · x[n,label,…], 0 where the label is ignore_index;  x "
        "[N,classes,…] of log-probabilities, labels [N,…], weight [classes] or absent (1); mean divides "
        "by the sum of the weights",
        gradient="gx[n,label,…] = -weight[label] · gy (/ Σ weights for the mean), 0 elsewhere; none for "
        "the weight",
        source="ONNX NegativeLogLikelihoodLoss-22; torch.nn.functional.nll_loss",
        shape=nll_loss_shape,
        forward=nll_loss_forward,
        backward=nll_loss_backward,
        samples=nll_loss_samples,
        errors=nll_loss_errors,
        reads={"NegativeLogLikelihoodLoss": read_nll_loss},
        writes=write_nll_loss,
    )
)
