"""What a tuned network must beat: the majority class, a regression on its features, a small new CNN."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nnlite import nn
from nnlite.data import Dataset, Loader, Preprocessing
from nnlite.layout import Array
from nnlite.optim import AdamW
from nnlite.tensors import Tensor
from nnlite.transfer import logistic, ridge
from nnlite.transfer.inference import Progress, run_over, silent, softmax
from nnlite.transfer.targets import Targets
from nnlite.transfer.training import EpochRecord, Phase

SCRATCH_SIDE = 64
SCRATCH_WIDTHS = (16, 32, 64, 128)


def probe(
    targets: Targets, features: Array, labels: Array, held_features: Array, held_labels: Array
) -> dict[str, Any]:
    """A linear model on the frozen features, solved exactly, its regularisation cross-validated.

    Multinomial logistic regression for classes, one logistic regression for each label, ridge regression
    for numbers.
    """
    start = time.perf_counter()
    told: dict[str, Any] = {}
    if targets.task == "single":
        model = logistic.fit(features, labels, len(targets.names))
        scores, told["c"] = softmax(model.logits(held_features)), model.c
    elif targets.task == "multi":
        scores = np.stack(
            [_one_label(features, labels[:, k], held_features) for k in range(labels.shape[1])], 1
        )
    else:
        line = ridge.fit(features, labels)
        scores, told["penalty"] = line.predict(held_features), line.penalty
    return {**_figures(targets, held_labels, scores), **told, "seconds": time.perf_counter() - start}


def _one_label(features: Array, labels: Array, held_features: Array) -> Array:
    known = labels.astype(np.int64)
    if len(np.unique(known)) < 2:  # always, or never, as far as is known
        return np.full(len(held_features), float(known[0]))
    return softmax(logistic.fit(features, known, 2).logits(held_features))[:, 1]


def _figures(targets: Targets, labels: Array, scores: Array) -> dict[str, Any]:
    value = targets.report(labels, scores)["quality"]["value"]
    return {"quality": value, "accuracy": value} if targets.task == "single" else {"quality": value}


def small_cnn(classes: int) -> nn.Sequential:
    """Four blocks of 3x3 convolution, batch normalisation, ReLU, 2x2 pooling; global average; linear."""
    layers: list[nn.Module] = []
    channels = 3
    for width in SCRATCH_WIDTHS:
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


def from_scratch(
    folder: Dataset,
    targets: Targets,
    presentations: int,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    on_bad_image: Any,
    progress: Progress = silent,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> dict[str, Any]:
    """Train the small CNN on about as many picture presentations as the fine-tuning had; its quality."""
    start = time.perf_counter()
    preprocessing = Preprocessing.named("imagenet", SCRATCH_SIDE, crop=1.0)
    options: dict[str, Any] = dict(seed=seed, workers=workers, on_bad_image=on_bad_image)
    train = Loader(folder.train, preprocessing.training(), batch_size, shuffle=True, **options)
    held_out = Loader(folder.validation, preprocessing.evaluation(), 8, cache_bytes=0, **options)
    module = small_cnn(len(folder.classes))
    epochs = max(1, round(presentations / len(folder.train)))

    def batches(epoch: int, first: int) -> Any:
        what = f"scratch {epoch + 1}/{epochs}"
        return ((b.images, b.labels) for b in progress(train.epoch(epoch, first), what, len(train) - first))

    Phase(
        "scratch",
        module,
        AdamW(module.parameters(), lr=3e-3, weight_decay=1e-2),
        epochs,
        len(train),
        batches,
        targets=targets,
    ).run(on_epoch)
    module.eval()
    logits, labels, _ = run_over(
        lambda images: module(Tensor(images)).numpy(), held_out, 0, "scratch", silent
    )
    return {
        **_figures(targets, labels, targets.scores(logits)),
        "epochs": epochs,
        "presentations": epochs * len(folder.train),
        "seconds": time.perf_counter() - start,
    }
