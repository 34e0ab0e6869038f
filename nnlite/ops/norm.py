"""Batch normalisation, with given statistics and with those of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.geometry import CLAMP, NO_ACTIVATION, RELU, NormGeometry, remembered
from nnlite.kernels import launch
from nnlite.layout import Array, rows
from nnlite.node import Node, Value
from nnlite.ops.epilogue import Act, activation_fields, check_epilogue, write_epilogue
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


def _check_epilogue(op: str, x: ArrayType, residual: ArrayType | None, activation: Act) -> None:
    check_epilogue(op, x, residual, activation)
    if isinstance(activation, tuple) and residual is not None:
        # Backward sees the activation from its output. At a bound itself that hides what a clamp decides by.
        raise OperandError(f"{op}: a residual goes with 'relu' or None; apply {activation} after it")


@remembered
def _geometry(x_shape: tuple[int, ...], epsilon: float, activation: Act) -> NormGeometry:
    N, C, *size = x_shape
    return NormGeometry(prod((N, *size)), C, epsilon, **activation_fields(activation))


def _new(geometry: NormGeometry, like: Array) -> Array:
    return memory.empty((geometry.C,), like.dtype, like=like)


def _rows(array: Array | None) -> Array | None:
    return None if array is None else rows(array)


def _residual_gradient(
    gy: Array, has_residual: bool, wanted: bool, geometry: NormGeometry
) -> tuple[Array | None, Array | None]:
    """Where the kernel writes the residual's gradient, and that gradient: gy itself without activation."""
    if not has_residual or not wanted:
        return None, None
    if geometry.activation == NO_ACTIVATION:
        return None, gy
    gradient = memory.empty(gy.shape, gy.dtype, like=gy)
    return gradient, gradient


def _again(
    geometry: NormGeometry, x: Array, mean: Array | None, scale: Array, shift: Array
) -> Callable[[], Array]:
    """Computes y without a residual from what backward needs anyway."""

    def again() -> Array:
        y = memory.empty(x.shape, x.dtype, like=x)
        launch("batch_norm_inference_forward", geometry, rows(x), mean, scale, shift, None, rows(y))
        return y

    return again


# ---------------------------------------------------------------------- with running statistics


def batch_norm_shape(
    x: ArrayType,
    weight: ArrayType,
    bias: ArrayType,
    mean: ArrayType,
    variance: ArrayType,
    residual: ArrayType | None = None,
    *,
    epsilon: float,
    momentum: float = 0.1,
    activation: Act = None,
) -> ArrayType:
    _check("batch_norm", x, weight=weight, bias=bias, running_mean=mean, running_var=variance)
    _check_epilogue("batch_norm", x, residual, activation)
    return x


def batch_norm_forward(
    ctx: Context,
    x: Array,
    weight: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    residual: Array | None = None,
    *,
    epsilon: float,
    momentum: float = 0.1,
    activation: Act = None,
) -> Array:
    geometry = _geometry(x.shape, epsilon, activation)
    inv_std = (1 / np.sqrt(variance.astype(np.float64) + epsilon)).astype(x.dtype)
    scale = weight * inv_std
    shift = bias - mean * scale
    y = memory.empty(x.shape, x.dtype, like=x)
    launch("batch_norm_inference_forward", geometry, rows(x), None, scale, shift, _rows(residual), rows(y))
    # Whoever reads y keeps it; x only where backward needs it: for gweight, and to see a clamp from.
    keep_x = ctx.needs[1] or geometry.activation == CLAMP
    keep_y = geometry.activation == RELU and (residual is not None or not keep_x)
    ctx.save(x if keep_x else None, y if keep_y else None, scale, shift, mean, inv_std)
    if ctx.recording and keep_x and residual is None:
        ctx.again = _again(geometry, x, None, scale, shift)
    ctx.values["geometry"] = geometry
    ctx.values["residual"] = residual is not None
    return y


def batch_norm_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, y, scale, shift, mean, inv_std = ctx.saved
    geometry: NormGeometry = ctx.values["geometry"]
    gx = memory.empty(gy.shape, gy.dtype, like=gy) if needs[0] else None
    gweight = _new(geometry, gy) if needs[1] else None
    gbias = _new(geometry, gy) if needs[2] else None
    out, gresidual = _residual_gradient(gy, ctx.values["residual"], len(needs) > 5 and needs[5], geometry)
    launch(
        "batch_norm_inference_backward", geometry,
        rows(gy if x is None else x), rows(gy), _rows(y), scale, shift, mean, inv_std,
        _rows(gx), gweight, gbias, _rows(out),
    )  # fmt: skip
    # The running statistics are not differentiated: they are measured, never trained.
    return (gx, gweight, gbias, None, None, gresidual)[: len(needs)]


_VARIANCE = np.array([0.5, 2.0, 1.0])


def batch_norm_samples() -> Iterator[Sample]:
    for shape in [(4, 3, 5, 2), (2, 3), (2, 3, 4)]:
        yield Sample(shape, (3,), (3,), np.array([0.1, -0.2, 3.0]), _VARIANCE, epsilon=1e-5)
    fused: list[tuple[Act, tuple[int, ...] | None]] = [
        ("relu", None), ("relu", (4, 3, 5, 2)), (None, (4, 3, 5, 2)), ((0.0, 1.0), None)
    ]  # fmt: skip
    for activation, residual in fused:
        operands = ((4, 3, 5, 2), (3,), (3,), np.array([0.1, -0.2, 3.0]), _VARIANCE, residual)
        yield Sample(*operands, epsilon=1e-5, activation=activation)


def batch_norm_errors() -> Iterator[ErrorSample]:
    c, x = (3,), (2, 3, 4, 4)
    yield ErrorSample(ShapeError, "must be .N,C", (3,), c, c, c, c, epsilon=1e-5)
    yield ErrorSample(ShapeError, "weight has shape", x, (4,), c, c, c, epsilon=1e-5)
    yield ErrorSample(ShapeError, "running_var has shape", x, c, c, c, (1, 3), epsilon=1e-5)
    yield ErrorSample(
        DTypeError, "floating-point", np.ones((1, 3), np.int32), *[np.ones(3, np.int32)] * 4, epsilon=1e-5
    )
    yield ErrorSample(ShapeError, "residual is", x, c, c, c, c, (2, 3, 4, 5), epsilon=1e-5)
    yield ErrorSample(OperandError, "activation", x, c, c, c, c, epsilon=1e-5, activation="gelu")
    yield ErrorSample(OperandError, "after it", x, c, c, c, c, x, epsilon=1e-5, activation=(0.0, 6.0))


def read_batch_norm(n: OnnxNode) -> Any:
    if n.version < 7 and not n.attribute("is_test", 0):
        raise n.refuse("it is in training mode; export the model in evaluation mode")
    x, *per_channel = n.inputs[:5]
    kept, epsilon = n.attribute("momentum", 0.9), n.attribute("epsilon", 1e-5)
    if n.attribute("training_mode", 0):  # the file asks for the batch's own statistics
        y, *measured = n.emit("batch_norm_training", x, *per_channel[:2], outputs=3, epsilon=epsilon)
        return (y, *(_moved(n, old, new, kept) for old, new in zip(per_channel[2:], measured, strict=True)))
    # ONNX keeps `momentum` of the old running value, PyTorch and nnlite keep `1 - momentum` of it.
    options = dict(epsilon=epsilon, momentum=1 - kept)
    if n.attribute("spatial", 1) == 1:
        return n.emit("batch_norm", x, *per_channel, **options)
    # Statistics per element of a picture: each is a channel of its own.
    flat = [n.emit("reshape", operand, shape=(-1,)) for operand in per_channel]
    y = n.emit("batch_norm", n.emit("flatten", x, start=1, end=-1), *flat, **options)
    return n.emit("reshape", y, shape=n.emit("shape_of", x))


def _moved(n: OnnxNode, old: Value | None, new: Value, kept: float) -> Any:
    """The running value after this batch."""
    parts = [n.emit("mul", value, n.leaf(np.asarray(share, np.float32)))
             for value, share in ((old, kept), (new, 1 - kept))]  # fmt: skip
    return n.emit("add", *parts)


def write_batch_norm(w: OnnxWriter, node: Node) -> str:
    options = dict(epsilon=node.params["epsilon"], momentum=1 - node.params.get("momentum", 0.1))
    y = w.add("BatchNormalization", node.inputs[:5], **options)
    residual = node.inputs[5] if len(node.inputs) > 5 else None
    return write_epilogue(w, y, residual, node.params.get("activation"), node.inputs[0])


register(
    Op(
        name="batch_norm",
        formula="y = act((x - running_mean) / √(running_var + epsilon) · weight + bias + residual), per "
        "channel;  x, y and residual (if given) [N,C,...], all others [C]; activation: None, 'relu' or (low, "
        "high) of a clamp; momentum is for whoever updates the running statistics",
        gradient="where act passes it (else gy = 0): gresidual = gy; "
        "gx = gy · weight / √(running_var + epsilon); gweight = Σ gy · (x - running_mean) / "
        "√(running_var + epsilon); gbias = Σ gy, sums over all but C; none for the statistics",
        source="Ioffe and Szegedy 2015, arXiv:1502.03167; ONNX BatchNormalization-15",
        shape=batch_norm_shape,
        forward=batch_norm_forward,
        backward=batch_norm_backward,
        macs=lambda x, *_, **__: prod(x.shape),
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
    x: ArrayType,
    weight: ArrayType,
    bias: ArrayType,
    residual: ArrayType | None = None,
    *,
    epsilon: float,
    activation: Act = None,
) -> tuple[ArrayType, ...]:
    _check("batch_norm_training", x, weight=weight, bias=bias)
    if prod(x.shape) <= x.shape[1]:
        raise ShapeError(
            f"batch_norm_training: x {list(x.shape)} has at most one value per channel, whose variance "
            "says nothing; use a larger batch, or eval()"
        )
    _check_epilogue("batch_norm_training", x, residual, activation)
    channel = ArrayType((x.shape[1],), x.dtype)
    return x, channel, channel


def batch_norm_training_forward(
    ctx: Context,
    x: Array,
    weight: Array,
    bias: Array,
    residual: Array | None = None,
    *,
    epsilon: float,
    activation: Act = None,
) -> tuple[Array, ...]:
    geometry = _geometry(x.shape, epsilon, activation)
    y = memory.empty(x.shape, x.dtype, like=x)
    mean, inv_std = _new(geometry, x), _new(geometry, x)
    launch(
        "batch_norm_training_forward", geometry,
        rows(x), weight, bias, _rows(residual), rows(y), mean, inv_std,
    )  # fmt: skip
    # Without a residual backward finds where the activation passes from x, which it reads anyway.
    keep_y = geometry.activation != NO_ACTIVATION and residual is not None
    ctx.save(x, y if keep_y else None, weight, bias, mean, inv_std)
    if ctx.recording and residual is None:
        # A copy: who comes back may have changed the bias, and that is the batch norm's affair alone.
        ctx.again = _again(geometry, x, mean, inv_std * weight, bias.copy())
    ctx.values["geometry"] = geometry
    ctx.values["residual"] = residual is not None
    variance = (1 / np.square(inv_std, dtype=np.float64) - epsilon).clip(0).astype(x.dtype)
    return y, mean, variance


def batch_norm_training_backward(
    ctx: Context, gy: tuple[Array | None, ...], needs: Needs
) -> Sequence[Array | None]:
    assert ctx.saved is not None
    gradient = gy[0]
    if gradient is None:  # only the statistics were used, and they are not differentiated
        return (None,) * len(needs)
    x, y, weight, bias, mean, inv_std = ctx.saved
    assert x is not None
    geometry: NormGeometry = ctx.values["geometry"]
    gx = memory.empty(x.shape, x.dtype, like=x) if needs[0] else None
    gweight, gbias = _new(geometry, x), _new(geometry, x)
    wanted = len(needs) > 3 and needs[3]
    out, gresidual = _residual_gradient(gradient, ctx.values["residual"], wanted, geometry)
    launch(
        "batch_norm_training_backward", geometry,
        rows(x), rows(gradient), _rows(y), weight, bias, mean, inv_std, _rows(gx), gweight, gbias, _rows(out),
    )  # fmt: skip
    return (gx, gweight if needs[1] else None, gbias if needs[2] else None, gresidual)[: len(needs)]


def batch_norm_training_samples() -> Iterator[Sample]:
    for shape in [(4, 3, 3, 2), (5, 3), (2, 3, 4)]:
        yield Sample(shape, (3,), (3,), epsilon=1e-5, onnx=False)
    x = (4, 3, 3, 2)
    yield Sample(x, (3,), (3,), epsilon=1e-5, activation="relu", onnx=False)
    yield Sample(x, (3,), (3,), x, epsilon=1e-5, activation="relu", onnx=False)
    yield Sample(x, (3,), (3,), x, epsilon=1e-5, onnx=False)
    yield Sample(x, (3,), (3,), epsilon=1e-5, activation=(-0.5, 0.5), onnx=False)


def batch_norm_training_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "one value per channel", (1, 3, 1, 1), (3,), (3,), epsilon=1e-5)
    yield ErrorSample(ShapeError, "one value per channel", (0, 3, 2, 2), (3,), (3,), epsilon=1e-5)
    yield ErrorSample(ShapeError, "bias has shape", (2, 3, 4, 4), (3,), (4,), epsilon=1e-5)
    integers, channel = np.ones((2, 1), np.int32), np.ones(1, np.int32)
    yield ErrorSample(DTypeError, "floating-point", integers, channel, channel, epsilon=0.1)
    x, c = (2, 3, 4, 4), (3,)
    yield ErrorSample(ShapeError, "residual is", x, c, c, (2, 3, 4, 5), epsilon=1e-5)
    yield ErrorSample(OperandError, "activation", x, c, c, epsilon=1e-5, activation=6.0)
    yield ErrorSample(OperandError, "after it", x, c, c, x, epsilon=1e-5, activation=(0.0, 6.0))


register(
    Op(
        name="batch_norm_training",
        formula="mean = Σ x / M, variance = Σ (x - mean)² / M over the M values of each channel; "
        "y = act((x - mean) / √(variance + epsilon) · weight + bias + residual);  x, y and residual (if "
        "given) [N,C,...], all others [C]; outputs y, mean, variance (biased); activation as in batch_norm",
        gradient="where act passes it (else gy = 0): gresidual = gy; "
        "x̂ = (x - mean) / √(variance + epsilon); gbias = Σ gy; gweight = Σ gy · x̂; "
        "gx = weight / √(variance + epsilon) · (gy - gbias/M - x̂ · gweight/M); "
        "mean and variance as outputs are not differentiated",
        source="Ioffe and Szegedy 2015, arXiv:1502.03167",
        shape=batch_norm_training_shape,
        forward=batch_norm_training_forward,
        backward=batch_norm_training_backward,
        macs=lambda x, *_, **__: prod(x.shape),
        samples=batch_norm_training_samples,
        errors=batch_norm_training_errors,
        writes=None,
        layout="channels_last",
        kernels=("batch_norm_training_forward", "batch_norm_training_backward"),
    )
)
