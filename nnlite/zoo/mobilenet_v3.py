"""MobileNetV3: found by search, with squeeze-and-excitation and hard swish."""

from __future__ import annotations

import re
from typing import NamedTuple

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import SqueezeExcitation, conv_norm_act, he_initialised, rounded, timm_block_names
from nnlite.zoo.weights import Weights, with_weights

EPS, MOMENTUM = 0.001, 0.01


class Row(NamedTuple):
    """One block: the tables 1 and 2 of the paper."""

    kernel: int
    hidden: int
    outputs: int
    squeeze: bool
    hardswish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise, squeeze-and-excitation, 1x1 back without activation.

    x [N,inputs,H,W] to [N,outputs,H/stride,W/stride], added to x where the shapes are equal.
    """

    def __init__(self, inputs: int, row: Row) -> None:
        act: type[nn.Module] = nn.Hardswish if row.hardswish else nn.ReLU
        hidden = row.hidden
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(conv_norm_act(inputs, hidden, 1, act=act, eps=EPS, momentum=MOMENTUM))
        depthwise = conv_norm_act(
            hidden, hidden, row.kernel, row.stride, hidden, act, eps=EPS, momentum=MOMENTUM
        )
        layers.append(depthwise)
        if row.squeeze:
            layers.append(SqueezeExcitation(hidden, rounded(hidden // 4), nn.ReLU, nn.Hardsigmoid))
        layers.append(conv_norm_act(hidden, row.outputs, 1, act=None, eps=EPS, momentum=MOMENTUM))
        self.block = nn.Sequential(*layers)
        self.residual = row.stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:
        """block(x), plus x where that fits."""
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 224, works from 32 pixels up.

    ``rows``: one for each block; ``hidden``: width of the layer before the last.
    Source: Howard et al. 2019, arXiv:1905.02244; torchvision's MobileNetV3.
    """

    def __init__(self, rows: tuple[Row, ...], hidden: int, num_classes: int = 1000) -> None:
        inputs, act = 16, nn.Hardswish
        layers: list[nn.Module] = [conv_norm_act(3, inputs, 3, 2, act=act, eps=EPS, momentum=MOMENTUM)]
        for row in rows:
            layers.append(InvertedResidual(inputs, row))
            inputs = row.outputs
        layers.append(conv_norm_act(inputs, 6 * inputs, 1, act=act, eps=EPS, momentum=MOMENTUM))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * inputs, hidden), act(), nn.Dropout(0.2), nn.Linear(hidden, num_classes)
        )
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


# ---------------------------------------------------------------------------------- timm's files

DEPTHS = {LARGE: (1, 2, 3, 4, 2, 3), SMALL: (1, 2, 3, 2, 3)}
"""How many blocks each stage has: where timm counts anew."""
TIMM_EPS = 1e-5


def from_timm(name: str, rows: tuple[Row, ...]) -> str:
    """torchvision's name of a timm ``mobilenetv3_large_100`` or ``..._small_100`` parameter."""
    depths, last = DEPTHS[rows], len(rows) + 1
    outer = {
        "conv_stem": "features.0.0", "bn1": "features.0.1",
        f"blocks.{len(depths)}.0.conv": f"features.{last}.0",
        f"blocks.{len(depths)}.0.bn1": f"features.{last}.1",
        "conv_head": "classifier.0", "classifier": "classifier.3",
    }  # fmt: skip
    layer, _, kind = name.rpartition(".")
    if layer in outer:
        return f"{outer[layer]}.{kind}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+(?:\.\w+)?)", layer)
    if match is None or int(match[1]) >= len(depths):
        return name
    number = sum(depths[: int(match[1])]) + int(match[2])
    if number >= len(rows):
        return name
    inner = timm_block_names(expands=number > 0, squeezes=rows[number].squeeze)
    return f"features.{number + 1}.block.{inner.get(match[3], match[3])}.{kind}"


def normalise_as_timm(model: MobileNetV3) -> None:
    """timm's MobileNetV3 was trained with another epsilon than torchvision's."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = TIMM_EPS


def _mobilenet_v3(rows: tuple[Row, ...], hidden: int, weights: Weights, num_classes: int) -> MobileNetV3:
    return with_weights(
        MobileNetV3(rows, hidden, num_classes), weights, heads=("classifier.3",),
        rename=lambda name: from_timm(name, rows), adapt=normalise_as_timm,
    )  # fmt: skip


def mobilenet_v3_large(weights: Weights = None, num_classes: int = 1000) -> MobileNetV3:
    """MobileNetV3-Large (5.5 M parameters, 0.22 G multiply-accumulates at 224); see :class:`MobileNetV3`."""
    return _mobilenet_v3(LARGE, 1280, weights, num_classes)


def mobilenet_v3_small(weights: Weights = None, num_classes: int = 1000) -> MobileNetV3:
    """MobileNetV3-Small (2.5 M parameters, 0.06 G multiply-accumulates at 224); see :class:`MobileNetV3`."""
    return _mobilenet_v3(SMALL, 1024, weights, num_classes)
