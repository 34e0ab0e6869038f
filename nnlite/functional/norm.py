"""Normalisation and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from nnlite import random
from nnlite.errors import OperandError, ShapeError
from nnlite.functional import arithmetic
from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply, apply_many, beside, tracer


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | tuple[float, float] | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Batch normalisation of x [N,C,...]; in the same pass ``residual`` is added, ``activation`` applied.

    ``activation``: None, "relu", "relu6" or (low, high) of a clamp.

    In training the statistics of the batch are used and the running ones, when given, move in
    place by ``momentum`` towards them: running = (1 - momentum) · running + momentum · batch (the
    variance unbiased, as in PyTorch). Otherwise the running statistics are used.
    """
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: x has shape {list(x.shape)} but must be [N,C,...]")
    channels, dtype = x.shape[1], x.dtype
    bounds = (0.0, 6.0) if activation == "relu6" else activation
    tracing = tracer.get() is not None and (residual is not None or bounds is not None)
    if tracing or (residual is not None and isinstance(bounds, tuple)):
        # The op does not take a clamp with a residual. A traced graph gets the plain parts, which every
        # reader of graphs knows; its own pass (fuse_epilogue) puts them together.
        y = batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        y = y if residual is None else apply(OPS["add"], y, residual)
        if isinstance(bounds, tuple):
            return apply(OPS["clamp"], y, minimum=bounds[0], maximum=bounds[1])
        return y if bounds is None else apply(OPS[bounds], y)
    more = () if residual is None else (residual,)
    extra = {} if bounds is None else {"activation": bounds}
    weight = beside(np.ones(channels, dtype), x) if weight is None else weight
    bias = beside(np.zeros(channels, dtype), x) if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise OperandError("batch_norm: inference needs running_mean and running_var")
        operands = (x, weight, bias, running_mean, running_var, *more)
        return apply(OPS["batch_norm"], *operands, epsilon=eps, momentum=momentum, **extra)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None and running.shape != (channels,):
            raise ShapeError(
                f"batch_norm: {name} has shape {list(running.shape)} but x {list(x.shape)} "
                f"has {channels} channels"
            )
    operation = OPS["batch_norm_training"]
    y, mean, variance = apply_many(operation, x, weight, bias, *more, epsilon=eps, **extra)
    count = x.size // channels
    if running_mean is not None:
        _move_towards(running_mean.writable(), mean.array, momentum)
    if running_var is not None:
        _move_towards(running_var.writable(), variance.array * (count / (count - 1)), momentum)
    return y


def _move_towards(running: Array, batch: Array, momentum: float) -> None:
    running *= 1 - momentum
    running += momentum * batch


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by 1 / (1 - p), in training only."""
    return apply(OPS["dropout"], x, p=p, seed=random.next_seed() if training and p else None)


def dropout1d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero whole channels of x [N,C,L] with probability ``p``, as :func:`dropout` does elements."""
    return _channels_dropped("dropout1d", x, 3, p, training)


def dropout2d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero whole channels of x [N,C,H,W] with probability ``p``, as :func:`dropout` does elements.

    Source: Tompson et al. 2015, arXiv:1411.4280.
    """
    return _channels_dropped("dropout2d", x, 4, p, training)


def _channels_dropped(op: str, x: Tensor, ndim: int, p: float, training: bool) -> Tensor:
    if x.ndim != ndim:
        raise ShapeError(f"{op}: x has shape {list(x.shape)} but must have {ndim} axes")
    if not (training and p):
        return dropout(x, p, False)
    return x * dropout(beside(np.ones((*x.shape[:2], *[1] * (ndim - 2)), x.dtype), x), p)


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalisation over the last axes, whose sizes are ``normalized_shape``; see op ``layer_norm``."""
    wanted = _last_sizes("layer_norm", x, normalized_shape)
    return apply(OPS["layer_norm"], x, weight, bias, axis=-len(wanted), eps=eps)


def _last_sizes(op: str, x: Tensor, sizes: int | Sequence[int]) -> tuple[int, ...]:
    wanted = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if not wanted or x.shape[-len(wanted) :] != wanted:
        raise ShapeError(f"{op}: x {list(x.shape)} must end in normalized_shape {list(wanted)}")
    return wanted


def rms_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """X / √(mean of x² + eps) · weight over the last axes; ``eps`` defaults to the type's epsilon."""
    axes = tuple(range(-len(_last_sizes("rms_norm", x, normalized_shape)), 0))
    small = float(np.finfo(x.dtype).eps) if eps is None else eps
    y = x / arithmetic.sqrt((x * x).mean(axes, keepdim=True) + small)
    return y if weight is None else y * weight


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalisation of x [N,C,...] over the pixels and channels of each of ``num_groups`` groups."""
    if num_groups < 1:
        raise ShapeError(f"group_norm: num_groups={num_groups} must be at least 1")
    return apply(OPS["group_norm"], x, weight, bias, num_groups=num_groups, eps=eps)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalisation of x [N,C,...] over the pixels of each channel of each sample.

    With ``use_input_stats`` False the running statistics are used; otherwise they move, when given,
    towards the average over the samples, as in :func:`batch_norm`.
    """
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    if x.ndim < 3 or x.size <= x.shape[0] * x.shape[1]:
        raise ShapeError(f"instance_norm: x {list(x.shape)} must be [N,C,...] with more than one pixel")
    axes = tuple(range(2, x.ndim))
    if running_mean is not None:
        _move_towards(running_mean.writable(), x.array.mean((0, *axes)), momentum)
    if running_var is not None:
        _move_towards(running_var.writable(), x.array.var(axes, ddof=1).mean(0), momentum)
    return apply(OPS["group_norm"], x, weight, bias, num_groups=0, eps=eps)


def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """X / (k + alpha · mean of x² over ``size`` neighbouring channels)^beta for x [N,C,...]."""
    return apply(OPS["local_response_norm"], x, size=size, alpha=alpha, beta=beta, k=k)


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """X / max(‖x‖ₚ, eps), the norm along ``dim``; p may be infinite."""
    if p == 2:  # the bound inside the root, whose derivative at 0 is infinite
        return x / arithmetic.sqrt(arithmetic.maximum((x * x).sum(dim, keepdim=True), eps * eps))
    return x / arithmetic.maximum(p_norm(x, p, dim, keepdim=True), eps)


def p_norm(x: Tensor, p: float, dim: int, keepdim: bool = False) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) along ``dim``; for infinite p the largest magnitude. OperandError unless p > 0."""
    if not p > 0:
        raise OperandError(f"p={p} is no norm; it must be above 0")
    size = arithmetic.abs(x)
    if p == inf:
        return size.max(dim, keepdim=keepdim)
    if p == 1:
        return size.sum(dim, keepdim=keepdim)
    return (size**p).sum(dim, keepdim=keepdim) ** (1 / p)
