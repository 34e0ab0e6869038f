"""MobileNetV2: depthwise convolutions between thin, linear bottlenecks."""

from __future__ import annotations

import re

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import conv_norm_act, he_initialised, rounded
from nnlite.zoo.weights import Weights, with_weights

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, stride of the first block."""


class InvertedResidual(nn.Module):
    """1x1 to ``expansion`` times the channels, 3x3 depthwise, 1x1 back without activation.

    x [N,inputs,H,W] to [N,outputs,H/stride,W/stride], added to x where the shapes are equal.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_norm_act(inputs, hidden, 1, act=nn.ReLU6))
        layers.append(conv_norm_act(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """conv(x), plus x where that fits."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 224, works from 32 pixels up.

    ``width``: factor on all channels.
    Source: Sandler et al. 2018, arXiv:1801.04381; torchvision's MobileNetV2.
    """

    def __init__(self, num_classes: int = 1000, width: float = 1.0) -> None:
        inputs, last = rounded(32 * width), rounded(1280 * max(1.0, width))
        layers: list[nn.Module] = [conv_norm_act(3, inputs, 3, 2, act=nn.ReLU6)]
        for expansion, channels, count, stride in STAGES:
            for index in range(count):
                outputs = rounded(channels * width)
                layers.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        layers.append(conv_norm_act(inputs, last, 1, act=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


def from_timm(name: str) -> str:
    """torchvision's name of a timm ``mobilenetv2_100`` parameter."""
    outer = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": "features.18.0",
        "bn2": "features.18.1",
    }
    layer, _, kind = name.rpartition(".")
    if layer in outer or layer == "classifier":
        return f"{outer.get(layer, 'classifier.1')}.{kind}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", layer)
    if match is None:
        return name
    stage, index, part = int(match[1]), int(match[2]), match[3]
    inner = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
    if stage == 0:  # the one block that does not expand
        inner = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    number = 1 + sum(count for _, _, count, _ in STAGES[:stage]) + index
    return f"features.{number}.conv.{inner.get(part, part)}.{kind}"


def mobilenet_v2(weights: Weights = None, num_classes: int = 1000) -> MobileNetV2:
    """MobileNetV2 (3.5 M parameters, 0.3 G multiply-accumulates at 224); see :class:`MobileNetV2`."""
    return with_weights(MobileNetV2(num_classes), weights, heads=("classifier.1",), rename=from_timm)
