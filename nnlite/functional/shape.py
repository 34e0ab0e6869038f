"""Moving, cutting and joining."""

from __future__ import annotations

from collections.abc import Sequence

from nnlite.errors import OperandError, ShapeError
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply

PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""PyTorch's names of the ways to pad -> ONNX's."""


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last axes: (left, right), (left, right, top, bottom), ... as in PyTorch.

    ``mode``: "constant" (``value``, 0 by default), "reflect", "replicate" or "circular".
    """
    if mode not in PAD_MODES:
        raise OperandError(f"pad: mode={mode!r} must be one of {', '.join(PAD_MODES)}")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad: {len(pad)} pads do not pair up with the {x.ndim} axes of x")
    given = len(pad) // 2
    before = [0] * (x.ndim - given) + [pad[2 * i] for i in reversed(range(given))]
    after = [0] * (x.ndim - given) + [pad[2 * i + 1] for i in reversed(range(given))]
    number = 0.0 if value is None else value
    return apply(OPS["pad"], x, pads=(*before, *after), value=number, mode=PAD_MODES[mode])


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim..end_dim merged into one."""
    return x.flatten(start_dim, end_dim)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in row-major order with another shape."""
    return x.reshape(*shape)


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Axes in another order."""
    return x.permute(*axes)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after another along ``dim``."""
    if not tensors:
        raise ShapeError("cat: needs at least one tensor")
    return apply(OPS["concat"], *tensors, axis=dim)


concat = cat
