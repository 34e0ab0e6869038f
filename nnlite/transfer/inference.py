"""Running plans over pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from nnlite.data import Batch, Loader
from nnlite.layout import Array

Progress = Callable[[Iterable[Batch], str, int], Iterable[Batch]]
"""(batches, what is done, how many) -> the same batches, shown as they pass."""


def silent(batches: Iterable[Batch], what: str, count: int) -> Iterable[Batch]:
    """Progress that shows nothing."""
    return batches


def run_over(
    function: Callable[[Array], Array], loader: Loader, epoch: int, what: str, progress: Progress = silent
) -> tuple[Array, Array, Array]:
    """Outputs [M,...], labels [M] and sample indices [M] of one epoch of ``loader``."""
    outputs, labels, indices = [], [], []
    for batch in progress(loader.epoch(epoch), what, len(loader)):
        outputs.append(function(batch.images).copy())
        labels.append(batch.labels)
        indices.append(batch.indices)
    return np.concatenate(outputs), np.concatenate(labels), np.concatenate(indices)


def softmax(logits: Array) -> Array:
    """Probabilities [N,classes] of logits [N,classes], in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    exponentials: Array = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))
