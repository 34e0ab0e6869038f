"""Pure integer shape mathematics of convolution, pooling and normalisation.

Letters mean the same everywhere, here, in the C++ sources and in the documentation:

    N batch · C input channels · H W input size · K output channels · R S kernel size
    P Q output size · groups · pads are (top, left, bottom, right)

A geometry is all that a kernel needs to know besides its arrays. It is immutable and hashable, so
choosing a kernel variant for it can be cached, and ``ints()`` is its image in ``csrc/include/params.h``.
"""

from __future__ import annotations

from nnlite.geometry.kinds import (
    CLAMP,
    FUNCTION,
    FUNCTIONS,
    NO_ACTIVATION,
    PRELU,
    RELU,
    Conv2dGeometry,
    EltwiseGeometry,
    FunctionGeometry,
    Geometry,
    NormGeometry,
    PictureGeometry,
    Pool2dGeometry,
    QuantiseGeometry,
    ReducedConv2dGeometry,
    ResizeGeometry,
    Shape,
    describe,
)
from nnlite.geometry.windows import (
    Padding,
    Pads,
    Pair,
    conv2d_geometry,
    conv_output_size,
    conv_transpose2d_geometry,
    pair,
    pool2d_geometry,
    pool_output_size,
    remembered,
    resolve_pads,
)

__all__ = [
    "CLAMP",
    "FUNCTION",
    "FUNCTIONS",
    "NO_ACTIVATION",
    "PRELU",
    "RELU",
    "Conv2dGeometry",
    "EltwiseGeometry",
    "FunctionGeometry",
    "Geometry",
    "NormGeometry",
    "Padding",
    "Pads",
    "Pair",
    "PictureGeometry",
    "Pool2dGeometry",
    "QuantiseGeometry",
    "ReducedConv2dGeometry",
    "ResizeGeometry",
    "Shape",
    "conv2d_geometry",
    "conv_output_size",
    "conv_transpose2d_geometry",
    "describe",
    "pair",
    "pool2d_geometry",
    "pool_output_size",
    "remembered",
    "resolve_pads",
]
