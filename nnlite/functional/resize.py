"""Resizing, and channels into pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np

from nnlite.errors import OperandError, ShapeError
from nnlite.functional.conv import matmul
from nnlite.functional.pool import adaptive_avg_pool2d
from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply

_LINEAR = {"linear": 3, "bilinear": 4, "trilinear": 5, "bicubic": 4}


def interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resize x [N,C,...] to ``size`` or by ``scale_factor``; see op ``resize``.

    ``mode``: "nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic" or "area".
    ``antialias`` widens the filter when shrinking ("bilinear" and "bicubic", without align_corners).
    """
    axes = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise OperandError("interpolate: give either size or scale_factor")
    if align_corners is not None and mode not in _LINEAR:
        raise OperandError(f"interpolate: align_corners has no meaning for mode={mode!r}; leave it out")
    if mode in _LINEAR and x.ndim != _LINEAR[mode]:
        raise ShapeError(f"interpolate: mode={mode!r} wants {_LINEAR[mode]} axes but x is {list(x.shape)}")
    sizes = None if size is None else _per_axis("size", size, axes)
    scales = None if scale_factor is None else _per_axis("scale_factor", scale_factor, axes)
    if scales is not None and (recompute_scale_factor or mode == "area"):
        sizes = tuple(floor(n * s) for n, s in zip(x.shape[2:], scales, strict=True))
        scales = None
    if mode == "area":
        assert sizes is not None
        if x.ndim != 4:
            raise ShapeError(f"interpolate: mode='area' wants x [N,C,H,W], not {list(x.shape)}")
        return adaptive_avg_pool2d(x, sizes)
    return apply(OPS["resize"], x, sizes=sizes, scales=scales, **_rule(mode, bool(align_corners), antialias))


def _rule(mode: str, align_corners: bool, antialias: bool) -> dict[str, Any]:
    if mode == "nearest":
        rule = {"mode": mode, "coordinates": "asymmetric", "nearest": "floor"}
    elif mode == "nearest-exact":
        rule = {"mode": "nearest", "coordinates": "half_pixel", "nearest": "round_prefer_ceil"}
    elif mode in _LINEAR:
        kind = "cubic" if mode == "bicubic" else "linear"
        rule = {"mode": kind, "coordinates": "align_corners" if align_corners else "half_pixel"}
    else:
        known = ", ".join(["nearest", "nearest-exact", "area", *_LINEAR])
        raise OperandError(f"interpolate: mode={mode!r} must be one of {known}")
    if not antialias:
        return rule
    if align_corners or mode not in ("bilinear", "bicubic"):
        raise OperandError("interpolate: antialias needs mode bilinear or bicubic and no align_corners")
    return {**rule, "antialias": True, "exclude_outside": True, "cubic_a": -0.5}


def _per_axis(name: str, value: Any, axes: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or not values:
        raise ShapeError(f"interpolate: {name}={value} must be one number or {axes}, one for each axis")
    return values


def grid_sample(
    x: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """x [N,C,H,W] at the places of grid [N,P,Q,2], pairs (w, h) from -1 to 1; see op ``grid_sample``.

    ``mode``: "bilinear", "nearest" or "bicubic"; ``padding_mode``, outside of x: "zeros", "border" or
    "reflection".
    """
    modes = {"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"}
    if mode not in modes:
        raise OperandError(f"grid_sample: mode={mode!r} must be one of {', '.join(modes)}")
    options = {"padding_mode": padding_mode, "align_corners": bool(align_corners)}
    return apply(OPS["grid_sample"], x, grid, mode=modes[mode], **options)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid [N,H,W,2] for :func:`grid_sample` of theta [N,2,3] times (w, h, 1), size [N,C,H,W].

    Source: Jaderberg et al. 2015, arXiv:1506.02025; torch.nn.functional.affine_grid.
    """
    if theta.ndim != 3 or theta.shape[1:] != (2, 3) or len(size) != 4 or size[0] != theta.shape[0]:
        raise ShapeError(
            f"affine_grid: theta {list(theta.shape)} must be [N,2,3] and size {list(size)} [N,C,H,W]"
        )

    def places(count: int) -> Array:
        ends = 1.0 if align_corners else 1 - 1 / count
        return np.linspace(-ends, ends, count) if count > 1 else np.zeros(1)

    rows, columns = np.meshgrid(places(size[2]), places(size[3]), indexing="ij")
    base = np.stack([columns, rows, np.ones_like(rows)], -1).reshape(1, -1, 3)
    flat = matmul(Tensor(base.astype(theta.dtype)), theta.transpose(1, 2))
    return flat.reshape(-1, *size[2:], 2)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """[N,C·r²,H,W] to [N,C,H·r,W·r]; see op ``depth_to_space``."""
    return apply(OPS["depth_to_space"], x, block=upscale_factor, mode="CRD")


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """[N,C,H·r,W·r] to [N,C·r²,H,W]; see op ``space_to_depth``."""
    return apply(OPS["space_to_depth"], x, block=downscale_factor, mode="CRD")


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels [groups, C/groups] of x [N,C,...] counted as [C/groups, groups]."""
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"channel_shuffle: groups={groups} must divide the channels of x {list(x.shape)}")
    rest = x.shape[2:]
    parts = x.reshape(-1, groups, x.shape[1] // groups, *rest).transpose(1, 2)
    return parts.reshape(-1, x.shape[1], *rest)
