"""Choosing, sorting and summing by place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnlite.errors import OperandError
from nnlite.functional.arithmetic import ne, where
from nnlite.layout import Array
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply, beside


class Sorted(NamedTuple):
    """Elements and the places they were taken from."""

    values: Tensor
    indices: Tensor


def gather(x: Tensor, dim: int, index: Tensor | Array) -> Tensor:
    """y[i, j, ...] = x[index[i, j, ...], j, ...] for dim 0, likewise for the others."""
    return apply(OPS["gather_elements"], x, beside(index, x), axis=dim)


def scatter(x: Tensor, dim: int, index: Tensor | Array, src: Tensor | float) -> Tensor:
    """X with x[index[i, j, ...], j, ...] = src[i, j, ...] for dim 0, likewise for the others."""
    places = beside(index, x)
    if not isinstance(src, Tensor):
        src = beside(np.full(places.shape, src, x.dtype), x)
    return apply(OPS["scatter_elements"], x, places, _part(src, places), axis=dim, reduction="none")


def scatter_add(x: Tensor, dim: int, index: Tensor | Array, src: Tensor) -> Tensor:
    """X with src added: x[index[i, j, ...], j, ...] += src[i, j, ...] for dim 0, likewise for the others."""
    places = beside(index, x)
    return apply(OPS["scatter_elements"], x, places, _part(src, places), axis=dim, reduction="add")


def _part(src: Tensor, places: Tensor) -> Tensor:
    """As in PyTorch only the first elements of a larger src are used."""
    if src.ndim == places.ndim and src.shape != places.shape:
        return src[tuple(slice(n) for n in places.shape)]
    return src


def index_select(x: Tensor, dim: int, index: Tensor | Array) -> Tensor:
    """The slices of x along ``dim`` that index [n] names."""
    return apply(OPS["gather"], x, beside(index, x), axis=dim)


def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The k largest (or smallest) elements along ``dim``, and their places; always in order."""
    indices = apply(OPS["topk_indices"], x, k=k, axis=dim, largest=largest)
    return Sorted(gather(x, dim, indices), indices)


def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Sorted:
    """All elements along ``dim`` in order, ties always as they stood, and their places."""
    return topk(x, x.shape[dim], dim, descending)


def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The places of all elements along ``dim`` in order, ties always as they stood."""
    return apply(OPS["topk_indices"], x, k=x.shape[dim], axis=dim, largest=descending)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the largest element along ``dim``, or in the flattened x."""
    return _argument("argmax", x, dim, keepdim)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the smallest element along ``dim``, or in the flattened x."""
    return _argument("argmin", x, dim, keepdim)


def _argument(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if dim is None:
        return apply(OPS[op], x.reshape(-1), axis=0, keepdims=False)
    return apply(OPS[op], x, axis=dim, keepdims=keepdim)


def cumsum(x: Tensor, dim: int) -> Tensor:
    """y[i] = Σ x[j] over j ≤ i along ``dim``."""
    return apply(OPS["cumsum"], x, axis=dim)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Σ of products over the letters that the result lacks: ``einsum("ij,jk->ik", a, b)``."""
    return apply(OPS["einsum"], *operands, equation=equation)


def one_hot(indices: Tensor | Array, num_classes: int = -1) -> Tensor:
    """Integers [...] to [..., num_classes], 1 at the integer's place; -1: one more than the largest."""
    labels = indices if isinstance(indices, Tensor) else Tensor(np.asarray(indices))
    array = labels.array
    largest = int(array.max()) if labels.size else -1
    classes = largest + 1 if num_classes == -1 else num_classes
    if (labels.size and int(array.min()) < 0) or largest >= classes:
        raise OperandError(f"one_hot: indices must be 0 to {classes - 1}, num_classes - 1")
    return apply(OPS["one_hot"], labels, depth=classes, axis=-1, on=1, off=0, dtype="int64")


def embedding(
    indices: Tensor | Array,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Tensor:
    """The rows of weight [num, dim] that the integers name; that of ``padding_idx`` gets no gradient.

    With ``max_norm`` the rows named whose ‖row‖ₚ, p = ``norm_type``, is larger are first shrunk to it, in
    ``weight`` itself.
    """
    rows = beside(indices, weight)
    if max_norm is not None:
        _limit_rows(weight, np.unique(rows.array), max_norm, norm_type)
    y = apply(OPS["gather"], weight, rows, axis=0)
    if padding_idx is None or not weight.requires_grad:
        return y
    fixed = apply(OPS["gather"], weight.detach(), rows, axis=0)
    learned = ne(rows, padding_idx % weight.shape[0]).reshape(*rows.shape, 1)
    return where(learned, y, fixed)


def _limit_rows(weight: Tensor, rows: Array, max_norm: float, norm_type: float) -> None:
    chosen = weight.array[rows]
    norms = np.linalg.norm(chosen, norm_type, axis=1, keepdims=True)
    if (norms > max_norm).any():
        factors = np.where(norms > max_norm, max_norm / (norms + 1e-7), 1)
        weight.writable()[rows] = chosen * factors.astype(chosen.dtype)
