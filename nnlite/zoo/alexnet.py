"""AlexNet, in the one-column version that torchvision has."""

from __future__ import annotations

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.vgg import FixedPool
from nnlite.zoo.weights import Weights, with_weights


class AlexNet(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; made for 224 pixels, works from 63 up.

    ``hidden``: width of the fully connected layers, which hold most of the parameters.
    Source: Krizhevsky 2014, arXiv:1404.5997; torchvision's AlexNet.
    """

    def __init__(self, num_classes: int = 1000, hidden: int = 4096) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = FixedPool(6)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, hidden), nn.ReLU(),
            nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


def alexnet(weights: Weights = None, num_classes: int = 1000) -> AlexNet:
    """AlexNet (61.1 M parameters, 0.7 G multiply-accumulates at 224); see :class:`AlexNet`."""
    return with_weights(AlexNet(num_classes), weights, heads=("classifier.6",))
