"""Batches in which every picture is mixed with another, and its label with the other's.

Both are pure functions of a batch and a generator; labels become rows of probabilities.
"""

from __future__ import annotations

import math

import numpy as np

from nnlite.data.random import permutation
from nnlite.errors import ConfigError
from nnlite.layout import Array

MIXES = ("none", "mixup", "cutmix")


def one_hot(labels: Array, classes: int) -> Array:
    """Integer labels [N] as float32 [N,classes]; values [N,K] stay as they are."""
    return labels if labels.ndim == 2 else np.eye(classes, dtype=np.float32)[labels]


def mixup(images: Array, targets: Array, rng: np.random.Generator, alpha: float = 0.2) -> tuple[Array, Array]:
    """λ·a + (1-λ)·b of every picture (or feature) a [N,...] and another b of the batch; targets [N,K] alike.

    λ is drawn once from Beta(``alpha``, ``alpha``). Source: Zhang et al. 2018, arXiv:1710.09412.
    """
    share = np.float32(_beta(rng, alpha))
    other = permutation(rng, len(images))
    mixed = images * share
    mixed += images[other] * (1 - share)
    return mixed, targets * share + targets[other] * (1 - share)


def cutmix(
    images: Array, targets: Array, rng: np.random.Generator, alpha: float = 1.0
) -> tuple[Array, Array]:
    """Every picture [N,C,H,W] with one rectangle, the same for all, taken from another of the batch.

    The rectangle's sides are √(1-λ) of the picture's, its centre is uniform, and λ from Beta(``alpha``,
    ``alpha``); targets are mixed by the part that really was replaced. Source: Yun et al. 2019,
    arXiv:1905.04899.
    """
    if images.ndim != 4:
        raise ConfigError("cutmix: needs pictures [N,C,H,W]; use mixup for features")
    H, W = images.shape[2:]
    side = math.sqrt(1 - _beta(rng, alpha))
    y, x = rng.uniform(0, H), rng.uniform(0, W)
    top, bottom = (round(min(max(y + sign * side * H / 2, 0), H)) for sign in (-1, 1))
    left, right = (round(min(max(x + sign * side * W / 2, 0), W)) for sign in (-1, 1))
    other = permutation(rng, len(images))
    mixed = images.copy(order="K")
    mixed[:, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    share = np.float32(1 - (bottom - top) * (right - left) / (H * W))
    return mixed, targets * share + targets[other] * (1 - share)


def _beta(rng: np.random.Generator, alpha: float) -> float:
    if not alpha > 0:
        raise ConfigError(f"alpha={alpha} must be positive")
    return float(rng.beta(alpha, alpha))
