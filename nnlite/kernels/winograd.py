"""Where Winograd's convolutions pay: each rule gives None, or the reason why not.

Measured on two cores with AVX-512. ``gradient``: for the input gradient, whose results are as large as x.
"""

from __future__ import annotations

from nnlite.geometry import Conv2dGeometry


def _three_by_three(g: Conv2dGeometry, height: int, width: int) -> str | None:
    if (g.R, g.S, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, g.groups) != (3, 3, 1, 1, 1, 1, 1):
        return "for 3x3 kernels, stride 1, no dilation, ungrouped"
    # With 49 pixels the direct product is as fast. Fewer than 8 channels were not measured.
    if min(g.C, g.K) < 8 or g.N * height * width < 64:
        return "for at least 8 channels and 64 output pixels"
    return None


def _tiles(height: int, width: int, side: int = 4) -> int:
    """Tiles of side x side, whole or not, that a map is cut into."""
    return -(-height // side) * -(-width // side)


def _result(g: Conv2dGeometry, gradient: bool) -> tuple[int, int]:
    return (g.H, g.W) if gradient else (g.P, g.Q)


def _smaller_are_better(g: Conv2dGeometry, gradient: bool) -> bool:
    """Whether F(2x2, 3x3), with 16 products a tile, wastes less at the edges than F(4x4, 3x3) with 36.

    On maps of 1, 2, 5 and 6 pixels.
    """
    size = _result(g, gradient)
    return 16 * _tiles(*size, 2) <= 36 * _tiles(*size, 4)


def tiles_of_2(g: Conv2dGeometry, gradient: bool = False) -> str | None:
    """F(2x2, 3x3)."""
    if reason := _three_by_three(g, *_result(g, gradient)):
        return reason
    return None if _smaller_are_better(g, gradient) else "winograd4 multiplies less"


def tiles_of_4(g: Conv2dGeometry, gradient: bool = False) -> str | None:
    """F(4x4, 3x3)."""
    if reason := _three_by_three(g, *_result(g, gradient)):
        return reason
    return "winograd2 multiplies less" if _smaller_are_better(g, gradient) else None


def weight_gradient(g: Conv2dGeometry) -> str | None:
    """The adjoint of F(4x4, 3x3)."""
    if reason := _three_by_three(g, g.P, g.Q):
        return reason
    return None if g.N * g.P * g.Q >= 128 else "for at least 128 output pixels"  # 64 are too few


def tiles_of_4_two_taps(g: Conv2dGeometry, gradient: bool = False, three: bool = False) -> str | None:
    """F(4x4, 2x2) for each phase that the stride makes: 25 products for 16 pixels instead of 64.

    ``three``: also for 3x3/2, whose axes have phases of two taps and of one: 81 products instead of 144.
    """
    if (g.dilation_h, g.dilation_w, g.groups) != (1, 1, 1):
        return "for no dilation, ungrouped"
    if three and (g.R, g.S, g.stride_h, g.stride_w) == (3, 3, 2, 2):
        if min(g.C, g.K) < 16 or g.N * g.P * g.Q < 2500 or 15.3 * _tiles(g.P, g.Q) > g.P * g.Q:
            return "for at least 16 channels and 2500 output pixels in whole tiles of 4x4"
        return None
    twice = (2 * g.stride_h, 2 * g.stride_w)
    if twice != (g.R, g.S) or max(twice) > 4:
        return "for kernels twice as large as a stride of 1 or 2"
    height, width = (-(-g.H // g.stride_h), -(-g.W // g.stride_w)) if gradient else (g.P, g.Q)
    # With less work or more waste at the edges it is no faster.
    if min(g.C, g.K) < 8 or g.N * height * width < 64 or g.macs < 10_000_000:
        return "for at least 8 channels, 64 pixels of a phase and 10 million products"
    if 1.75 * 25 * _tiles(height, width) > 4 * height * width:
        return "its tiles of 4x4 pixels would hardly multiply less"
    return None
