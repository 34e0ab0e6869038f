"""A small CNN from start to end: two convolutions, ten classes, 32x32 colour pictures.

    python examples/small_cnn.py [epochs] [pictures]

Two blocks of 3x3 convolution, ReLU and 2x2 pooling, then two linear layers; cross-entropy; SGD with learning
rate 0.001 and momentum 0.9. docs/survey.md says why these lines differ from listings of the same
network that one often sees.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from pictures import ten_classes

import nnlite as nl
from nnlite import functional as F
from nnlite import nn


class SmallCNN(nn.Module):
    """x [N,3,32,32] -> logits [N,10]."""

    def __init__(self) -> None:
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        # Two poolings halve 32 twice: 64 channels of 8x8 remain.
        self.fc1 = nn.Linear(64 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: nl.Tensor) -> nl.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # [N,32,16,16]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [N,64,8,8]
        x = F.flatten(x, 1)  # [N,4096]
        return self.fc2(F.relu(self.fc1(x)))


def accuracy(model: nn.Module, pictures: np.ndarray, labels: np.ndarray) -> float:
    """Part of ``pictures`` that the model names rightly."""
    model.eval()
    right = 0
    with nl.no_grad():
        for i in range(0, len(labels), 256):
            logits = model(nl.asarray(pictures[i : i + 256])).numpy()
            right += int((logits.argmax(1) == labels[i : i + 256]).sum())
    return right / len(labels)


def train(model: nn.Module, pictures: np.ndarray, labels: np.ndarray, epochs: int, batch: int = 64) -> None:
    """SGD over shuffled batches."""
    optimizer = nl.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        model.train()
        start, losses = time.perf_counter(), []
        order = rng.permutation(len(labels))
        for i in range(0, len(order), batch):
            chosen = order[i : i + batch]
            loss = F.cross_entropy(model(nl.asarray(pictures[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, {time.perf_counter() - start:.1f} s", flush=True
        )


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    nl.manual_seed(0)
    (pictures, labels), name = ten_classes(train=True, count=count)
    (held_out, held_labels), _ = ten_classes(train=False, count=2000)
    print(f"{name}: {len(labels)} pictures to learn from, {len(held_labels)} held out")
    model = SmallCNN()
    print(f"before training {accuracy(model, held_out, held_labels):.1%}")
    train(model, pictures, labels, epochs)
    print(f"after training {accuracy(model, held_out, held_labels):.1%}")


if __name__ == "__main__":
    main()
