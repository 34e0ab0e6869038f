"""Batch normalisation, with given statistics and with those of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import NormGeometry
from nnlite.kernels import launch
from nnlite.layout import Array, rows
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


def _check(op: str, x: ArrayType, **per_channel: ArrayType) -> None:
    if len(x.shape) < 2:
        raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,...]")
    for name, operand in per_channel.items():
        if operand.shape != (x.shape[1],):
            raise ShapeError(
                f"{op}: {name} has shape {list(operand.shape)} but x {list(x.shape)} "
                f"has {x.shape[1]} channels"
            )
    types = {x.dtype, *(operand.dtype for operand in per_channel.values())}
    if len(types) != 1 or x.dtype.kind != "f":
        listed = ", ".join(sorted(map(str, types)))
        raise DTypeError(f"{op}: operands are {listed}; all must have one floating-point type")


def _geometry(x: Array, epsilon: float) -> NormGeometry:
    return NormGeometry(rows(x).shape[0], x.shape[1], epsilon)


def _new(geometry: NormGeometry, dtype: Any) -> Array:
    return memory.empty((geometry.C,), dtype)


# ---------------------------------------------------------------------- with running statistics


def batch_norm_shape(
    x: ArrayType,
    weight: ArrayType,
    bias: ArrayType,
    mean: ArrayType,
    variance: ArrayType,
    epsilon: float,
    momentum: float = 0.1,
) -> ArrayType:
    _check("batch_norm", x, weight=weight, bias=bias, running_mean=mean, running_var=variance)
    return x


def batch_norm_forward(
    ctx: Context,
    x: Array,
    weight: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    momentum: float = 0.1,
) -> Array:
    geometry = _geometry(x, epsilon)
    inv_std = (1 / np.sqrt(variance.astype(np.float64) + epsilon)).astype(x.dtype)
    scale = weight * inv_std
    y = memory.empty(x.shape, x.dtype)
    launch("batch_norm_inference_forward", geometry, rows(x), scale, bias - mean * scale, rows(y))
    ctx.save(x if ctx.needs[1] else None, scale, mean, inv_std)
    ctx.values["geometry"] = geometry
    return y


def batch_norm_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, scale, mean, inv_std = ctx.saved
    geometry: NormGeometry = ctx.values["geometry"]
    gx = memory.empty(gy.shape, gy.dtype) if needs[0] else None
    gweight = _new(geometry, gy.dtype) if needs[1] else None
    gbias = _new(geometry, gy.dtype) if needs[2] else None
    launch(
        "batch_norm_inference_backward", geometry,
        rows(gy if x is None else x), rows(gy), scale, mean, inv_std,  # x matters to gweight alone
        None if gx is None else rows(gx), gweight, gbias,
    )  # fmt: skip
    # The running statistics are not differentiated: they are measured, never trained.
    return gx, gweight, gbias, None, None


_VARIANCE = np.array([0.5, 2.0, 1.0])


def batch_norm_samples() -> Iterator[Sample]:
    for shape in [(4, 3, 5, 2), (2, 3), (2, 3, 4)]:
        yield Sample(shape, (3,), (3,), np.array([0.1, -0.2, 3.0]), _VARIANCE, epsilon=1e-5)


def batch_norm_errors() -> Iterator[ErrorSample]:
    c, x = (3,), (2, 3, 4, 4)
    yield ErrorSample(ShapeError, "must be .N,C", (3,), c, c, c, c, epsilon=1e-5)
    yield ErrorSample(ShapeError, "weight has shape", x, (4,), c, c, c, epsilon=1e-5)
    yield ErrorSample(ShapeError, "running_var has shape", x, c, c, c, (1, 3), epsilon=1e-5)
    yield ErrorSample(
        DTypeError, "floating-point", np.ones((1, 3), np.int32), *[np.ones(3, np.int32)] * 4, epsilon=1e-5
    )


def read_batch_norm(n: OnnxNode) -> Any:
    if n.attribute("training_mode", 0) or (n.version < 7 and not n.attribute("is_test", 0)):
        raise n.refuse("it is in training mode; export the model in evaluation mode")
    if n.attribute("spatial", 1) != 1:
        raise n.refuse("spatial=0 (statistics per pixel) is not supported")
    # ONNX keeps `momentum` of the old running value, PyTorch and nnlite keep `1 - momentum` of it.
    momentum = 1 - n.attribute("momentum", 0.9)
    return n.emit("batch_norm", *n.inputs[:5], epsilon=n.attribute("epsilon", 1e-5), momentum=momentum)


def write_batch_norm(w: OnnxWriter, node: Node) -> str:
    momentum = 1 - node.params.get("momentum", 0.1)
    return w.add("BatchNormalization", node.inputs, epsilon=node.params["epsilon"], momentum=momentum)


register(
    Op(
        name="batch_norm",
        formula="y = (x - running_mean) / √(running_var + epsilon) · weight + bias, per channel;  "
        "x and y [N,C,...], all others [C]; momentum is for whoever updates the running statistics",
        gradient="gx = gy · weight / √(running_var + epsilon); gweight = Σ gy · (x - running_mean) / "
        "√(running_var + epsilon); gbias = Σ gy, sums over all but C; none for the statistics",
        source="Ioffe and Szegedy 2015, arXiv:1502.03167; ONNX BatchNormalization-15",
        shape=batch_norm_shape,
        forward=batch_norm_forward,
        backward=batch_norm_backward,
        macs=lambda x, *_, **__: int(np.prod(x.shape)),
        samples=batch_norm_samples,
        errors=batch_norm_errors,
        reads={"BatchNormalization": read_batch_norm},
        writes=write_batch_norm,
        layout="channels_last",
        kernels=("batch_norm_inference_forward", "batch_norm_inference_backward"),
    )
)

# ------------------------------------------------------------------------ with batch statistics


def batch_norm_training_shape(
    x: ArrayType, weight: ArrayType, bias: ArrayType, epsilon: float
) -> tuple[ArrayType, ...]:
    _check("batch_norm_training", x, weight=weight, bias=bias)
    if int(np.prod(x.shape)) <= x.shape[1]:
        raise ShapeError(
            f"batch_norm_training: x {list(x.shape)} has at most one value per channel, whose variance "
            "says nothing; use a larger batch, or eval()"
        )
    channel = ArrayType((x.shape[1],), x.dtype)
    return x, channel, channel


def batch_norm_training_forward(
    ctx: Context, x: Array, weight: Array, bias: Array, epsilon: float
) -> tuple[Array, ...]:
    geometry = _geometry(x, epsilon)
    y = memory.empty(x.shape, x.dtype)
    mean, inv_std = _new(geometry, x.dtype), _new(geometry, x.dtype)
    launch("batch_norm_training_forward", geometry, rows(x), weight, bias, rows(y), mean, inv_std)
    ctx.save(x, weight, mean, inv_std)
    ctx.values["geometry"] = geometry
    variance = (1 / np.square(inv_std, dtype=np.float64) - epsilon).clip(0).astype(x.dtype)
    return y, mean, variance


def batch_norm_training_backward(
    ctx: Context, gy: tuple[Array | None, ...], needs: Needs
) -> Sequence[Array | None]:
    assert ctx.saved is not None
    gradient = gy[0]
    if gradient is None:  # only the statistics were used, and they are not differentiated
        return None, None, None
    x, weight, mean, inv_std = ctx.saved
    assert x is not None
    geometry: NormGeometry = ctx.values["geometry"]
    gx = memory.empty(x.shape, x.dtype) if needs[0] else None
    gweight, gbias = _new(geometry, x.dtype), _new(geometry, x.dtype)
    launch(
        "batch_norm_training_backward", geometry,
        rows(x), rows(gradient), weight, mean, inv_std,
        None if gx is None else rows(gx), gweight, gbias,
    )  # fmt: skip
    return gx, gweight if needs[1] else None, gbias if needs[2] else None


def batch_norm_training_samples() -> Iterator[Sample]:
    for shape in [(4, 3, 3, 2), (5, 3), (2, 3, 4)]:
        yield Sample(shape, (3,), (3,), epsilon=1e-5, onnx=False)


def batch_norm_training_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "one value per channel", (1, 3, 1, 1), (3,), (3,), epsilon=1e-5)
    yield ErrorSample(ShapeError, "one value per channel", (0, 3, 2, 2), (3,), (3,), epsilon=1e-5)
    yield ErrorSample(ShapeError, "bias has shape", (2, 3, 4, 4), (3,), (4,), epsilon=1e-5)
    integers, channel = np.ones((2, 1), np.int32), np.ones(1, np.int32)
    yield ErrorSample(DTypeError, "floating-point", integers, channel, channel, epsilon=0.1)


register(
    Op(
        name="batch_norm_training",
        formula="mean = Σ x / M, variance = Σ (x - mean)² / M over the M values of each channel; "
        "y = (x - mean) / √(variance + epsilon) · weight + bias;  x and y [N,C,...], all others [C]; "
        "outputs y, mean, variance (biased)",
        gradient="x̂ = (x - mean) / √(variance + epsilon); gbias = Σ gy; gweight = Σ gy · x̂; "
        "gx = weight / √(variance + epsilon) · (gy - gbias/M - x̂ · gweight/M); "
        "mean and variance as outputs are not differentiated",
        source="Ioffe and Szegedy 2015, arXiv:1502.03167",
        shape=batch_norm_training_shape,
        forward=batch_norm_training_forward,
        backward=batch_norm_training_backward,
        macs=lambda x, *_, **__: int(np.prod(x.shape)),
        samples=batch_norm_training_samples,
        errors=batch_norm_training_errors,
        writes=None,
        layout="channels_last",
        kernels=("batch_norm_training_forward", "batch_norm_training_backward"),
    )
)
