"""GoogLeNet (Inception-v1), with batch normalisation as in torchvision."""

from __future__ import annotations

from typing import Any, NamedTuple

from nnlite import functional as F
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import he_initialised
from nnlite.zoo.inception import BasicConv2d, checked_transform, to_unit_range
from nnlite.zoo.weights import Weights, with_weights

BLOCKS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
"""Inputs, 1x1, narrow and wide 3x3, narrow and wide second 3x3, pooled channels."""


class Inception(nn.Module):
    """1x1, two narrowed 3x3 and pooling side by side, joined along the channels.

    The third branch is 5x5 in the paper; torchvision's weights were trained with 3x3.
    """

    def __init__(
        self, inputs: int, one: int, narrow3: int, wide3: int, narrow5: int, wide5: int, pooled: int
    ) -> None:
        self.branch1 = BasicConv2d(inputs, one, 1)
        self.branch2 = nn.Sequential(
            BasicConv2d(inputs, narrow3, 1), BasicConv2d(narrow3, wide3, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(inputs, narrow5, 1), BasicConv2d(narrow5, wide5, 3, padding=1)
        )
        pool = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
        self.branch4 = nn.Sequential(pool, BasicConv2d(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N,inputs,H,W] to [N,one+wide3+wide5+pooled,H,W]."""
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNetAux(nn.Module):
    """A second classifier half-way up, which helps training: [N,inputs,H,W] to [N,num_classes]."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        self.conv = BasicConv2d(inputs, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        x = F.flatten(self.conv(F.adaptive_avg_pool2d(x, 4)), 1)  # [N,2048]
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNetOutputs(NamedTuple):
    """What training gets: the loss is usually that of ``logits`` plus 0.3 times those of the others."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class GoogLeNet(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 224, works from 32 pixels up.

    With ``aux_logits``, ``forward`` in training returns :class:`GoogLeNetOutputs`; in evaluation it is always
    the logits alone. ``transform_input`` turns pictures normalised by ImageNet's mean and deviation into
    [-1,1], which torchvision's published weights were trained with.
    Source: Szegedy et al. 2015, arXiv:1409.4842; torchvision's GoogLeNet.
    """

    def __init__(
        self, num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False
    ) -> None:
        self.aux_logits, self.transform_input = aux_logits, transform_input
        self.conv1 = BasicConv2d(3, 64, 7, 2, 3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, 1)
        self.conv3 = BasicConv2d(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(*BLOCKS["3a"])
        self.inception3b = Inception(*BLOCKS["3b"])
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(*BLOCKS["4a"])
        self.inception4b = Inception(*BLOCKS["4b"])
        self.inception4c = Inception(*BLOCKS["4c"])
        self.inception4d = Inception(*BLOCKS["4d"])
        self.inception4e = Inception(*BLOCKS["4e"])
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = Inception(*BLOCKS["5a"])
        self.inception5b = Inception(*BLOCKS["5b"])
        self.aux1 = GoogLeNetAux(512, num_classes) if aux_logits else None
        self.aux2 = GoogLeNetAux(528, num_classes) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, num_classes)
        he_initialised(self)

    def forward(self, x: Tensor) -> Any:
        """Logits of the pictures; in training with ``aux_logits``, :class:`GoogLeNetOutputs`."""
        if self.transform_input:
            x = to_unit_range(x)
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = early = self.inception4a(x)
        x = late = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.inception5b(self.inception5a(self.maxpool4(self.inception4e(x))))
        logits = self.fc(self.dropout(F.flatten(self.avgpool(x), 1)))
        if self.aux1 is None or self.aux2 is None or not self.training:
            return logits
        return GoogLeNetOutputs(logits, self.aux2(late), self.aux1(early))


def googlenet(
    weights: Weights = None,
    num_classes: int = 1000,
    aux_logits: bool = True,
    transform_input: bool | None = None,
) -> GoogLeNet:
    """GoogLeNet (6.6 M parameters, 13.0 M with auxiliary heads, 1.5 G multiply-accumulates at 224).

    ``transform_input`` must be given with ``weights``: True for torchvision's published file, and what
    the model was trained with for your own. See :class:`GoogLeNet`.
    """
    model = GoogLeNet(num_classes, aux_logits, checked_transform("googlenet", weights, transform_input))
    heads = ("fc", "aux1.fc2", "aux2.fc2")
    return with_weights(model, weights, heads=heads, dropped=() if aux_logits else ("aux1.", "aux2."))
