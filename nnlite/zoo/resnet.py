"""ResNet and ResNeXt: blocks that add what they learn to their input."""

from __future__ import annotations

from collections.abc import Sequence

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import he_initialised
from nnlite.zoo.weights import Weights, with_weights


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: x [N,inputs,H,W] to [N,planes,H/stride,W/stride]."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, base_width: int) -> None:
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """relu(f(x) + shortcut(x))."""
        y = self.bn1(self.conv1(x), activation="relu")
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(y), shortcut, "relu")


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride and the groups), 1x1 to four times as many channels, and a shortcut.

    x [N,inputs,H,W] to [N,4·planes,H/stride,W/stride]. The stride sits on the 3x3 convolution
    ("ResNet 1.5"), not on the first one as in the paper.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, base_width: int) -> None:
        width, outputs = planes * base_width // 64 * groups, planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """relu(f(x) + shortcut(x))."""
        y = self.bn1(self.conv1(x), activation="relu")
        y = self.bn2(self.conv2(y), activation="relu")
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn3(self.conv3(y), shortcut, "relu")


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A 1x1 convolution where the block changes the shape; None where x itself will do."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 224, works from 32 pixels up.

    ``layers``: blocks in each of four stages. ``groups`` and ``width_per_group`` make a ResNeXt.
    Source: He et al. 2016, arXiv:1512.03385; Xie et al. 2017, arXiv:1611.05431; torchvision's ResNet.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, stages = 64, []
        for number, count in enumerate(layers):
            planes, stride, blocks = 64 << number, 1 if number == 0 else 2, []
            for index in range(count):
                blocks.append(block(inputs, planes, stride if index == 0 else 1, groups, width_per_group))
                inputs = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        he_initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        x = self.maxpool(self.bn1(self.conv1(x), activation="relu"))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.flatten(self.avgpool(x), 1))


def resnet18(weights: Weights = None, num_classes: int = 1000) -> ResNet:
    """ResNet-18 (11.7 M parameters, 1.8 G multiply-accumulates at 224); see :class:`ResNet`."""
    return with_weights(ResNet(BasicBlock, (2, 2, 2, 2), num_classes), weights, heads=("fc",))


def resnet34(weights: Weights = None, num_classes: int = 1000) -> ResNet:
    """ResNet-34 (21.8 M parameters, 3.7 G multiply-accumulates at 224); see :class:`ResNet`."""
    return with_weights(ResNet(BasicBlock, (3, 4, 6, 3), num_classes), weights, heads=("fc",))


def resnet50(weights: Weights = None, num_classes: int = 1000) -> ResNet:
    """ResNet-50 (25.6 M parameters, 4.1 G multiply-accumulates at 224); see :class:`ResNet`."""
    return with_weights(ResNet(Bottleneck, (3, 4, 6, 3), num_classes), weights, heads=("fc",))


def resnet101(weights: Weights = None, num_classes: int = 1000) -> ResNet:
    """ResNet-101 (44.5 M parameters, 7.8 G multiply-accumulates at 224); see :class:`ResNet`."""
    return with_weights(ResNet(Bottleneck, (3, 4, 23, 3), num_classes), weights, heads=("fc",))


def resnext50_32x4d(weights: Weights = None, num_classes: int = 1000) -> ResNet:
    """ResNeXt-50, 32 groups of 4 channels (25.0 M parameters, 4.2 G multiply-accumulates at 224)."""
    return with_weights(ResNet(Bottleneck, (3, 4, 6, 3), num_classes, 32, 4), weights, heads=("fc",))
