"""DenseNet: every layer sees what all layers before it in its block made."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import he_initialised
from nnlite.zoo.weights import Weights, with_weights


class DenseLayer(nn.Module):
    """``growth`` new channels behind the given ones: x [N,inputs,H,W] to [N,inputs+growth,H,W]."""

    def __init__(self, inputs: int, growth: int, bottleneck: int = 4) -> None:
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, bottleneck * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x and, behind it, the new channels."""
        y = self.conv1(self.relu1(self.norm1(x)))
        return F.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


def transition(inputs: int, outputs: int) -> nn.Sequential:
    """Between blocks: x [N,inputs,H,W] to [N,outputs,H/2,W/2]."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(
        {"norm": nn.BatchNorm2d(inputs), "relu": nn.ReLU(), "conv": conv, "pool": nn.AvgPool2d(2)}
    )


class DenseNet(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 224, works from 32 pixels up.

    ``layers``: layers in each block; each adds ``growth`` channels.
    Source: Huang et al. 2017, arXiv:1608.06993; torchvision's DenseNet.
    """

    def __init__(
        self, layers: Sequence[int] = (6, 12, 24, 16), growth: int = 32, num_classes: int = 1000
    ) -> None:
        channels = 2 * growth
        features: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, 2, 1),
        }
        for number, count in enumerate(layers, 1):
            block = {f"denselayer{i + 1}": DenseLayer(channels + i * growth, growth) for i in range(count)}
            features[f"denseblock{number}"] = nn.Sequential(block)
            channels += count * growth
            if number < len(layers):
                features[f"transition{number}"] = transition(channels, channels // 2)
                channels //= 2
        features["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        return self.classifier(F.flatten(self.avgpool(F.relu(self.features(x))), 1))


def current_name(name: str) -> str:
    """The name that torchvision's loader gives ``denselayer1.norm.1.weight`` of its published files."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)


def densenet121(weights: Weights = None, num_classes: int = 1000) -> DenseNet:
    """DenseNet-121 (8.0 M parameters, 2.8 G multiply-accumulates at 224); see :class:`DenseNet`."""
    model = DenseNet(num_classes=num_classes)
    return with_weights(model, weights, heads=("classifier",), rename=current_name)
