"""The public face of the ops: functions of Tensors with PyTorch's names and argument order.

Mathematics, shapes, gradients and sources stand in the op records (``nnlite/ops``), one per
operation; here arguments only get their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnlite import random
from nnlite.errors import OperandError, ShapeError
from nnlite.geometry import Padding, Pair, pair
from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply, apply_many, operand

Size = int | Sequence[int]


def _pair(op: str, name: str, value: Size, minimum: int = 1) -> Pair:
    return pair(op, name, value, minimum)


# ------------------------------------------------------------------------- convolution, pooling


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution of x [N,C,H,W] with weight [K,C/groups,R,S]; see op ``conv2d``.

    ``padding``: integer, (height, width), (top, left, bottom, right), "same" or "valid".
    """
    return apply(
        OPS["conv2d"], x, weight, bias,
        stride=_pair("conv2d", "stride", stride), padding=padding,
        dilation=_pair("conv2d", "dilation", dilation), groups=groups,
    )  # fmt: skip


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of x [N,K,P,Q] with weight [K,C/groups,R,S]; see op ``conv_transpose2d``."""
    name = "conv_transpose2d"
    return apply(
        OPS[name], x, weight, bias,
        stride=_pair(name, "stride", stride), padding=padding,
        output_padding=_pair(name, "output_padding", output_padding, 0),
        dilation=_pair(name, "dilation", dilation), groups=groups,
    )  # fmt: skip


def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Maximum over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``."""
    kernel = _pair("max_pool2d", "kernel_size", kernel_size)
    return apply(
        OPS["max_pool2d"], x, kernel_size=kernel,
        stride=kernel if stride is None else _pair("max_pool2d", "stride", stride),
        padding=padding, dilation=_pair("max_pool2d", "dilation", dilation), ceil_mode=ceil_mode,
    )  # fmt: skip


def avg_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    dilation: Size = 1,
) -> Tensor:
    """Mean over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``."""
    kernel = _pair("avg_pool2d", "kernel_size", kernel_size)
    return apply(
        OPS["avg_pool2d"], x, kernel_size=kernel,
        stride=kernel if stride is None else _pair("avg_pool2d", "stride", stride),
        padding=padding, dilation=_pair("avg_pool2d", "dilation", dilation),
        ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip


def adaptive_avg_pool2d(x: Tensor, output_size: Size) -> Tensor:
    """Mean over as many windows as ``output_size`` asks for; 1 is global average pooling."""
    size = _pair("adaptive_avg_pool2d", "output_size", output_size)
    return apply(OPS["adaptive_avg_pool2d"], x, output_size=size)


# ------------------------------------------------------------------------------ linear, normal


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X @ weight.T + bias for x [..., in_features], weight [out_features, in_features]."""
    return apply(OPS["linear"], x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes; leading axes broadcast."""
    return apply(OPS["matmul"], a, b)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation of x [N,C,...].

    In training the statistics of the batch are used and the running ones, when given, move in
    place by ``momentum`` towards them: running = (1 - momentum) · running + momentum · batch (the
    variance unbiased, as in PyTorch). Otherwise the running statistics are used.
    """
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: x has shape {list(x.shape)} but must be [N,C,...]")
    channels, dtype = x.shape[1], x.dtype
    weight = Tensor(np.ones(channels, dtype)) if weight is None else weight
    bias = Tensor(np.zeros(channels, dtype)) if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise OperandError("batch_norm: inference needs running_mean and running_var")
        operands = (x, weight, bias, running_mean, running_var)
        return apply(OPS["batch_norm"], *operands, epsilon=eps, momentum=momentum)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None and running.shape != (channels,):
            raise ShapeError(
                f"batch_norm: {name} has shape {list(running.shape)} but x {list(x.shape)} "
                f"has {channels} channels"
            )
    y, mean, variance = apply_many(OPS["batch_norm_training"], x, weight, bias, epsilon=eps)
    count = x.size // channels
    if running_mean is not None:
        _move_towards(running_mean.writable(), mean.numpy(), momentum)
    if running_var is not None:
        _move_towards(running_var.writable(), variance.numpy() * (count / (count - 1)), momentum)
    return y


def _move_towards(running: Array, batch: Array, momentum: float) -> None:
    running *= 1 - momentum
    running += momentum * batch


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by 1 / (1 - p), in training only."""
    return apply(OPS["dropout"], x, p=p, seed=random.next_seed() if training and p else None)


# ---------------------------------------------------------------------------------- activations


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return apply(OPS["relu"], x)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return apply(OPS["clamp"], x, minimum=0.0, maximum=6.0)


def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """min(max(x, min), max); an absent bound does not bind."""
    return apply(OPS["clamp"], x, minimum=min, maximum=max)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return apply(OPS["sigmoid"], x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return apply(OPS["tanh"], x)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum exp(x) along ``dim``."""
    return apply(OPS["softmax"], x, axis=dim)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """x - log sum exp(x) along ``dim``."""
    return apply(OPS["log_softmax"], x, axis=dim)


def exp(x: Tensor) -> Tensor:
    """e to the power x."""
    return apply(OPS["exp"], x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm."""
    return apply(OPS["log"], x)


def sqrt(x: Tensor) -> Tensor:
    """Square root."""
    return apply(OPS["sqrt"], x)


def abs(x: Tensor) -> Tensor:
    """Magnitude."""
    return apply(OPS["abs"], x)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise larger of two; each gets half the gradient where they are equal."""
    return apply(OPS["maximum"], a, operand(b, a))


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise smaller of two; each gets half the gradient where they are equal."""
    return apply(OPS["minimum"], a, operand(b, a))


# ----------------------------------------------------------------------------------------- loss


def cross_entropy(
    logits: Tensor,
    target: Tensor | Array,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(logits)[target] for logits [N,classes] and integer labels target [N]."""
    labels = target if isinstance(target, Tensor) else Tensor(np.asarray(target))
    return apply(
        OPS["cross_entropy"], logits, labels, reduction=reduction, label_smoothing=label_smoothing
    )


# ---------------------------------------------------------------------------------------- shape


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Pad the last axes: (left, right), (left, right, top, bottom), ... as in PyTorch."""
    if mode != "constant":
        raise OperandError(f"pad: mode={mode!r} is not supported, only 'constant'")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad: {len(pad)} pads do not pair up with the {x.ndim} axes of x")
    given = len(pad) // 2
    before = [0] * (x.ndim - given) + [pad[2 * i] for i in reversed(range(given))]
    after = [0] * (x.ndim - given) + [pad[2 * i + 1] for i in reversed(range(given))]
    return apply(OPS["pad"], x, pads=(*before, *after), value=value)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim..end_dim merged into one."""
    return x.flatten(start_dim, end_dim)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in row-major order with another shape."""
    return x.reshape(*shape)


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Axes in another order."""
    return x.permute(*axes)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after another along ``dim``."""
    if not tensors:
        raise ShapeError("cat: needs at least one tensor")
    return apply(OPS["concat"], *tensors, axis=dim)


concat = cat
