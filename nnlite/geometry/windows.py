"""Windows: strides, dilations and pads as users give them, checked, and the sizes that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from operator import index
from typing import Any, TypeVar

from nnlite.errors import ShapeError
from nnlite.geometry.kinds import Conv2dGeometry, Pool2dGeometry, Shape

Pads = tuple[int, int, int, int]
Pair = tuple[int, int]

_Result = TypeVar("_Result")


def remembered(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """``function`` with its latest results kept; arguments that cannot be hashed are computed with anew."""
    cached = lru_cache(maxsize=4096, typed=True)(function)

    @wraps(function)
    def call(*args: Any, **params: Any) -> _Result:
        try:
            return cached(*args, **params)
        except TypeError:  # a list among them
            return function(*args, **params)

    return call


# ---------------------------------------------------------------------------------- parameters


def _integers(value: int | Sequence[int]) -> tuple[int, ...]:
    """One integer or several, NumPy's too, as a tuple; empty for anything else."""
    try:
        return tuple(map(index, value)) if isinstance(value, Iterable) else (index(value),)
    except TypeError:
        return ()


@remembered
def pair(op: str, name: str, value: int | Sequence[int], minimum: int) -> Pair:
    """One or two integers as (height, width); raises ShapeError below ``minimum``."""
    values = _integers(value)
    if len(values) == 1 and not isinstance(value, Iterable):
        values *= 2
    if len(values) != 2:
        raise ShapeError(f"{op}: {name}={value!r} must be one integer or (height, width)")
    if min(values) < minimum:
        raise ShapeError(f"{op}: {name}={value!r} must be at least {minimum}")
    return values


Padding = int | str | Sequence[int]
"""Integers, (height, width), (top, left, bottom, right), "valid", "same", "same_upper" or "same_lower"."""


def resolve_pads(op: str, padding: Padding, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """``padding`` as (top, left, bottom, right) for an input of ``size``.

    ``"same_upper"`` and ``"same_lower"`` are ONNX's auto_pad: ceil(size / stride) outputs, an odd
    total putting the larger half after or before. ``"same"`` is PyTorch's: same_upper at stride 1.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0, 0, 0)
        if padding == "same" and stride != (1, 1):
            raise ShapeError(f"{op}: padding='same' needs stride 1, not {stride}; give integers")
        if padding not in ("same", "same_upper", "same_lower"):
            raise ShapeError(f"{op}: padding={padding!r} must be 'same', 'valid' or integers")
        total = [
            max((-(-size[i] // stride[i]) - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size[i], 0)
            for i in (0, 1)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (large, small) if padding == "same_lower" else (small, large)
        return (before[0], before[1], after[0], after[1])
    values = _integers(padding)
    if len(values) == 2:
        values *= 2
    elif len(values) == 1 and not isinstance(padding, Iterable):
        values *= 4
    if len(values) != 4:
        raise ShapeError(
            f"{op}: padding={padding!r} must be one integer, (height, width) or (top, left, bottom, right)"
        )
    if min(values) < 0:
        raise ShapeError(f"{op}: padding={padding!r} must not be negative; slice the input instead")
    return (values[0], values[1], values[2], values[3])


def conv_output_size(size: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    """floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1; may be 0 or negative."""
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil_mode: bool
) -> int:
    """Like :func:`conv_output_size`; ``ceil_mode`` rounds up, but no window starts in the end padding."""
    span = size + before + after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + before else out


# ---------------------------------------------------------------------------------- geometries


def _four_axes(op: str, name: str, shape: Shape) -> None:
    if len(shape) != 4:
        remedy = "; add a batch axis" if len(shape) == 3 else ""
        raise ShapeError(f"{op}: {name} has shape {list(shape)} but must be [N,C,H,W]{remedy}")


MAX_STRIDE = 4096
"""Of a convolution, along one axis: its gradient has a part for every place within a stride."""


def _that_matter(kernel: Pair, dilation: Pair) -> Pair:
    """Dilations without those of kernels of one element, which may be any number at all."""
    return tuple(d if k > 1 else 1 for k, d in zip(kernel, dilation, strict=True))  # type: ignore[return-value]


def _check_stride(op: str, stride: Pair) -> None:
    if max(stride) > MAX_STRIDE or stride[0] * stride[1] > 16 * MAX_STRIDE:
        raise ShapeError(
            f"{op}: stride={stride} is beyond {MAX_STRIDE} along an axis or {16 * MAX_STRIDE} in all; "
            "take every n-th element first"
        )


@lru_cache(maxsize=4096)
def conv2d_geometry(
    x_shape: Shape,
    w_shape: Shape,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    op: str = "conv2d",
) -> Conv2dGeometry:
    """The geometry of conv2d(x, w); raises ShapeError that names op, rule, values and remedy."""
    _four_axes(op, "x", x_shape)
    if len(w_shape) != 4:
        raise ShapeError(f"{op}: w has shape {list(w_shape)} but must be [K,C/groups,R,S]")
    N, C, H, W = x_shape
    K, C_group, R, S = w_shape
    if groups < 1:
        raise ShapeError(f"{op}: groups={groups} must be at least 1")
    if C_group * groups != C:
        hint = f"; did you mean groups={C // C_group}?" if C_group and C % C_group == 0 else ""
        raise ShapeError(
            f"{op}: x has {C} channels but w {list(w_shape)} expects "
            f"{C_group} x groups({groups}) = {C_group * groups}{hint}"
        )
    if K % groups:
        raise ShapeError(f"{op}: w has {K} output channels, not a multiple of groups={groups}")
    if C < 1 or K < 1:
        raise ShapeError(f"{op}: w {list(w_shape)} has no channels")
    if R < 1 or S < 1:
        raise ShapeError(f"{op}: w has an empty kernel {R} x {S}")
    _check_stride(op, stride)
    P = conv_output_size(H, R, stride[0], dilation[0], pads[0] + pads[2])
    Q = conv_output_size(W, S, stride[1], dilation[1], pads[1] + pads[3])
    if P < 1 or Q < 1:
        raise ShapeError(
            f"{op}: kernel {R}x{S} with dilation {dilation} does not fit the padded input "
            f"{H + pads[0] + pads[2]}x{W + pads[1] + pads[3]}; enlarge the input or the padding"
        )
    dilation = _that_matter((R, S), dilation)
    return Conv2dGeometry(N, C, H, W, K, R, S, P, Q, *stride, *pads, *dilation, groups)


@lru_cache(maxsize=4096)
def conv_transpose2d_geometry(
    x_shape: Shape,
    w_shape: Shape,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    op: str = "conv_transpose2d",
) -> Conv2dGeometry:
    """The geometry of the convolution whose input gradient conv_transpose2d(x, w) is.

    x [N,K,P,Q] is that convolution's output, w [K,C/groups,R,S] its weight, and the result
    [N,C,H,W] its input: H = (P-1)·stride - pads + dilation·(R-1) + output_padding + 1.
    """
    _four_axes(op, "x", x_shape)
    if len(w_shape) != 4:
        raise ShapeError(f"{op}: w has shape {list(w_shape)} but must be [C_in,C_out/groups,R,S]")
    N, K, P, Q = x_shape
    K_w, C_group, R, S = w_shape
    if K_w != K:
        raise ShapeError(f"{op}: x has {K} channels but w {list(w_shape)} expects {K_w}")
    if groups < 1 or K % groups:
        raise ShapeError(f"{op}: groups={groups} must divide the {K} input channels")
    if K < 1 or C_group < 1:
        raise ShapeError(f"{op}: w {list(w_shape)} has no channels")
    _check_stride(op, stride)
    for i in (0, 1):
        if output_padding[i] >= max(stride[i], dilation[i]):
            raise ShapeError(
                f"{op}: output_padding={output_padding} must be smaller than stride={stride} or "
                f"dilation={dilation}"
            )
    H = (P - 1) * stride[0] - pads[0] - pads[2] + dilation[0] * (R - 1) + output_padding[0] + 1
    W = (Q - 1) * stride[1] - pads[1] - pads[3] + dilation[1] * (S - 1) + output_padding[1] + 1
    if H < 1 or W < 1:
        raise ShapeError(f"{op}: padding {pads} leaves no output ({H} x {W}); use less padding")
    C = C_group * groups
    dilation = _that_matter((R, S), dilation)
    return Conv2dGeometry(N, C, H, W, K, R, S, P, Q, *stride, *pads, *dilation, groups)


def _misses_input(out: int, size: int, kernel: int, stride: int, before: int, dilation: int) -> bool:
    """True when some window along one axis has all its elements in the padding."""
    return not all(
        any(0 <= o * stride - before + k * dilation < size for k in range(kernel)) for o in range(out)
    )


@lru_cache(maxsize=4096)
def pool2d_geometry(
    x_shape: Shape,
    kernel: Pair,
    stride: Pair,
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    op: str = "max_pool2d",
) -> Pool2dGeometry:
    """The geometry of a pooling; raises ShapeError that names op, rule, values and remedy."""
    _four_axes(op, "x", x_shape)
    N, C, H, W = x_shape
    R, S = kernel
    extent = (dilation[0] * (R - 1) + 1, dilation[1] * (S - 1) + 1)
    if max(pads[0], pads[2]) >= extent[0] or max(pads[1], pads[3]) >= extent[1]:
        raise ShapeError(
            f"{op}: padding {pads} must be smaller than the window {extent[0]}x{extent[1]}, "
            "or some windows hold nothing but padding"
        )
    P = pool_output_size(H, R, stride[0], dilation[0], pads[0], pads[2], ceil_mode)
    Q = pool_output_size(W, S, stride[1], dilation[1], pads[1], pads[3], ceil_mode)
    if P < 1 or Q < 1:
        raise ShapeError(
            f"{op}: window {R}x{S} with dilation {dilation} does not fit the padded input "
            f"{H + pads[0] + pads[2]}x{W + pads[1] + pads[3]}; use a smaller kernel_size"
        )
    for out, size, kernel_size, step, before, spread in (
        (P, H, R, stride[0], pads[0], dilation[0]),
        (Q, W, S, stride[1], pads[1], dilation[1]),
    ):
        if spread > 1 and _misses_input(out, size, kernel_size, step, before, spread):
            raise ShapeError(
                f"{op}: with dilation {dilation} and padding {pads} some windows of {R}x{S} hold "
                f"nothing but padding of the {H}x{W} input; use less padding or dilation"
            )
    flag = int(count_include_pad)
    # A single window has nowhere to step to: files say strides that no arithmetic of 64 bits survives.
    stride = (min(stride[0], H + pads[0] + pads[2]), min(stride[1], W + pads[1] + pads[3]))
    dilation = _that_matter(kernel, dilation)
    return Pool2dGeometry(N, C, H, W, R, S, P, Q, *stride, *pads, *dilation, flag)
