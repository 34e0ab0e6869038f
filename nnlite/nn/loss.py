"""Losses as modules; formulas stand in ``nnlite.functional``, options are keywords as in PyTorch."""

from __future__ import annotations

from nnlite import functional as F
from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.module import Module
from nnlite.nn.parameter import Buffer
from nnlite.ops.loss import REDUCTIONS
from nnlite.tensors import Tensor


class _Loss(Module):
    _reductions: tuple[str, ...] = REDUCTIONS

    def __init__(self, reduction: str) -> None:
        if reduction not in self._reductions:
            listed = ", ".join(self._reductions)
            raise ConfigError(f"{type(self).__name__}: reduction={reduction!r} must be one of {listed}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"reduction={self.reduction!r}"


def _kept(weight: Tensor | Array | None) -> Buffer | None:
    """Weights as a buffer: saved with the loss, and copied."""
    return None if weight is None else Buffer(weight)


class CrossEntropyLoss(_Loss):
    """-weight · ln softmax(logits) at the target, for logits [N,classes,...].

    Targets are integer labels [N,...], of which ``ignore_index`` ones do not count, or probabilities.
    ``weight`` [classes] is a buffer, saved with the loss.
    Raises ConfigError for options out of range. Source: op ``cross_entropy``; torch.nn.CrossEntropyLoss.
    """

    def __init__(
        self,
        weight: Tensor | Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"CrossEntropyLoss: label_smoothing={label_smoothing} must be in [0, 1)")
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.weight = _kept(weight)

    def forward(self, logits: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        options = (self.ignore_index, self.reduction, self.label_smoothing)
        return F.cross_entropy(logits, target, self.weight, *options)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"reduction={self.reduction!r}, label_smoothing={self.label_smoothing}"


class NLLLoss(_Loss):
    """-weight · x at the labels, for log-probabilities x [N,classes,...]."""

    def __init__(
        self, weight: Tensor | Array | None = None, ignore_index: int = -100, *, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index = _kept(weight), ignore_index

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.nll_loss(x, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """(x - target)²."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """|x - target|."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.l1_loss(x, target, self.reduction)


class SmoothL1Loss(_Loss):
    """(x - target)² / (2 · beta) where |x - target| < beta, else |x - target| - beta / 2."""

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.smooth_l1_loss(x, target, self.reduction, self.beta)


class HuberLoss(_Loss):
    """(x - target)² / 2 where |x - target| ≤ delta, else delta · (|x - target| - delta / 2)."""

    def __init__(self, *, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.huber_loss(x, target, self.reduction, self.delta)


class BCELoss(_Loss):
    """-(target · ln x + (1 - target) · ln(1 - x)) of probabilities x."""

    def __init__(self, weight: Tensor | Array | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = _kept(weight)

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.binary_cross_entropy(x, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of sigmoid(x), without overflow."""

    def __init__(
        self,
        weight: Tensor | Array | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Tensor | Array | None = None,
    ) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = _kept(weight), _kept(pos_weight)

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight)


class KLDivLoss(_Loss):
    """target · (ln target - x) for log-probabilities x; reduction may be "batchmean"."""

    _reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.kl_div(x, target, self.reduction, self.log_target)


class MultiMarginLoss(_Loss):
    """Σ weight_t · max(0, margin - x_t + x_j)ᵖ / C over j ≠ t: the hinge loss of scores x [N,C]."""

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | Array | None = None,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.p, self.margin, self.weight = p, margin, _kept(weight)

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.multi_margin_loss(x, target, self.p, self.margin, self.weight, self.reduction)


class SoftMarginLoss(_Loss):
    """ln(1 + exp(-target · x)) for targets 1 and -1."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.soft_margin_loss(x, target, self.reduction)


class HingeEmbeddingLoss(_Loss):
    """x where the target is 1, max(0, margin - x) where it is -1."""

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.hinge_embedding_loss(x, target, self.margin, self.reduction)


class CosineEmbeddingLoss(_Loss):
    """1 - cos(a, b) where the target is 1, max(0, cos(a, b) - margin) where it is -1."""

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, a: Tensor, b: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.cosine_embedding_loss(a, b, target, self.margin, self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, -target · (a - b) + margin)."""

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, a: Tensor, b: Tensor, target: Tensor | Array) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.margin_ranking_loss(a, b, target, self.margin, self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, ‖anchor - positive‖ - ‖anchor - negative‖ + margin)."""

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss, a scalar unless reduction is "none"."""
        return F.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class CosineSimilarity(Module):
    """a · b / (max(‖a‖, eps) · max(‖b‖, eps)) along ``dim``."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The cosine of the angle between a and b."""
        return F.cosine_similarity(a, b, self.dim, self.eps)


class PairwiseDistance(Module):
    """‖a - b + eps‖ₚ along the last axis."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of a and b."""
        return F.pairwise_distance(a, b, self.norm, self.eps, self.keepdim)
