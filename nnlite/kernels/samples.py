"""Geometries that every kernel variant is tested on: the table is crossed, because bugs live in one cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice, product
from math import inf

from nnlite.errors import ShapeError
from nnlite.geometry import (
    CLAMP,
    FUNCTION,
    FUNCTIONS,
    NO_ACTIVATION,
    PRELU,
    RELU,
    Conv2dGeometry,
    EltwiseGeometry,
    FunctionGeometry,
    NormGeometry,
    PictureGeometry,
    Pool2dGeometry,
    ResizeGeometry,
    conv2d_geometry,
    pool2d_geometry,
)

# Five, because the samples vary in rounds of 2, 3 and 4.
_CONV_ACTIVATIONS: tuple[tuple[int, float, float], ...] = (
    (NO_ACTIVATION, -inf, inf),
    (RELU, 0.0, inf),
    (CLAMP, -0.5, 2.0),
    (RELU, 0.0, inf),
    (CLAMP, 0.0, 6.0),
)

_AFTER_TRANSPOSED = ("tanh", "leaky_relu", "sigmoid")


def conv2d_samples() -> Iterator[Conv2dGeometry]:
    """stride x dilation x groups x asymmetric padding x batch x odd sizes, then notable single cells."""
    channels = {  # groups -> (C, K)
        1: (5, 7),
        2: (6, 10),
        6: (6, 6),  # depthwise
        3: (3, 12),  # depthwise with multiplier 4
    }
    for stride, dilation, pads, batch, kernel, (groups, (C, K)) in product(
        [(1, 1), (2, 2), (2, 1), (3, 3)],
        [(1, 1), (2, 2), (1, 3)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 3)],
        [1, 3],
        [(3, 3), (1, 1), (2, 3)],
        channels.items(),
    ):
        yield conv2d_geometry((batch, C, 9, 8), (K, C // groups, *kernel), stride, pads, dilation, groups)
    single = [
        # x shape, w shape, stride, pads, dilation, groups
        ((1, 1, 5, 5), (1, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # one channel everywhere
        ((2, 3, 17, 19), (32, 3, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),  # MobileNet's stem
        ((1, 3, 23, 21), (16, 3, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1),  # ResNet's stem
        ((9, 3, 40, 11), (33, 3, 2, 3), (3, 2), (0, 1, 1, 0), (1, 1), 1),  # rows between windows, many bands
        ((2, 64, 7, 7), (64, 64, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # whole vectors
        ((2, 33, 6, 5), (65, 33, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # one past whole vectors
        ((1, 96, 9, 9), (24, 96, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # MobileNet's projection
        ((3, 31, 5, 7), (130, 31, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ((2, 40, 8, 8), (24, 40, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),  # ResNet's shortcut
        ((1, 96, 11, 13), (96, 1, 3, 3), (2, 2), (0, 0, 1, 1), (1, 1), 96),  # TensorFlow's SAME
        ((2, 50, 12, 10), (50, 1, 5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 50),
        ((1, 17, 15, 15), (17, 1, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 17),
        ((1, 64, 8, 8), (128, 2, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 32),  # ResNeXt
        ((4, 20, 1, 1), (8, 20, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # a linear layer
        ((1, 4, 2, 2), (3, 4, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # kernel larger than the input
        ((1, 4, 3, 12), (5, 4, 1, 7), (1, 1), (0, 3, 0, 3), (1, 1), 1),  # Inception's 1x7
        ((2, 6, 10, 4), (5, 6, 5, 1), (2, 1), (2, 0, 2, 0), (1, 1), 1),
        ((1, 8, 10, 10), (6, 8, 2, 2), (5, 5), (0, 0, 0, 0), (1, 1), 1),  # stride beyond the kernel
        ((1, 12, 5, 5), (9, 12, 4, 4), (2, 2), (2, 2, 1, 1), (1, 1), 1),  # DCGAN's 4x4/2
        ((1, 600, 72, 73), (8, 600, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # pixels in ranges, from memory
        ((5, 1100, 1, 1), (257, 1100, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # few rows, many weights
        ((300, 8, 1, 1), (600, 8, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # weights in blocks of rows
    ]
    for sample in single:
        yield conv2d_geometry(*sample)
    yield from winograd_samples()
    yield from winograd_phase_samples()


def conv2d_forward_samples() -> Iterator[Conv2dGeometry]:
    """The same, most of them with what may follow the sum: every kernel meets every activation."""
    yield from (g.activated(*act) for g, act in zip(conv2d_samples(), cycle(_CONV_ACTIVATIONS)))
    yield from conv2d_function_samples()


def conv2d_function_samples() -> Iterator[Conv2dGeometry]:
    """Convolutions that a function follows: each of them, behind every kernel that native code has."""
    layers = (
        ((2, 3, 13, 11), (8, 3, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),  # a first layer
        ((2, 20, 9, 7), (36, 20, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ((1, 40, 3, 5), (300, 40, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # few rows, many panels
        ((2, 36, 9, 10), (36, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 36),  # depthwise
        ((1, 5, 8, 9), (10, 1, 5, 5), (2, 2), (2, 1, 2, 1), (1, 1), 5),  # two outputs for each input
        ((1, 12, 7, 8), (18, 6, 3, 2), (1, 2), (1, 0, 1, 1), (2, 1), 2),
        ((2, 32, 12, 13), (40, 32, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # Winograd
        ((1, 16, 64, 72), (512, 16, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # beyond the caches
    )
    factors = {"hardsigmoid": (1 / 6, 0.5), "hardswish": (1 / 6, 0.5), "leaky_relu": (0.1, 0.0)}
    for number, name in enumerate(FUNCTIONS):
        for at, layer in enumerate(layers):
            if at in (number % 8, (number + 3) % 8):
                yield conv2d_geometry(*layer).activated(FUNCTION + number, *factors.get(name, (0.0, 0.0)))
    yield from (conv2d_geometry(*layer).activated(PRELU) for layer in layers)


def conv_transpose2d_samples() -> Iterator[Conv2dGeometry]:
    """Every third of the common samples with a clamp or none, and functions behind every kernel."""
    some = islice(conv2d_samples(), 0, None, 3)
    yield from (g.activated(*act) for g, act in zip(some, cycle(_CONV_ACTIVATIONS)))
    layers = (
        ((1, 36, 11, 13), (36, 1, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 36),  # depthwise, rows left over
        ((2, 32, 12, 13), (40, 32, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # Winograd
        ((2, 16, 5, 6), (24, 16, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),  # few pixels
        ((2, 3, 16, 16), (20, 3, 4, 4), (2, 2), (1, 1, 1, 1), (1, 1), 1),  # DCGAN's pictures
        ((1, 40, 4, 4), (100, 40, 4, 4), (1, 1), (0, 0, 0, 0), (1, 1), 1),  # its first layer
        ((1, 36, 9, 10), (20, 18, 3, 2), (2, 3), (1, 0, 0, 1), (1, 1), 2),
        ((1, 24, 10, 9), (30, 24, 2, 2), (3, 3), (0, 0, 0, 0), (1, 1), 1),  # pixels that no window meets
    )
    for number, function in enumerate((PRELU, *(FUNCTION + FUNCTIONS.index(n) for n in _AFTER_TRANSPOSED))):
        for at, layer in enumerate(layers):
            if function == PRELU or (at + number) % 2:
                yield conv2d_geometry(*layer).activated(function, 0.1, 0.0)


def winograd_samples() -> Iterator[Conv2dGeometry]:
    """3x3 at stride 1: maps below, at and past whole tiles, any padding, few or many tiles."""
    for size, pads, (batch, C, K) in product(
        [(4, 4), (5, 13), (8, 9), (3, 30)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 0, 2)],
        [(7, 8, 33), (9, 17, 8)],
    ):
        yield conv2d_geometry((batch, C, *size), (K, C, 3, 3), pads=pads)
    yield conv2d_geometry((1, 150, 12, 11), (70, 150, 3, 3), pads=(1, 1, 1, 1))  # weights in pieces
    yield conv2d_geometry((2, 8, 36, 40), (8, 8, 3, 3), pads=(1, 1, 1, 1))  # several blocks of tiles
    yield conv2d_geometry((2, 8, 24, 28), (120, 8, 3, 3), pads=(1, 1, 1, 1))  # and of panels
    yield conv2d_geometry((2, 230, 9, 8), (260, 230, 3, 3), pads=(1, 1, 1, 1))  # wide enough for one pass
    yield conv2d_geometry((1, 256, 96, 92), (8, 256, 3, 3), pads=(1, 1, 1, 1))  # large enough for two rounds
    yield conv2d_geometry((1, 9, 55, 54), (200, 9, 3, 3), pads=(1, 1, 1, 1))  # point by point
    yield conv2d_geometry((1, 200, 55, 54), (9, 200, 3, 3), pads=(1, 1, 1, 1))
    yield conv2d_geometry((3, 70, 6, 5), (40, 70, 3, 3), pads=(1, 1, 1, 1))
    yield conv2d_geometry((30, 8, 2, 2), (9, 8, 3, 3), pads=(1, 1, 1, 1))
    yield conv2d_geometry((1, 9, 9, 9), (8, 9, 3, 3), pads=(3, 0, 5, 4))  # windows of padding only


def winograd_phase_samples() -> Iterator[Conv2dGeometry]:
    """Kernels twice as large as the stride: any padding, phases of unlike sizes, few or many tiles."""
    layers = {(1, 1): (66, 80), (2, 1): (49, 56), (2, 2): (33, 40)}  # stride -> (C, K)
    for ((stride_h, stride_w), (C, K)), pads in product(
        layers.items(), [(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 0, 3)]
    ):
        x_shape, w_shape = (3, C, 13 * stride_h + 1, 15 * stride_w), (K, C, 2 * stride_h, 2 * stride_w)
        yield conv2d_geometry(x_shape, w_shape, (stride_h, stride_w), pads)
    for pads in [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (2, 1, 0, 3)]:  # 3x3/2
        size = (105 - pads[0] - pads[2], 97 - pads[1] - pads[3])
        yield conv2d_geometry((1, 24, *size), (40, 24, 3, 3), (2, 2), pads)
    yield conv2d_geometry((10, 40, 32, 31), (40, 40, 3, 3), (2, 2), (1, 1, 1, 1))
    yield conv2d_geometry((4, 70, 8, 8), (150, 70, 4, 4), (2, 2), (1, 1, 1, 1))  # weights in pieces
    yield conv2d_geometry((4, 150, 8, 8), (70, 150, 4, 4), (2, 2), (1, 1, 1, 1))
    yield conv2d_geometry((2, 120, 32, 32), (16, 120, 4, 4), (2, 2), (1, 1, 1, 1))  # several panels
    yield conv2d_geometry((1, 16, 104, 120), (16, 16, 4, 4), (2, 2), (1, 1, 1, 1))  # and blocks of tiles
    yield conv2d_geometry((1, 210, 55, 54), (9, 210, 2, 2))  # point by point
    yield conv2d_geometry((1, 9, 56, 57), (210, 9, 2, 2))


def pool2d_samples(average: bool) -> Iterator[Pool2dGeometry]:
    """kernel x stride x padding x dilation x ceil_mode x batch; average: also count_include_pad."""
    for kernel, stride, pads, dilation, ceil_mode, batch, counted in product(
        [(2, 2), (3, 3), (3, 2)],
        [(1, 1), (2, 2), (3, 2)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)],
        [(1, 1), (2, 2)],
        [False, True],
        [1, 2],
        [True, False] if average else [True],
    ):
        try:
            yield pool2d_geometry((batch, 5, 9, 8), kernel, stride, pads, dilation, ceil_mode, counted)
        except ShapeError:
            continue  # padding as large as the window: refused, see the error samples
    yield pool2d_geometry((2, 64, 7, 7), (7, 7), (7, 7))  # global
    yield pool2d_geometry((1, 1, 4, 4), (2, 2), (2, 2))  # one channel
    yield pool2d_geometry((2, 67, 12, 12), (3, 3), (2, 2), (1, 1, 1, 1))  # ResNet's


def plain_norm_samples() -> Iterator[NormGeometry]:
    """Few and many rows, channel counts around the vector length, a large and a usual epsilon."""
    for rows, channels in product([2, 3, 49, 1000], [1, 3, 16, 33, 130]):
        yield NormGeometry(rows, channels, 1e-5)
    yield NormGeometry(5, 8, 0.1)


def norm_samples() -> Iterator[NormGeometry]:
    """The same, then with ReLU and with bounds."""
    yield from plain_norm_samples()
    for rows, channels, act in product([3, 50, 1000], [3, 16, 67], [(RELU, 0.0, inf), (CLAMP, 0.0, 0.5)]):
        yield NormGeometry(rows, channels, 1e-5, *act)


ACTIVATIONS = ((NO_ACTIVATION, -inf, inf), (RELU, 0.0, inf), (CLAMP, 0.0, 6.0), (CLAMP, -0.5, inf))


def eltwise_samples() -> Iterator[EltwiseGeometry]:
    """Sizes around the vector length and the chunk x factors x activations."""
    for size, (alpha, beta), act in product(
        [1, 7, 16, 65, 1000], [(1.0, 1.0), (1.0, -1.0), (0.3, 1.0), (-2.0, 0.7)], ACTIVATIONS
    ):
        yield EltwiseGeometry(size, alpha, beta, *act)
    yield EltwiseGeometry(70_001, 1.0, 1.0, RELU, 0.0, inf)


def function_samples() -> Iterator[FunctionGeometry]:
    """Every function x sizes around the vector length and the chunk."""
    numbers = {"hardsigmoid": (0.2, 0.5), "hardswish": (1 / 6, 0.5), "leaky_relu": (0.1, 0.0)}
    for name, size in product(FUNCTIONS, [1, 7, 16, 65, 1000]):
        yield FunctionGeometry(size, FUNCTIONS.index(name), *numbers.get(name, ()))
    yield FunctionGeometry(40_001, FUNCTIONS.index("silu"))


def run_samples() -> Iterator[EltwiseGeometry]:
    """Sizes around the vector length and the chunk."""
    for size in (1, 5, 16, 33, 1000, 40_001):
        yield EltwiseGeometry(size)


def picture_samples() -> Iterator[PictureGeometry]:
    """Channels around the vector length, several chunks, chunks of several pictures, and no picture."""
    for channels, size in product([1, 5, 16, 33], [(1, 1), (3, 7), (20, 31)]):
        yield PictureGeometry(3, channels, *size)
    yield PictureGeometry(2, 96, 40, 41)
    yield PictureGeometry(70, 1100, 2, 2)
    yield PictureGeometry(0, 5, 3, 3)


def line_samples() -> Iterator[NormGeometry]:
    """Rows of few and many elements, around the vector length, few rows and many."""
    for rows, elements in product([1, 3, 50], [1, 3, 10, 16, 33, 64, 130, 1000]):
        yield NormGeometry(rows, elements, 1e-5)
    yield NormGeometry(700, 21, 1e-5)  # several chunks of rows
    yield NormGeometry(0, 5, 1e-5)


def resize_samples() -> Iterator[ResizeGeometry]:
    """Channels around the vector length x smaller and larger, one tap and several, and none."""
    for channels, (height, width, out_height, out_width), taps in product(
        [1, 3, 16, 67], [(5, 4, 7, 3), (1, 6, 1, 9), (8, 8, 3, 16)], [1, 2, 5]
    ):
        sizes = (height, width, out_height, out_width)
        yield ResizeGeometry(2, channels, *sizes, taps * out_height, taps * out_width + 1)
    yield ResizeGeometry(1, 5, 3, 3, 4, 4, 0, 3)
    yield ResizeGeometry(0, 5, 3, 3, 4, 4, 4, 4)
