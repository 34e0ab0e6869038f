"""Pooling."""

from __future__ import annotations

from typing import Any, Literal, overload

from nnlite.errors import ShapeError
from nnlite.functional.sizes import Size, as_pair
from nnlite.geometry import Padding, Pads, resolve_pads
from nnlite.ops import OPS
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
    dilation: Size = 1,
) -> Tensor:
    """Mean over windows of x [N,C,H,W]; ``stride`` defaults to ``kernel_size``."""
    kernel = as_pair("avg_pool2d", "kernel_size", kernel_size)
    return apply(
        OPS["avg_pool2d"], x, kernel_size=kernel,
        stride=kernel if stride is None else as_pair("avg_pool2d", "stride", stride),
        padding=padding, dilation=as_pair("avg_pool2d", "dilation", dilation),
        ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip


def adaptive_avg_pool2d(x: Tensor, output_size: Size) -> Tensor:
    """Mean over as many windows as ``output_size`` asks for; 1 is global average pooling."""
    size = as_pair("adaptive_avg_pool2d", "output_size", output_size)
    return apply(OPS["adaptive_avg_pool2d"], x, output_size=size)


def adaptive_max_pool2d(x: Tensor, output_size: Size) -> Tensor:
    """Maximum over as many windows as ``output_size`` asks for; 1 is global maximum pooling."""
    size = as_pair("adaptive_max_pool2d", "output_size", output_size)
    return apply(OPS["adaptive_max_pool2d"], x, output_size=size)


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


def adaptive_max_pool1d(x: Tensor, output_size: int) -> Tensor:
    """Maximum over ``output_size`` windows of x [N,C,L]."""
    return _without_row(adaptive_max_pool2d(_one_row("adaptive_max_pool1d", x), (1, output_size)))
