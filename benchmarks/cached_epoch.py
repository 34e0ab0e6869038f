"""An epoch of head training over 10,000 cached features of 1280 numbers: python benchmarks/cached_epoch.py

Batches of 32, AdamW, as ``nnlite finetune`` trains a head; median of seven epochs.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from nnlite import functional as F
from nnlite import nn, optim, tensor

PICTURES, WIDTH, CLASSES, BATCH = 10_000, 1280, 8, 32


def main() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((PICTURES, WIDTH), dtype=np.float32)
    labels = rng.integers(0, CLASSES, PICTURES)
    head = nn.Linear(WIDTH, CLASSES)
    optimizer = optim.AdamW(head.parameters(), lr=3e-3)
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        order = rng.permutation(PICTURES)
        for begin in range(0, PICTURES, BATCH):
            chosen = np.sort(order[begin : begin + BATCH])
            loss = F.cross_entropy(head(tensor(features[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        taken.append(time.perf_counter() - start)
    print(f"{PICTURES} features of {WIDTH}: {statistics.median(taken):.3f} s an epoch (limit 1 s)")


if __name__ == "__main__":
    main()
