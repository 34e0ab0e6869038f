"""Losses. ``reduction`` is "mean", "sum" or "none" throughout, as in PyTorch."""

from __future__ import annotations

import numpy as np

from nnlite.errors import OperandError, ShapeError
from nnlite.functional.activation import log_softmax, logsigmoid, relu
from nnlite.functional.arithmetic import abs, clamp, exp, le, log, lt, maximum, sqrt, where
from nnlite.functional.indexing import gather, one_hot
from nnlite.functional.norm import normalize, p_norm
from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.ops.loss import REDUCTIONS
from nnlite.tensors import Tensor, apply, beside


def _reduced(op: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise OperandError(f"{op}: reduction={reduction!r} must be one of {', '.join(REDUCTIONS)}")
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _same_shape(op: str, x: Tensor, target: Tensor | Array) -> Tensor:
    wanted = beside(target, x)
    if wanted.shape != x.shape:
        raise ShapeError(f"{op}: target {list(wanted.shape)} must have the shape of x {list(x.shape)}")
    return wanted


# ------------------------------------------------------------------------------- classification


def cross_entropy(
    logits: Tensor,
    target: Tensor | Array,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-weight · log softmax(logits) at the target, for logits [N,classes,...].

    ``target``: integer labels [N,...], of which ``ignore_index`` ones do not count, or probabilities of
    the shape of logits. ``weight`` [classes]; the mean divides by the sum of the weights of the labels.
    """
    wanted = beside(target, logits)
    if wanted.dtype.kind == "f":
        return _soft_cross_entropy(logits, wanted, weight, reduction, label_smoothing)
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
    return apply(OPS["cross_entropy"], logits, wanted, weight, **options)


def _per_class(weight: Tensor, ndim: int) -> Tensor:
    return weight.reshape(-1, *[1] * (ndim - 2))


def _soft_cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    _same_shape("cross_entropy", logits, target)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    terms = target * log_softmax(logits, 1)
    losses = -(terms if weight is None else terms * _per_class(weight, logits.ndim)).sum(1)
    return _reduced("cross_entropy", losses, reduction)


def nll_loss(
    x: Tensor,
    target: Tensor | Array,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-weight · x at the labels, for log-probabilities x [N,classes,...] and labels [N,...]."""
    options = {"ignore_index": ignore_index, "reduction": reduction}
    return apply(OPS["nll_loss"], x, beside(target, x), weight, **options)


def binary_cross_entropy(
    x: Tensor, target: Tensor | Array, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(target · ln x + (1 - target) · ln(1 - x)) of probabilities x; logarithms are at least -100."""
    wanted = _same_shape("binary_cross_entropy", x, target)
    least = float(np.exp(-100.0))
    losses = -(wanted * log(clamp(x, min=least)) + (1 - wanted) * log(clamp(1 - x, min=least)))
    return _reduced("binary_cross_entropy", losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor | Array,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """:func:`binary_cross_entropy` of sigmoid(x), without overflow; ``pos_weight`` scales the first term."""
    wanted = _same_shape("binary_cross_entropy_with_logits", x, target)
    factor = 1 if pos_weight is None else (pos_weight - 1) * wanted + 1
    losses = (1 - wanted) * x - factor * logsigmoid(x)
    if weight is not None:
        losses = losses * weight
    return _reduced("binary_cross_entropy_with_logits", losses, reduction)


def kl_div(x: Tensor, target: Tensor | Array, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (ln target - x) for log-probabilities x; "batchmean" divides the sum by the first size."""
    wanted = _same_shape("kl_div", x, target)
    if log_target:
        losses = exp(wanted) * (wanted - x)
    else:
        tiny = float(np.finfo(x.dtype).tiny)  # 0 · ln 0 is 0
        losses = wanted * (log(clamp(wanted, min=tiny)) - x)
    if reduction == "batchmean":
        return losses.sum() / x.shape[0]
    return _reduced("kl_div", losses, reduction)


def soft_margin_loss(x: Tensor, target: Tensor | Array, reduction: str = "mean") -> Tensor:
    """ln(1 + exp(-target · x)) for targets 1 and -1."""
    losses = -logsigmoid(_same_shape("soft_margin_loss", x, target) * x)
    return _reduced("soft_margin_loss", losses, reduction)


def hinge_embedding_loss(
    x: Tensor, target: Tensor | Array, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """X where the target is 1, max(0, margin - x) where it is -1."""
    wanted = beside(target, x)
    losses = where(le(wanted, -1), relu(margin - x), x)
    return _reduced("hinge_embedding_loss", losses, reduction)


def multi_margin_loss(
    x: Tensor,
    target: Tensor | Array,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge loss of several classes: Σ weight_t · max(0, margin - x_t + x_j)ᵖ / C over j ≠ t.

    x [N,C] are scores, ``target`` [N] the labels t, ``weight`` [C], p 1 or 2.
    Source: Crammer and Singer 2001; torch.nn.functional.multi_margin_loss.
    """
    labels = beside(target, x)
    if x.ndim != 2 or labels.shape != x.shape[:1] or labels.dtype.kind not in "iu":
        raise ShapeError(
            f"multi_margin_loss: x {list(x.shape)} must be [N,C] and target {list(labels.shape)} N integers"
        )
    if p not in (1, 2):
        raise OperandError(f"multi_margin_loss: p={p} must be 1 or 2")
    column = labels.reshape(-1, 1)
    short = relu(x - gather(x, 1, column) + margin)
    terms = short if p == 1 else short * short
    if weight is not None:
        terms = terms * Tensor(weight.array[labels.array][:, None])
    others = 1 - one_hot(labels, x.shape[1]).astype(x.dtype)
    return _reduced("multi_margin_loss", (terms * others).sum(1) / x.shape[1], reduction)


# ----------------------------------------------------------------------------------- regression


def _weighted(op: str, losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """``losses`` times ``weight``, whose mean divides by the sum of the weights."""
    if weight is None:
        return _reduced(op, losses, reduction)
    wanted = _same_shape(op, losses, weight)
    if reduction == "mean":
        return (losses * wanted).sum() / wanted.sum()
    return _reduced(op, losses * wanted, reduction)


def mse_loss(
    x: Tensor, target: Tensor | Array, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """weight · (x - target)²; the mean divides by the sum of the weights."""
    error = x - _same_shape("mse_loss", x, target)
    return _weighted("mse_loss", error * error, weight, reduction)


def l1_loss(
    x: Tensor, target: Tensor | Array, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """weight · |x - target|; the mean divides by the sum of the weights."""
    return _weighted("l1_loss", abs(x - _same_shape("l1_loss", x, target)), weight, reduction)


def smooth_l1_loss(x: Tensor, target: Tensor | Array, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """(x - target)² / (2 · beta) where |x - target| < beta, else |x - target| - beta / 2."""
    if beta < 0:
        raise OperandError(f"smooth_l1_loss: beta={beta} must not be negative")
    if beta == 0:
        return l1_loss(x, target, reduction)
    error = abs(x - _same_shape("smooth_l1_loss", x, target))
    losses = where(lt(error, beta), error * error * (0.5 / beta), error - 0.5 * beta)
    return _reduced("smooth_l1_loss", losses, reduction)


def huber_loss(
    x: Tensor,
    target: Tensor | Array,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """(x - target)² / 2 where |x - target| ≤ delta, else delta · (|x - target| - delta / 2).

    Times ``weight``; unlike that of mse_loss the mean divides by the number of elements, as in PyTorch.
    """
    if not delta > 0:
        raise OperandError(f"huber_loss: delta={delta} must be above 0")
    error = abs(x - _same_shape("huber_loss", x, target))
    losses = where(le(error, delta), error * error * 0.5, (error - 0.5 * delta) * delta)
    if weight is not None:
        losses = losses * _same_shape("huber_loss", losses, weight)
    return _reduced("huber_loss", losses, reduction)


# ------------------------------------------------------------------------------------ distances


def pairwise_distance(
    a: Tensor, b: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """‖a - b + eps‖ₚ along the last axis."""
    error = a - b + eps
    if p == 2:
        return sqrt((error * error).sum(-1, keepdim))
    return p_norm(error, p, -1, keepdim)


def cosine_similarity(a: Tensor, b: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """a · b / (max(‖a‖, eps) · max(‖b‖, eps)) along ``dim``."""
    return (normalize(a, 2.0, dim, eps) * normalize(b, 2.0, dim, eps)).sum(dim)


def cosine_embedding_loss(
    a: Tensor, b: Tensor, target: Tensor | Array, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos(a, b) where the target is 1, max(0, cos(a, b) - margin) where it is -1."""
    cosine = cosine_similarity(a, b, -1)
    losses = where(le(beside(target, a), -1), relu(cosine - margin), 1 - cosine)
    return _reduced("cosine_embedding_loss", losses, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, ‖anchor - positive‖ - ‖anchor - negative‖ + margin).

    ``swap``: the second distance is the smaller of those of negative to anchor and to positive.
    """
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = -maximum(-far, -pairwise_distance(positive, negative, p, eps))
    return _reduced("triplet_margin_loss", relu(near - far + margin), reduction)


def margin_ranking_loss(
    a: Tensor, b: Tensor, target: Tensor | Array, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, -target · (a - b) + margin): target 1 wants a above b, -1 below."""
    wanted = beside(target, a)
    return _reduced("margin_ranking_loss", relu(-wanted * (a - b) + margin), reduction)
