"""Training-time operations: cross-entropy and dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.kernels import launch
from nnlite.layout import Array, as_array, channels_last, contiguous, rows
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
from nnlite.ops.softmax import lines

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy_shape(
    logits: ArrayType,
    labels: ArrayType,
    weight: ArrayType | None = None,
    *,
    reduction: str,
    label_smoothing: float,
    ignore_index: int = -100,
) -> ArrayType:
    if len(logits.shape) < 2 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ShapeError(
            f"cross_entropy: logits {list(logits.shape)} must be [N,classes,...] and labels "
            f"{list(labels.shape)} must be [N,...]"
        )
    if logits.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: logits are {logits.dtype} and labels {labels.dtype}; "
            "they must be floating-point and integers"
        )
    if logits.shape[1] == 0:
        raise ShapeError(f"cross_entropy: logits {list(logits.shape)} have no classes")
    if weight is not None and (weight.shape != logits.shape[1:2] or weight.dtype != logits.dtype):
        raise ShapeError(
            f"cross_entropy: weight {weight} must be {logits.dtype}[{logits.shape[1]}], one for each class"
        )
    if reduction not in REDUCTIONS:
        raise OperandError(f"cross_entropy: reduction={reduction!r} must be one of {', '.join(REDUCTIONS)}")
    if not 0 <= label_smoothing < 1:
        raise OperandError(f"cross_entropy: label_smoothing={label_smoothing} must be in [0, 1)")
    if reduction == "mean" and 0 in labels.shape:
        raise ShapeError("cross_entropy: the mean of an empty batch does not exist")
    return ArrayType(labels.shape if reduction == "none" else (), logits.dtype)


def _counted(labels: Array, classes: int, ignore_index: int) -> Array:
    """Labels as the kernel takes them: -1 where they do not count."""
    flat = labels.reshape(-1).astype(np.int64)
    ignored = flat == ignore_index
    flat[ignored] = 0
    if flat.size and not 0 <= flat.min() <= flat.max() < classes:
        bad = int(flat.min()) if flat.min() < 0 else int(flat.max())
        raise OperandError(f"cross_entropy: label {bad} is not one of the {classes} classes 0..{classes - 1}")
    flat[ignored] = -1
    return as_array(flat)


def cross_entropy_forward(
    ctx: Context,
    logits: Array,
    labels: Array,
    weight: Array | None = None,
    *,
    reduction: str,
    label_smoothing: float,
    ignore_index: int = -100,
) -> Array:
    flat = _counted(labels, logits.shape[1], ignore_index)
    counted = flat >= 0
    x = rows(channels_last(logits))
    scale = 1.0
    if reduction == "mean":
        total = float(counted.sum() if weight is None else np.where(counted, weight[flat], 0).sum())
        scale = 1 / total if total else np.nan  # nothing but ignored labels: 0 / 0, as in PyTorch
    losses: Array = np.empty(flat.shape, logits.dtype, like=logits)
    gradient = memory.empty(logits.shape, logits.dtype, like=logits) if ctx.recording else None
    options = np.array([label_smoothing, scale], logits.dtype)
    given = None if weight is None else contiguous(weight)
    launch(
        "cross_entropy", lines(*x.shape), x, flat, given, options,
        losses, None if gradient is None else rows(gradient),
    )  # fmt: skip
    ctx.save(gradient)
    if reduction == "none":
        return as_array(losses.reshape(labels.shape))
    return as_array(losses.sum(dtype=np.float64) * scale, logits.dtype)


def cross_entropy_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    gradient = ctx.saved[0]
    if ctx.params["reduction"] == "none":
        gradient = gradient * np.expand_dims(gy, 1)
    elif gy != 1:  # the forward pass scaled it for the most usual case, a loss that backward starts from
        gradient = gradient * gy
    return (gradient, None, None)[: len(needs)]  # class weights are given, not learned


def cross_entropy_samples() -> Iterator[Sample]:
    labels = np.array([0, 4, 2])
    for reduction in REDUCTIONS:
        for smoothing in (0.0, 0.1):
            yield Sample((3, 5), labels, reduction=reduction, label_smoothing=smoothing, onnx=not smoothing)
            weighted = dict[str, Any](reduction=reduction, label_smoothing=smoothing, onnx=not smoothing)
            yield Sample((3, 5), labels, np.array([0.5, 1.0, 2.0, 1.5, 0.25]), **weighted)
    pixels = np.array([[[0, 1], [-1, 2]]])
    smooth = dict[str, Any](reduction="mean", label_smoothing=0.1, ignore_index=-1, onnx=False)
    yield Sample((1, 3, 2, 2), pixels, None, **smooth)
    yield Sample((1, 3, 2, 2), pixels, None, reduction="sum", label_smoothing=0.0, ignore_index=-1)


def cross_entropy_errors() -> Iterator[ErrorSample]:
    plain = dict(reduction="mean", label_smoothing=0.0)
    labels = np.array([0, 1])
    yield ErrorSample(OperandError, "label 5 is not one of the 5 classes", (2, 5), np.array([0, 5]), **plain)
    yield ErrorSample(OperandError, "label -1", (2, 5), np.array([0, -1]), **plain)
    yield ErrorSample(ShapeError, "must be .N,classes", (2, 5, 1), labels, **plain)
    yield ErrorSample(ShapeError, "must be .N.", (3, 5), labels, **plain)
    yield ErrorSample(ShapeError, "one for each class", (2, 5), labels, (4,), **plain)
    yield ErrorSample(ShapeError, "no classes", (2, 0), labels, **plain)
    yield ErrorSample(ShapeError, "empty batch", (0, 5), np.zeros(0, int), **plain)
    yield ErrorSample(DTypeError, "integers", (2, 5), (2,), **plain)
    yield ErrorSample(OperandError, "reduction", (2, 5), labels, **plain | dict(reduction="max"))
    yield ErrorSample(OperandError, "label_smoothing", (2, 5), labels, **plain | dict(label_smoothing=1.0))


def write_cross_entropy(w: OnnxWriter, node: Node) -> str:
    if node.params["label_smoothing"]:
        raise OperandError("cross_entropy: ONNX has no label_smoothing; export the model without its loss")
    ignored = node.params.get("ignore_index", -100)
    return w.add(
        "SoftmaxCrossEntropyLoss", node.inputs, reduction=node.params["reduction"], ignore_index=ignored
    )


def read_cross_entropy(n: OnnxNode) -> Any:
    reduction, ignored = n.attribute("reduction", "mean"), n.attribute("ignore_index")
    weight = n.inputs[2] if len(n.inputs) > 2 else None
    index = -100 if ignored is None else ignored
    if n.outputs < 2:
        options = dict[str, Any](reduction=reduction, label_smoothing=0.0, ignore_index=index)
        return n.emit("cross_entropy", *n.inputs[:2], weight, **options)
    logs = n.emit("log_softmax", n.inputs[0], axis=1)
    return n.emit("nll_loss", logs, n.inputs[1], weight, ignore_index=index, reduction=reduction), logs


register(
    Op(
        name="cross_entropy",
        formula="loss[n,…] = -Σ_k t[n,k,…] · weight[k] · ln softmax(logits)[n,k,…], 0 where the label is "
        "ignore_index; t = 1 - label_smoothing at the label plus label_smoothing / classes everywhere;  "
        "logits [N,classes,…], labels [N,…], weight [classes] or absent (1); reduction mean (divided by the "
        "sum of the labels' weights), sum or none",
        gradient="glogits = (softmax(logits) · Σ_k t · weight - t · weight) · gy (/ Σ weights for the mean); "
        "none for labels and weight",
        source="torch.nn.functional.cross_entropy; ONNX SoftmaxCrossEntropyLoss-13; label smoothing: "
        "Szegedy et al. 2016, arXiv:1512.00567",
        shape=cross_entropy_shape,
        forward=cross_entropy_forward,
        backward=cross_entropy_backward,
        samples=cross_entropy_samples,
        errors=cross_entropy_errors,
        reads={"SoftmaxCrossEntropyLoss": read_cross_entropy},
        writes=write_cross_entropy,
        kernels=("cross_entropy",),
    )
)

# --------------------------------------------------------------------------------------- dropout


def dropout_shape(x: ArrayType, p: float, seed: int | None) -> ArrayType:
    if x.dtype.kind != "f":
        raise DTypeError(f"dropout: x is {x.dtype} but must be floating-point")
    if not 0 <= p < 1:
        raise OperandError(f"dropout: p={p} must be in [0, 1)")
    return x


def dropout_forward(ctx: Context, x: Array, p: float, seed: int | None) -> Array:
    if seed is None or p == 0:  # inference: the expectation is x itself
        return x
    keep = np.random.Generator(np.random.Philox(seed)).random(x.shape, np.float32) >= p
    mask = np.asarray(keep, x.dtype, like=x) / x.dtype.type(1 - p)
    ctx.save(mask)
    return as_array(x * mask)


def dropout_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (gy * ctx.saved[0] if ctx.saved else gy,)


def read_dropout(n: OnnxNode) -> Any:
    if n.version < 7 and not n.attribute("is_test", 0):
        raise n.refuse("it is in training mode; export the model in evaluation mode")
    seed = n.attribute("seed")
    ratio = n.attribute("ratio", 0.5) if n.version < 12 else n.scalar(1, 0.5)
    if (training := n.scalar(2, False) if n.version >= 12 else False) is not False:
        return _read_training_dropout(n, ratio, training, seed)
    if isinstance(ratio, float):
        y = n.emit("dropout", n.inputs[0], p=ratio, seed=None)
    else:  # computed at run time: the file asks for no training, and nothing could be trained with it
        y = n.emit("identity", n.inputs[0])
    if n.outputs < 2:
        return y
    kept = "bool" if n.version >= 10 else "float32"
    return y, n.emit("full", shape=n.emit("shape_of", n.inputs[0]), value=1, dtype=kept)


def _read_training_dropout(n: OnnxNode, ratio: Any, training: Any, seed: int | None) -> Any:
    """A node that is, or may be, in training mode: it drops the same elements whenever it runs."""
    if training is True and seed is None and ratio != 0:
        raise n.refuse("it is in training mode without a seed; export the model in evaluation mode")
    shape = n.emit("shape_of", n.inputs[0])
    kept, scale = n.emit("keep_mask", outputs=2, shape=shape, p=ratio, training=training, seed=seed)
    return n.emit("mul", n.inputs[0], scale), kept


def write_dropout(w: OnnxWriter, node: Node) -> str:
    return w.add("Identity", node.inputs)


register(
    Op(
        name="dropout",
        formula="y = x · keep / (1 - p), keep = 1 with probability 1 - p, else 0, drawn from seed; "
        "without a seed (inference) y = x",
        gradient="gx = gy · keep / (1 - p)",
        source="Srivastava et al. 2014, jmlr.org/papers/v15/srivastava14a.html; ONNX Dropout-13",
        shape=dropout_shape,
        forward=dropout_forward,
        backward=dropout_backward,
        samples=lambda: [Sample((3, 4), p=0.5, seed=7, onnx=False), Sample((3, 4), p=0.5, seed=None)],
        errors=lambda: [
            ErrorSample(OperandError, "must be in", (2, 3), p=1.0, seed=1),
            ErrorSample(DTypeError, "floating-point", np.ones(3, int), p=0.5, seed=1),
        ],
        reads={"Dropout": read_dropout},
        writes=write_dropout,
    )
)
