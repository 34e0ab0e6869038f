"""Inception-v3: convolutions of several shapes side by side, large ones taken apart into thin ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnlite import functional as F
from nnlite import nn
from nnlite.errors import ConfigError
from nnlite.functional import Size
from nnlite.tensors import Tensor
from nnlite.zoo.blocks import he_initialised
from nnlite.zoo.weights import Weights, with_weights

EPS = 0.001
TALL: dict[str, Size] = {"kernel": (7, 1), "padding": (3, 0)}
WIDE: dict[str, Size] = {"kernel": (1, 7), "padding": (0, 3)}


class BasicConv2d(nn.Module):
    """relu(bn(conv(x))); the convolution has no bias."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: Size = 1, padding: Size = 0) -> None:
        pads = padding if isinstance(padding, int) else tuple(padding)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pads, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """relu(bn(conv(x)))."""
        return F.relu(self.bn(self.conv(x)))


class InceptionA(nn.Module):
    """1x1, 5x5, 3x3 twice, and pooling: [N,inputs,H,W] to [N,224+pooled,H,W]."""

    def __init__(self, inputs: int, pooled: int) -> None:
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """All branches, one after the other along the channels."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch1x1(x), five, double, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionB(nn.Module):
    """Halves the picture: [N,inputs,H,W] to [N,480+inputs,(H-1)/2,(W-1)/2]."""

    def __init__(self, inputs: int) -> None:
        self.branch3x3 = BasicConv2d(inputs, 384, 3, 2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """All branches, one after the other along the channels."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """7x7 as 1x7 and 7x1, once and twice: [N,inputs,H,W] to [N,768,H,W]."""

    def __init__(self, inputs: int, width: int) -> None:
        self.branch1x1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7_1 = BasicConv2d(inputs, width, 1)
        self.branch7x7_2 = BasicConv2d(width, width, **WIDE)
        self.branch7x7_3 = BasicConv2d(width, 192, **TALL)
        self.branch7x7dbl_1 = BasicConv2d(inputs, width, 1)
        self.branch7x7dbl_2 = BasicConv2d(width, width, **TALL)
        self.branch7x7dbl_3 = BasicConv2d(width, width, **WIDE)
        self.branch7x7dbl_4 = BasicConv2d(width, width, **TALL)
        self.branch7x7dbl_5 = BasicConv2d(width, 192, **WIDE)
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """All branches, one after the other along the channels."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return F.cat([self.branch1x1(x), seven, double, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionD(nn.Module):
    """Halves the picture: [N,inputs,H,W] to [N,512+inputs,(H-1)/2,(W-1)/2]."""

    def __init__(self, inputs: int) -> None:
        self.branch3x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, 2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, **WIDE)
        self.branch7x7x3_3 = BasicConv2d(192, 192, **TALL)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """All branches, one after the other along the channels."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return F.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1
        )


class InceptionE(nn.Module):
    """3x3 as 1x3 beside 3x1, once and behind a 3x3: [N,inputs,H,W] to [N,2048,H,W]."""

    def __init__(self, inputs: int) -> None:
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """All branches, one after the other along the channels."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(F.avg_pool2d(x, 3, 1, 1)),
        ]
        return F.cat(branches, 1)


class InceptionAux(nn.Module):
    """A second classifier half-way up, which helps training: [N,inputs,17,17] to [N,num_classes]."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        self.conv0 = BasicConv2d(inputs, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pictures."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class InceptionOutputs(NamedTuple):
    """What training gets: the loss is usually that of ``logits`` plus 0.4 times that of ``aux_logits``."""

    logits: Tensor
    aux_logits: Tensor


class Inception3(nn.Module):
    """Pictures [N,3,H,W] to logits [N,num_classes]; trained at 299, works from 75 pixels up.

    With ``aux_logits``, ``forward`` in training returns :class:`InceptionOutputs` and needs 299 pixels or so;
    in evaluation it is always the logits alone. ``transform_input`` turns pictures normalised by
    ImageNet's mean and deviation into [-1,1], which torchvision's published weights were trained with.
    Source: Szegedy et al. 2016, arXiv:1512.00567; torchvision's Inception3.
    """

    def __init__(
        self, num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False
    ) -> None:
        self.aux_logits, self.transform_input = aux_logits, transform_input
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = InceptionAux(768, num_classes) if aux_logits else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(2048, num_classes)
        he_initialised(self)

    def forward(self, x: Tensor) -> Any:
        """Logits of the pictures; in training with ``aux_logits``, :class:`InceptionOutputs`."""
        if self.transform_input:
            x = to_unit_range(x)
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        aux = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        logits = self.fc(F.flatten(self.dropout(self.avgpool(x)), 1))
        return logits if aux is None else InceptionOutputs(logits, aux)


def to_unit_range(x: Tensor) -> Tensor:
    """Pictures [N,3,H,W] normalised by ImageNet's mean and deviation, as if normalised by 0.5 and 0.5."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scale, shift = deviation / 0.5, (mean - 0.5) / 0.5
    return x * scale.reshape(3, 1, 1).astype(x.dtype) + shift.reshape(3, 1, 1).astype(x.dtype)


def checked_transform(model: str, weights: Weights, transform_input: bool | None) -> bool:
    """Whether to transform: no by default, but ConfigError where weights come without a word about it.

    torchvision switches it on for its own files, which would falsify a model trained without it.
    """
    if transform_input is None and weights is not None:
        raise ConfigError(
            f"{model}: say transform_input=True for torchvision's published weights, or what your own were "
            "trained with (False unless you chose otherwise)"
        )
    return bool(transform_input)


def inception_v3(
    weights: Weights = None,
    num_classes: int = 1000,
    aux_logits: bool = True,
    transform_input: bool | None = None,
) -> Inception3:
    """Inception-v3 (27.2 M parameters, 5.7 G multiply-accumulates at 299); see :class:`Inception3`.

    ``transform_input`` must be given with ``weights``: True for torchvision's published file, and what
    the model was trained with for your own.
    """
    model = Inception3(num_classes, aux_logits, checked_transform("inception_v3", weights, transform_input))
    heads = ("fc", "AuxLogits.fc")
    return with_weights(model, weights, heads=heads, dropped=() if aux_logits else ("AuxLogits.",))
