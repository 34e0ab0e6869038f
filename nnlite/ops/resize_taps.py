"""Which pixels, and how weighed, make each pixel of a resized picture: ONNX's coordinate rules and filters.

Along one axis a pixel of the result is a weighted sum of a few of the input's, its taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import floor
from typing import Any, NamedTuple

import numpy as np

from nnlite.device import device_of
from nnlite.layout import Array, as_array
from nnlite.memory import check_budget, max_tensor_bytes

MODES = ("nearest", "linear", "cubic")


class Rule(NamedTuple):
    """Where a result's pixel comes from, and how its neighbours are weighed."""

    mode: str = "linear"
    coordinates: str = "half_pixel"
    nearest: str = "floor"
    antialias: bool = False
    cubic_a: float = -0.75
    exclude_outside: bool = False


class Along(NamedTuple):
    """What happens along one axis."""

    axis: int
    size: int
    out: int
    scale: float
    crop: tuple[float, float] | None = None
    """Which part of the axis is resized, as fractions of its length."""


def _at(rule: Rule, i: Array, along: Along) -> Array:
    """Coordinates in the input of the result's pixels ``i``, as ONNX Resize defines them."""
    name, (_, size, out, scale, crop) = rule.coordinates, along
    if crop is not None:
        start, end = crop
        if out == 1:
            return i * 0 + 0.5 * (start + end) * (size - 1)
        return start * (size - 1) + i * (end - start) * (size - 1) / (out - 1)
    if name == "align_corners":
        return i * ((size - 1) / (out - 1)) if out > 1 else i * 0
    if name == "asymmetric":
        return i / scale
    if name == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if name == "pytorch_half_pixel" and out == 1:
        return i * 0
    centre = (i + 0.5) / scale - 0.5
    if name == "half_pixel_symmetric":
        centre += size / 2 * (1 - out / (scale * size))
    return centre


COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn", "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS: dict[str, Callable[[Array, bool], Array]] = {
    "floor": lambda x, smaller: np.floor(x),
    "ceil": lambda x, smaller: np.ceil(x),
    "round_prefer_floor": lambda x, smaller: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x, smaller: np.floor(x + 0.5),
    "simple": lambda x, smaller: np.ceil(x) if smaller else np.floor(x),  # before operator set 11
}


def _triangle(distance: Array) -> Array:
    return as_array(np.maximum(1 - np.abs(distance), 0))


def _cubic(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return as_array(np.where(d <= 1, near, np.where(d < 2, far, 0)))


def outside_of(rule: Rule, along: Along) -> Array:
    """[out]: which pixels of the result lie beyond the ends of the input; only a crop has such."""
    x = _at(rule, np.arange(along.out, dtype=np.float64), along)
    return as_array((x < 0) | (x > along.size - 1) if along.crop else np.zeros(along.out, bool))


@dataclass(frozen=True, eq=False)
class Taps:
    """What each of the result's pixels along an axis is made of: those of the input and their weights.

    Pixel p has the taps from ``start[p]`` to ``start[p + 1]``.
    """

    start: Array
    source: Array
    weight: Array
    forms: dict[Any, tuple[Array, Array, Array]] = field(default_factory=dict)

    def beside(self, x: Array) -> tuple[Array, Array, Array]:
        """As kernels take them: weights of ``x``'s type, all in the memory that x is in."""
        key = (x.dtype, device_of(x))
        if key not in self.forms:
            start, source = (np.asarray(numbers, like=x) for numbers in (self.start, self.source))
            self.forms[key] = start, source, np.asarray(self.weight, x.dtype, like=x)
        return self.forms[key]


def _taps(counts: Array, source: Array, weight: Array) -> Taps:
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Taps(start, source.astype(np.int32), weight)


def nearest_pixels(rule: Rule, along: Along) -> Array:
    """[out]: the pixel of the input that each of the result is."""
    x = _at(rule, np.arange(along.out, dtype=np.float64), along)
    return np.clip(ROUNDINGS[rule.nearest](x, along.scale < 1), 0, along.size - 1).astype(int)


@lru_cache(maxsize=64)  # a table is as long as a few rows of the picture
def resize_taps(rule: Rule, along: Along) -> Taps:
    """How the result's pixels are weighed of the input's, along one axis."""
    _, size, out, scale, _ = along
    if rule.mode == "nearest":
        taps = nearest_pixels(rule, along)[:, None]
        weights = np.ones(taps.shape)
    else:
        x = _at(rule, np.arange(out, dtype=np.float64), along)
        shrink = min(scale, 1.0) if rule.antialias else 1.0  # antialiasing widens the filter by 1 / scale
        reach = floor((1 if rule.mode == "linear" else 2) / shrink) + 1
        check_budget("resize: its taps", [((out, 2 * reach), np.dtype(np.float64))], max_tensor_bytes())
        taps = np.floor(x).astype(int)[:, None] + np.arange(-reach + 1, reach + 1)
        distance = (taps - x[:, None]) * shrink
        weights = _triangle(distance) if rule.mode == "linear" else _cubic(distance, rule.cubic_a)
        if rule.exclude_outside:
            weights = np.where((taps >= 0) & (taps < size), weights, 0)
        taps = np.clip(taps, 0, size - 1)
        if rule.exclude_outside or rule.antialias:
            weights = weights / weights.sum(1, keepdims=True)
    weights = np.where(outside_of(rule, along)[:, None], 0, weights)
    some = weights != 0
    return _taps(some.sum(1), taps[some], weights[some])


@lru_cache(maxsize=64)
def transposed_taps(rule: Rule, along: Along) -> Taps:
    """The taps of the gradient: the same weights, seen from the input's pixels."""
    known = resize_taps(rule, along)
    start, source, weight = known.start, known.source, known.weight
    order = np.argsort(source, kind="stable")
    pixels = np.repeat(np.arange(along.out), np.diff(start))
    return _taps(np.bincount(source, minlength=along.size), pixels[order], weight[order])


@lru_cache(maxsize=64)
def same_taps(size: int) -> Taps:
    """Those of an axis that stays as it is."""
    return _taps(np.ones(size, int), np.arange(size), np.ones(size))
