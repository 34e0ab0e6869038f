"""VGG: 3x3 convolutions, halved five times, and three large fully connected layers."""

from __future__ import annotations

import re

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import he_initialised
from nnlite.zoo.weights import Weights, with_weights

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""Channels of each convolution; "M" halves the picture."""


class VGG(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; made for 224 pixels, works from 32 up.

    ``hidden``: width of the fully connected layers, which hold most of the parameters.
    Source: Simonyan and Zisserman 2015, arXiv:1409.1556; torchvision's VGG.
    """

    def __init__(
        self, plan: tuple[int | str, ...], norm: bool = False, num_classes: int = 1000, hidden: int = 4096
    ) -> None:
        inputs, layers = 3, list[nn.Module]()
        for outputs in plan:
            if isinstance(outputs, str):
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if norm else [nn.ReLU()]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = FixedPool(7)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 7 * 7, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


class FixedPool(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling that leaves alone what has the right size already.

    Pictures of the size that the network was made for need no pooling, nor does an exported file.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] to [N,C,*output_size]."""
        return x if x.shape[2:] == self.output_size else super().forward(x)


def from_timm(name: str) -> str:
    """torchvision's name of a timm VGG parameter; fc1 and fc2 are 7x7 and 1x1 convolutions there."""
    for theirs, ours in (("pre_logits.fc1", "0"), ("pre_logits.fc2", "3"), ("head.fc", "6")):
        name = re.sub(rf"^{re.escape(theirs)}\.", f"classifier.{ours}.", name)
    return name


def _vgg(plan: tuple[int | str, ...], norm: bool, weights: Weights, num_classes: int) -> VGG:
    return with_weights(VGG(plan, norm, num_classes), weights, heads=("classifier.6",), rename=from_timm)


def vgg11(weights: Weights = None, num_classes: int = 1000) -> VGG:
    """VGG-11, "A" (132.9 M parameters, 7.6 G multiply-accumulates at 224); see :class:`VGG`."""
    return _vgg(VGG11, False, weights, num_classes)


def vgg11_bn(weights: Weights = None, num_classes: int = 1000) -> VGG:
    """VGG-11 with batch normalisation (132.9 M parameters); see :class:`VGG`."""
    return _vgg(VGG11, True, weights, num_classes)


def vgg16(weights: Weights = None, num_classes: int = 1000) -> VGG:
    """VGG-16, "D" (138.4 M parameters, 15.5 G multiply-accumulates at 224); see :class:`VGG`."""
    return _vgg(VGG16, False, weights, num_classes)


def vgg16_bn(weights: Weights = None, num_classes: int = 1000) -> VGG:
    """VGG-16 with batch normalisation (138.4 M parameters); see :class:`VGG`."""
    return _vgg(VGG16, True, weights, num_classes)
