"""What several families share: conv + norm + act, squeeze-and-excitation, channel counts, initial values."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from nnlite import nn, random
from nnlite.tensors import Tensor

M = TypeVar("M", bound=nn.Module)


def conv_norm_act(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Convolution "0" without bias, BatchNorm "1" and, unless None, activation "2".

    x [N,inputs,H,W] to [N,outputs,⌈H/stride⌉,⌈W/stride⌉] for odd kernels.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=eps, momentum=momentum),
    ]
    return nn.Sequential(*layers, *([] if act is None else [act()]))


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, but never below 90 % of ``channels``.

    Source: the MobileNet reference code, ``make_divisible``.
    """
    result = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return result if result >= 0.9 * channels else result + divisor


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole picture shows: y = x · gate(fc2(act(fc1(mean of x)))).

    x and y [N,channels,H,W]. Source: Hu et al. 2018, arXiv:1709.01507; fc1 and fc2 are 1x1 convolutions.
    """

    def __init__(self, channels: int, squeezed: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        """x times one factor per picture and channel."""
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


def he_initialised(model: M) -> M:
    """``model`` with convolutions drawn anew: normal, variance 2 / (outputs · R · S), bias 0.

    It keeps the size of gradients through many layers with ReLU. Source: He et al. 2015, arXiv:1502.01852.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            outputs, _, *window = module.weight.shape
            deviation = math.sqrt(2 / (outputs * math.prod(window)))
            drawn = random.generator().standard_normal(module.weight.shape, np.float32)
            module.weight.assign(drawn * np.float32(deviation))
            if module.bias is not None:
                module.bias.assign(np.zeros(outputs, np.float32))
    return model


def timm_block_names(expands: bool, squeezes: bool) -> dict[str, str]:
    """timm's names inside an inverted residual -> the names here.

    timm's are conv_pw, bn1, conv_dw, bn2, se.conv_reduce, se.conv_expand, conv_pwl, bn3, in this order. A
    block that does not expand has no conv_pw before its depthwise convolution and calls the last one so.
    """
    convolutions = ["conv_pw", "conv_dw", "conv_pwl"] if expands else ["conv_dw", "conv_pw"]
    names: dict[str, str] = {}
    place = 0
    for number, convolution in enumerate(convolutions, 1):
        names |= {convolution: f"{place}.0", f"bn{number}": f"{place}.1"}
        place += 1
        if convolution == "conv_dw" and squeezes:
            names |= {"se.conv_reduce": f"{place}.fc1", "se.conv_expand": f"{place}.fc2"}
            place += 1
    return names
