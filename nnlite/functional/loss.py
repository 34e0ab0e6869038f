"""Losses."""

from __future__ import annotations

import numpy as np

from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply


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
