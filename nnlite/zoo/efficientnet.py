"""EfficientNet-B0: MobileNet's blocks with squeeze-and-excitation and SiLU, found by search."""

from __future__ import annotations

import re

import numpy as np

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import SqueezeExcitation, conv_norm_act, he_initialised, timm_block_names
from nnlite.zoo.weights import Weights, with_weights

STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, stride of the first block, channels, blocks."""


class StochasticDepth(nn.Module):
    """In training, zero whole pictures of the batch with probability ``p`` and scale the rest by 1 / (1 - p).

    Source: Huang et al. 2016, arXiv:1603.09382; torchvision.ops.StochasticDepth, mode "row".
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W], times 0 or 1 / (1 - p)."""
        if self.p == 0 or not self.training or self.frozen:
            return x
        return x * F.dropout(Tensor(np.ones((x.shape[0], 1, 1, 1), x.dtype)), self.p)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"p={self.p}"


class MBConv(nn.Module):
    """1x1 to ``expansion`` times the channels, depthwise, squeeze-and-excitation, 1x1 without activation.

    x [N,inputs,H,W] to [N,outputs,H/stride,W/stride]; where the shapes are equal it is added to x, or
    in training sometimes left out altogether.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_norm_act(inputs, hidden, 1, act=nn.SiLU))
        layers.append(conv_norm_act(hidden, hidden, kernel, stride, hidden, nn.SiLU))
        layers.append(SqueezeExcitation(hidden, max(1, inputs // 4), nn.SiLU, nn.Sigmoid))
        layers.append(conv_norm_act(hidden, outputs, 1, act=None))
        self.block = nn.Sequential(*layers)
        self.stochastic_depth = StochasticDepth(drop)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """block(x), plus x where that fits."""
        return x + self.stochastic_depth(self.block(x)) if self.residual else self.block(x)


class EfficientNet(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; B0 is trained at 224, works from 32 pixels up.

    ``drop``: the probability that training leaves out the last block, falling to 0 for the first.
    Source: Tan and Le 2019, arXiv:1905.11946; torchvision's EfficientNet.
    """

    def __init__(self, num_classes: int = 1000, drop: float = 0.2) -> None:
        layers: list[nn.Module] = [conv_norm_act(3, 32, 3, 2, act=nn.SiLU)]
        inputs, done, total = 32, 0, sum(count for *_, count in STAGES)
        for expansion, kernel, stride, outputs, count in STAGES:
            blocks = []
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(MBConv(inputs, outputs, kernel, step, expansion, drop * done / total))
                inputs, done = outputs, done + 1
            layers.append(nn.Sequential(*blocks))
        layers.append(conv_norm_act(inputs, 4 * inputs, 1, act=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * inputs, num_classes))
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


def from_timm(name: str) -> str:
    """torchvision's name of a timm ``efficientnet_b0`` parameter."""
    outer = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": "features.8.0",
        "bn2": "features.8.1",
    }
    layer, _, kind = name.rpartition(".")
    if layer in outer or layer == "classifier":
        return f"{outer.get(layer, 'classifier.1')}.{kind}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+(?:\.\w+)?)", layer)
    if match is None:
        return name
    stage, index, part = int(match[1]), match[2], match[3]
    inner = timm_block_names(expands=stage > 0, squeezes=True)
    return f"features.{stage + 1}.{index}.block.{inner.get(part, part)}.{kind}"


def efficientnet_b0(weights: Weights = None, num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B0 (5.3 M parameters, 0.4 G multiply-accumulates at 224); see :class:`EfficientNet`."""
    return with_weights(EfficientNet(num_classes), weights, heads=("classifier.1",), rename=from_timm)
