"""What is measured: layers of well-known networks, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np

from nnlite.geometry import (
    RELU,
    Conv2dGeometry,
    NormGeometry,
    Pool2dGeometry,
    conv2d_geometry,
    pool2d_geometry,
)
from nnlite.kernels import SPECS

PASSES = ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight")


@dataclass(frozen=True)
class KernelCase:
    """One kernel on one geometry."""

    group: str
    name: str
    kernel: str
    geometry: Conv2dGeometry | Pool2dGeometry | NormGeometry
    absent: frozenset[str] = frozenset({"bias", "residual"})
    """Optional operands that are left out."""
    pictures: tuple[int, int, int, int] | None = None
    """What the rows [M,C] of a normalisation are: [N,C,H,W]."""
    transposed: bool = False
    """A transposed layer: conv2d_grad_input is its forward pass, conv2d_forward its input gradient."""

    @property
    def flops(self) -> int:
        """Operations of the direct algorithm: Winograd's rate counts as if it did them all."""
        return SPECS[self.kernel].flops(self.geometry)

    @property
    def bytes(self) -> int:
        """Bytes that must be read and written at least once."""
        spec = SPECS[self.kernel]
        types = spec.types(self.geometry, FLOAT32)
        total = 0
        for operand in (*spec.inputs, *spec.outputs):
            if operand in self.absent:
                continue
            shape, dtype = types[operand]
            size = dtype.itemsize
            for axis in shape:
                size *= axis
            total += size
        return total


def _conv(
    batch: int, c: int, k: int, side: int, kernel: int, stride: int = 1, groups: int = 1
) -> Conv2dGeometry:
    pad = (kernel - 1) // 2
    shape = (k, c // groups, kernel, kernel)
    return conv2d_geometry((batch, c, side, side), shape, (stride, stride), (pad,) * 4, (1, 1), groups)


def _convolutions() -> Iterator[tuple[str, str, Conv2dGeometry]]:
    for c, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        yield "3x3", f"3x3 {c}@{side} b16", _conv(16, c, c, side, 3)
    for c, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        yield "3x3 batch 1", f"3x3 {c}@{side} b1", _conv(1, c, c, side, 3)
    for c, k, side in ((64, 256, 56), (256, 64, 56), (512, 128, 28), (1024, 256, 14), (512, 2048, 7)):
        yield "1x1", f"1x1 {c}-{k}@{side} b16", _conv(16, c, k, side, 1)
    yield "stem", "7x7/2 3-64@224 b16", _conv(16, 3, 64, 224, 7, 2)
    yield "stem", "3x3/2 3-32@224 b16", _conv(16, 3, 32, 224, 3, 2)
    yield "3x3/2", "3x3/2 128@56 b16", _conv(16, 128, 128, 56, 3, 2)
    for c, side, kernel, stride in (
        (96, 112, 3, 2), (144, 56, 3, 1), (384, 14, 3, 1), (960, 7, 3, 1), (240, 28, 5, 1), (672, 14, 5, 2)
    ):  # fmt: skip
        name = f"{kernel}x{kernel}/{stride} depthwise {c}@{side} b16"
        yield "depthwise", name, _conv(16, c, c, side, kernel, stride, c)


def _kernel_cases() -> Iterator[KernelCase]:
    for kernel in PASSES:
        for group, name, geometry in _convolutions():
            if group == "3x3 batch 1" and kernel != PASSES[0]:
                continue
            yield KernelCase(group, name, kernel, geometry)
        for c, k, side in (
            (512, 256, 4),
            (256, 128, 8),
            (128, 64, 16),
        ):  # DCGAN's generator, from maps of `side`
            geometry = conv2d_geometry((64, k, 2 * side, 2 * side), (c, k, 4, 4), (2, 2), (1,) * 4)
            name = f"4x4/2 transposed {c}-{k}@{side} b64"
            yield KernelCase("transposed", name, kernel, geometry, transposed=True)
    for kernel in ("max_pool2d_forward", "max_pool2d_backward"):
        pool = pool2d_geometry((16, 64, 112, 112), (3, 3), (2, 2), (1, 1, 1, 1))
        yield KernelCase("pool", "max 3x3/2 64@112 b16", kernel, pool)
        pool = pool2d_geometry((16, 64, 56, 56), (2, 2), (2, 2))
        yield KernelCase("pool", "max 2x2/2 64@56 b16", kernel, pool)
    for kernel in ("avg_pool2d_forward", "avg_pool2d_backward"):
        pool = pool2d_geometry((16, 192, 28, 28), (3, 3), (1, 1), (1, 1, 1, 1))
        yield KernelCase("average pool", "average 3x3/1 192@28 b16", kernel, pool)
        pool = pool2d_geometry((16, 2048, 7, 7), (7, 7), (7, 7))
        yield KernelCase("average pool", "average 7x7/7 2048@7 b16", kernel, pool)
    for kernel in ("batch_norm_training_forward", "batch_norm_training_backward"):
        for c, side in ((64, 56), (256, 56), (512, 14)):
            for act, name in (((), "batch norm"), ((RELU, 0.0, inf), "batch norm + relu")):
                rows = NormGeometry(16 * side * side, c, 1e-5, *act)
                absent = frozenset({"residual", "gresidual", "y"} if "backward" in kernel else {"residual"})
                case = f"{name} {c}@{side} b16"
                yield KernelCase("batch norm", case, kernel, rows, absent, (16, c, side, side))


FLOAT32 = np.dtype(np.float32)
KERNEL_CASES = tuple(_kernel_cases())
TRAINING_CASES = (
    # network, batch, side
    ("resnet18", 16, 224),
    ("resnet50", 8, 224),
    ("mobilenet_v2", 16, 224),
    ("small_cnn", 64, 32),
)
INFERENCE_CASES = tuple(
    (network, batch, 224)
    for network in ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_lite0")
    for batch in (1, 16)
)
