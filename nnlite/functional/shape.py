"""Moving, cutting and joining."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from nnlite.errors import OperandError, ShapeError
from nnlite.ops import OPS
from nnlite.ops.slicing import END
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


def _slice(x: Tensor, dim: int, start: int, end: int) -> Tensor:
    return apply(OPS["slice"], x, starts=(start,), ends=(end,), axes=(dim,), steps=(1,))


def _size(op: str, x: Tensor, dim: int) -> int:
    if not -x.ndim <= dim < x.ndim:
        raise ShapeError(f"{op}: axis {dim} is out of range for {x.ndim} axes")
    return x.shape[dim]


def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of x along ``dim``: of ``split_size`` each (the last may be smaller), or of the sizes listed."""
    size = _size("split", x, dim)
    if isinstance(split_size, int):
        if split_size < 1:
            raise ShapeError(f"split: split_size={split_size} must be at least 1")
        split_size = [min(split_size, size - at) for at in range(0, size, split_size)] or [0]
    if sum(split_size) != size or min(split_size) < 0:
        raise ShapeError(f"split: sizes {list(split_size)} do not add up to {size}, the size of axis {dim}")
    ends = list(accumulate(split_size))
    return tuple(_slice(x, dim, end - part, end) for end, part in zip(ends, split_size, strict=True))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` parts of equal size along ``dim``; the last may be smaller."""
    if chunks < 1:
        raise ShapeError(f"chunk: chunks={chunks} must be at least 1")
    return split(x, max(-(-_size("chunk", x, dim) // chunks), 1), dim)


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``length`` elements of axis ``dim`` from ``start`` on."""
    size = _size("narrow", x, dim)
    first = start + size if start < 0 else start
    if length < 0 or not 0 <= first <= first + length <= size:
        raise ShapeError(f"narrow: {length} elements from {start} on do not lie in axis {dim} of size {size}")
    return _slice(x, dim, first, first + length)


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices of x along ``dim``, without that axis."""
    parts = range(_size("unbind", x, dim))
    return tuple(apply(OPS["squeeze"], _slice(x, dim, i, i + 1), axes=(dim,)) for i in parts)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape one after another along a new axis ``dim``."""
    if len({t.shape for t in tensors}) > 1:
        raise ShapeError(f"stack: shapes {', '.join(str(list(t.shape)) for t in tensors)} must be equal")
    return cat([apply(OPS["unsqueeze"], t, axes=(dim,)) for t in tensors], dim)


def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """X without its axes of size 1, or without those of ``dim`` that are of size 1."""
    if dim is not None:
        named = [dim] if isinstance(dim, int) else list(dim)
        dim = tuple(axis for axis in named if _size("squeeze", x, axis) == 1)
        if not dim:
            return x
    return apply(OPS["squeeze"], x, axes=dim)


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """X with a new axis of size 1 at ``dim``."""
    return apply(OPS["unsqueeze"], x, axes=(dim,))


def expand(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """X repeated along axes of size 1 to ``sizes``; -1 keeps an axis."""
    if len(sizes) < x.ndim:
        raise ShapeError(f"expand: {list(sizes)} has fewer axes than x {list(x.shape)}")
    own = (*[1] * (len(sizes) - x.ndim), *x.shape)
    return apply(OPS["expand"], x, shape=tuple(o if s == -1 else s for o, s in zip(own, sizes, strict=True)))


def tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """X laid ``repeats[i]`` times one after another along axis i; missing leading counts are 1."""
    counts = (*[1] * (x.ndim - len(repeats)), *repeats)
    if len(counts) > x.ndim:
        x = x.reshape(*[1] * (len(counts) - x.ndim), *x.shape)
    return apply(OPS["tile"], x, repeats=tuple(counts))


def flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    """X with the order of the elements along ``dims`` reversed."""
    ends, count = (-END,) * len(dims), len(dims)
    return apply(OPS["slice"], x, starts=(-1,) * count, ends=ends, axes=tuple(dims), steps=(-1,) * count)


def roll(x: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """X with the elements moved ``shifts`` places along axes ``dims``; what leaves comes in again.

    Without ``dims`` the elements move as in one row.
    """
    if dims is None:
        if not isinstance(shifts, int):
            raise ShapeError(f"roll: shifts={list(shifts)} along several axes need dims")
        return roll(x.reshape(-1), shifts, 0).reshape(*x.shape)
    steps = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(steps) != len(axes):
        raise ShapeError(f"roll: {len(steps)} shifts do not pair up with {len(axes)} dims")
    for step, axis in zip(steps, axes, strict=True):
        size = _size("roll", x, axis)
        if cut := -step % max(size, 1):
            x = cat([_slice(x, axis, cut, size), _slice(x, axis, 0, cut)], axis)
    return x
