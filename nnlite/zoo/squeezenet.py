"""SqueezeNet: AlexNet's accuracy with a fiftieth of its parameters."""

from __future__ import annotations

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import he_initialised
from nnlite.zoo.weights import Weights, with_weights


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 side by side: [N,inputs,H,W] to [N,2·expand,H,W]."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both results, one after the other along the channels."""
        x = F.relu(self.squeeze(x))
        return F.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 224, works from 32 pixels up.

    ``version``: "1_0", the paper's, or "1_1", as accurate with 2.4 times less arithmetic.
    Source: Iandola et al. 2016, arXiv:1602.07360; torchvision's SqueezeNet.
    """

    def __init__(self, version: str = "1_0", num_classes: int = 1000) -> None:
        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        if version == "1_0":
            layers = [
                nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool(),
                Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), pool(),
                Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), pool(),
                Fire(512, 64, 256),
            ]  # fmt: skip
        else:
            layers = [
                nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
                Fire(64, 16, 64), Fire(128, 16, 64), pool(),
                Fire(128, 32, 128), Fire(256, 32, 128), pool(),
                Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
            ]  # fmt: skip
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(512, num_classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures; never negative, because the last layer has a ReLU."""
        return F.flatten(self.classifier(self.features(x)), 1)


def squeezenet1_0(weights: Weights = None, num_classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.0 (1.25 M parameters, 0.8 G multiply-accumulates at 224); see :class:`SqueezeNet`."""
    return with_weights(SqueezeNet("1_0", num_classes), weights, heads=("classifier.1",))


def squeezenet1_1(weights: Weights = None, num_classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.1 (1.24 M parameters, 0.35 G multiply-accumulates at 224); see :class:`SqueezeNet`."""
    return with_weights(SqueezeNet("1_1", num_classes), weights, heads=("classifier.1",))
