"""Normalisation and dropout."""

from __future__ import annotations

import numpy as np

from nnlite import random
from nnlite.errors import OperandError, ShapeError
from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply, apply_many


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
