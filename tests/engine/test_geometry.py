"""Shape arithmetic against PyTorch and against counting."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nnlite.errors import ShapeError
from nnlite.geometry import (
    conv2d_geometry,
    conv_output_size,
    conv_transpose2d_geometry,
    describe,
    pair,
    pool2d_geometry,
    pool_output_size,
    resolve_pads,
)


def count_windows(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """How often a window fits, by sliding it."""
    last = before + size + after - (dilation * (kernel - 1) + 1)
    return len([start for start in range(0, before + size + after, stride) if start <= last])


def test_conv_output_size_counts_windows():
    for size, kernel, stride, dilation, before, after in product(
        range(1, 12), range(1, 5), range(1, 5), range(1, 4), range(3), range(3)
    ):
        expected = count_windows(size, kernel, stride, dilation, before, after)
        assert max(conv_output_size(size, kernel, stride, dilation, before + after), 0) == expected


def test_pool_output_size_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    for size, kernel, stride, dilation, pad, ceil_mode in product(
        range(4, 12), range(1, 5), range(1, 6), range(1, 3), range(3), [False, True]
    ):
        if 2 * pad > kernel or dilation * (kernel - 1) + 1 > size + 2 * pad:
            continue  # PyTorch refuses these
        x = torch.zeros(1, 1, size, 1)
        y = torch.nn.functional.max_pool2d(x, (kernel, 1), (stride, 1), (pad, 0), (dilation, 1), ceil_mode)
        assert pool_output_size(size, kernel, stride, dilation, pad, pad, ceil_mode) == y.shape[2]


def test_ceil_mode_keeps_every_element_and_starts_no_window_behind_them():
    ranges = (range(3, 12), range(1, 4), range(1, 4), range(2), range(2))
    for size, kernel, stride, before, after in product(*ranges):
        if max(before, after) >= kernel:
            continue
        out = pool_output_size(size, kernel, stride, 1, before, after, True)
        starts = [p * stride - before for p in range(out)]
        assert starts[-1] < size, "the last window starts inside"
        assert starts[-1] + kernel >= size + after or starts[-1] + stride >= size, "no other is wanted"
        if stride <= kernel:
            assert starts[-1] + kernel >= size, "every element is in some window"


def test_same_padding_gives_ceil_of_size_over_stride():
    for height, kernel, stride, dilation in product(range(1, 12), range(1, 5), range(1, 4), range(1, 3)):
        arguments = ((height, 7), (kernel, 1), (stride, 1), (dilation, 1))
        upper = resolve_pads("op", "same_upper", *arguments)
        lower = resolve_pads("op", "same_lower", *arguments)
        for top, left, bottom, right in (upper, lower):
            assert conv_output_size(height, kernel, stride, dilation, top + bottom) == -(-height // stride)
            assert (left, right) == (0, 0)
        assert 0 <= upper[2] - upper[0] <= 1, "an odd total puts the larger half after"
        assert lower == (upper[2], upper[3], upper[0], upper[1]), "and before for same_lower"
        if stride == 1:
            assert resolve_pads("op", "same", *arguments) == upper


def test_forms_of_padding():
    arguments = ((8, 8), (3, 3), (1, 1), (1, 1))
    assert resolve_pads("op", 2, *arguments) == (2, 2, 2, 2)
    assert resolve_pads("op", (1, 2), *arguments) == (1, 2, 1, 2)
    assert resolve_pads("op", [1, 2, 3, 4], *arguments) == (1, 2, 3, 4)
    assert resolve_pads("op", "valid", *arguments) == (0, 0, 0, 0)
    for wrong in ("full", -1, (1, 2, 3), (0, -1), (1,), 0.5):
        with pytest.raises(ShapeError, match="op: padding"):
            resolve_pads("op", wrong, *arguments)
    with pytest.raises(ShapeError, match="needs stride 1"):
        resolve_pads("op", "same", (8, 8), (3, 3), (2, 2), (1, 1))


def test_pair():
    assert pair("op", "stride", 3, 1) == (3, 3)
    assert pair("op", "stride", [2, 4], 1) == (2, 4)
    assert pair("op", "stride", np.int64(3), 1) == (3, 3)
    for wrong in (0, (1, 0), (1, 2, 3), (2,), 1.5, (1, 2.5), "ab"):
        with pytest.raises(ShapeError, match="op: stride"):
            pair("op", "stride", wrong, 1)


def test_transposed_geometry_inverts_the_convolution():
    ranges = (range(6, 12), range(1, 4), range(1, 4), range(1, 3), range(2))
    for size, kernel, stride, dilation, pad in product(*ranges):
        forward = conv2d_geometry(
            (2, 6, size, 9), (4, 3, kernel, 2), (stride, 1), (pad, 0, pad, 0), (dilation, 1), 2
        )
        rest = (size + 2 * pad - dilation * (kernel - 1) - 1) % stride
        if rest >= max(stride, dilation):
            continue
        back = conv_transpose2d_geometry(
            forward.y_shape, forward.w_shape, (stride, 1), (pad, 0, pad, 0), (rest, 0), (dilation, 1), 2
        )
        assert back == forward


def test_macs_count_products():
    g = conv2d_geometry((2, 6, 5, 5), (4, 3, 3, 2), groups=2)
    assert g.y_shape == (2, 4, 3, 4)
    assert g.macs == np.prod(g.y_shape) * 3 * 3 * 2


def test_windows_of_padding_alone_are_refused():
    with pytest.raises(ShapeError, match="smaller than the window"):
        pool2d_geometry((1, 1, 4, 4), (2, 2), (2, 2), (2, 0, 0, 0))
    with pytest.raises(ShapeError, match="nothing but padding"):
        pool2d_geometry((1, 1, 1, 1), (2, 2), (1, 1), (4, 4, 4, 4), (7, 7))


def test_a_geometry_is_a_value():
    a, b = conv2d_geometry((1, 3, 8, 8), (4, 3, 3, 3)), conv2d_geometry((1, 3, 8, 8), (4, 3, 3, 3))
    assert a == b
    assert hash(a) == hash(b)
    assert len(a.ints()) == 18
    assert describe(a) == "N=1 C=3 H=8 W=8 K=4 R=3 S=3 P=6 Q=6"
    pooled = pool2d_geometry((1, 3, 8, 8), (2, 2), (2, 2), count_include_pad=False)
    assert describe(pooled).endswith("stride_h=2 stride_w=2 count_include_pad=0")
