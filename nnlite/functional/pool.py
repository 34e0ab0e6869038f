"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from nnlite.errors import OperandError, ShapeError
from nnlite.functional.shape import pad
from nnlite.functional.sizes import Size, as_pair
from nnlite.geometry import Padding, Pads, Pair, resolve_pads
from nnlite.ops import OPS
from nnlite.ops.pool import pool2d_geometry_of
from nnlite.tensors import Tensor, apply


@overload
def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Maximum over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``.

    With ``return_indices`` also where in its picture each maximum is, h · W + w.
    """
    window = _window("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode)
    y = apply(OPS["max_pool2d"], x, **window)
    if not return_indices:
        return y
    window["padding"] = _four_pads("max_pool2d", padding)
    return y, apply(OPS["max_pool2d_indices"], x, **window, whole=False)


def _window(
    op: str, kernel_size: Size, stride: Size | None, padding: Padding, dilation: Size, ceil_mode: bool
) -> dict[str, Any]:
    kernel = as_pair(op, "kernel_size", kernel_size)
    return {
        "kernel_size": kernel, "stride": kernel if stride is None else as_pair(op, "stride", stride),
        "padding": padding, "dilation": as_pair(op, "dilation", dilation), "ceil_mode": ceil_mode,
    }  # fmt: skip


def _four_pads(op: str, padding: Padding) -> Pads:
    return resolve_pads(op, padding, (1, 1), (1, 1), (1, 1), (1, 1))


def avg_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    dilation: Size = 1,
) -> Tensor:
    """Mean over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``.

    With ``divisor_override`` the sum over each window divided by that.
    """
    op = "avg_pool2d"
    window = _window(op, kernel_size, stride, padding, dilation, ceil_mode)
    if divisor_override is None:
        return apply(OPS[op], x, **window, count_include_pad=count_include_pad)
    if not divisor_override:
        raise OperandError(f"{op}: divisor_override=0 divides by nothing; leave it out")
    if x.ndim != 4:
        raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,H,W]")
    g = pool2d_geometry_of(op, x.shape, **window)
    rows = (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1  # which the windows reach over
    columns = (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1
    after = max(rows - g.H - g.pad_top, 0), max(columns - g.W - g.pad_left, 0)
    whole = pad(x, (g.pad_left, after[1], g.pad_top, after[0]))
    mean = apply(OPS[op], whole, **window | {"padding": 0, "ceil_mode": False}, count_include_pad=True)
    return mean * (g.R * g.S / divisor_override)


OutputSize = Size | Sequence[int | None] | None
"""Size of an adaptive pooling's output; None for that of the input."""


def _output_size(op: str, x: Tensor, output_size: OutputSize) -> Pair:
    sizes = [output_size] * 2 if output_size is None else output_size
    if isinstance(sizes, Sequence) and x.ndim == 4 and len(sizes) == 2:
        sizes = [own if size is None else size for size, own in zip(sizes, x.shape[2:], strict=True)]
    return as_pair(op, "output_size", sizes)  # type: ignore[arg-type]


def adaptive_avg_pool2d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Mean over as many windows as ``output_size`` asks for; 1 is global average pooling."""
    op = "adaptive_avg_pool2d"
    return apply(OPS[op], x, output_size=_output_size(op, x, output_size))


def adaptive_max_pool2d(x: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """Maximum over as many windows as ``output_size`` asks for; 1 is global maximum pooling.

    With ``return_indices`` also where in its picture each maximum is, h · W + w.
    """
    op = "adaptive_max_pool2d"
    size = _output_size(op, x, output_size)
    y = apply(OPS[op], x, output_size=size)
    return (y, apply(OPS["adaptive_max_pool2d_indices"], x, output_size=size)) if return_indices else y


def lp_pool2d(
    x: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) over windows of x [N,C,H,W], p = ``norm_type``.

    PyTorch leaves out the magnitude, which matters to odd p, and under ``ceil_mode`` weighs windows that
    reach beyond x as if they were whole.
    """
    window = _window("lp_pool2d", kernel_size, stride, (0, 0, 0, 0), 1, ceil_mode)
    return apply(OPS["lp_pool2d"], x, p=norm_type, **window)


def max_unpool2d(
    x: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Size | None = None,
) -> Tensor:
    """The inverse of max_pool2d with its indices: all but the maxima are 0.

    ``output_size`` decides where several sizes would have been pooled to x's.
    """
    op = "max_unpool2d"
    kernel, pads = as_pair(op, "kernel_size", kernel_size), as_pair(op, "padding", padding, 0)
    step = kernel if stride is None else as_pair(op, "stride", stride)
    if output_size is None:
        if x.ndim != 4:
            raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,H,W]")
        output_size = [(x.shape[2 + i] - 1) * step[i] - 2 * pads[i] + kernel[i] for i in (0, 1)]
    if isinstance(output_size, Sequence):
        output_size = output_size[-2:]  # PyTorch takes the whole shape as well
    return apply(OPS[op], x, indices, output_size=as_pair(op, "output_size", output_size), whole=False)


# -------------------------------------------------------------------------------- one dimension


def _one_row(op: str, x: Tensor) -> Tensor:
    """[N,C,L] as a picture of one row."""
    if x.ndim != 3:
        raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,L]")
    return apply(OPS["unsqueeze"], x, axes=(2,))


def _without_row(x: Tensor) -> Tensor:
    return apply(OPS["squeeze"], x, axes=(2,))


def max_pool1d(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of x [N,C,L]."""
    sizes = (1, kernel_size), None if stride is None else (1, stride), (0, padding), (1, dilation)
    row = _one_row("max_pool1d", x)
    if not return_indices:
        return _without_row(max_pool2d(row, *sizes, ceil_mode))
    return tuple(map(_without_row, max_pool2d(row, *sizes, ceil_mode, return_indices=True)))


def avg_pool1d(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean over windows of x [N,C,L]."""
    sizes = (1, kernel_size), None if stride is None else (1, stride), (0, padding)
    return _without_row(avg_pool2d(_one_row("avg_pool1d", x), *sizes, ceil_mode, count_include_pad))


def lp_pool1d(
    x: Tensor, norm_type: float, kernel_size: int, stride: int | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) over windows of x [N,C,L]; see :func:`lp_pool2d`."""
    sizes = (1, kernel_size), None if stride is None else (1, stride)
    return _without_row(lp_pool2d(_one_row("lp_pool1d", x), norm_type, *sizes, ceil_mode))


def adaptive_avg_pool1d(x: Tensor, output_size: int) -> Tensor:
    """Mean over ``output_size`` windows of x [N,C,L]."""
    return _without_row(adaptive_avg_pool2d(_one_row("adaptive_avg_pool1d", x), (1, output_size)))


def adaptive_max_pool1d(x: Tensor, output_size: int, return_indices: bool = False) -> Any:
    """Maximum over ``output_size`` windows of x [N,C,L]; with ``return_indices`` also where they are."""
    found = adaptive_max_pool2d(_one_row("adaptive_max_pool1d", x), (1, output_size), return_indices)
    return tuple(map(_without_row, found)) if return_indices else _without_row(found)


def max_unpool1d(
    x: Tensor,
    indices: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    output_size: int | Sequence[int] | None = None,
) -> Tensor:
    """The inverse of max_pool1d with its indices; see :func:`max_unpool2d`."""
    length = output_size[-1] if isinstance(output_size, Sequence) else output_size
    y = max_unpool2d(
        _one_row("max_unpool1d", x), _one_row("max_unpool1d", indices), (1, kernel_size),
        None if stride is None else (1, stride), (0, padding), None if length is None else (1, length),
    )  # fmt: skip
    return _without_row(y)
