"""Pictures to model inputs: resize, crop, flip, normalise, and their random kin.

A picture is uint8 [H,W,3] RGB until :class:`Normalize` or :class:`ToFloat` makes it float32 [3,H,W],
a view of [H,W,3] memory: logical CHW, channels-last. Every transform is an immutable value called as
``transform(picture, rng)``; it never writes to its argument, and draws only from ``rng``, which the
deterministic ones do not need.

Sizes, roundings and random draws follow torchvision's ``transforms.v2`` (BSD-3-Clause,
https://github.com/pytorch/vision), on Pillow's antialiased resampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from nnlite.data.decode import MAX_PIXELS
from nnlite.data.pillow import CHANNELS, from_image, to_image
from nnlite.errors import ConfigError, DataError, DTypeError, ShapeError
from nnlite.layout import Array

Filter = Literal["bilinear", "bicubic", "lanczos"]
Size = tuple[int, int]
Range = tuple[float, float]
Triple = tuple[float, float, float]

FILTERS: tuple[str, ...] = get_args(Filter)


class Transform(Protocol):
    """What a :class:`~nnlite.data.loader.Loader` and :class:`Compose` call for each picture."""

    def __call__(self, picture: Array, rng: np.random.Generator | None = None, /) -> Array:
        """A new array (or a view) made from ``picture``, with random choices taken from ``rng``."""


# ---------------------------------------------------------------------------------- checks


def check_picture(what: str, picture: Array) -> None:
    """Raises DTypeError or ShapeError unless ``picture`` is a non-empty uint8 [H,W,C] of 1, 3 or 4 C."""
    if picture.dtype != np.uint8:
        raise DTypeError(f"{what}: picture is {picture.dtype} but must be uint8; Normalize comes last")
    if picture.ndim != 3 or picture.shape[2] not in CHANNELS or picture.size == 0:
        shape = list(picture.shape)
        raise ShapeError(f"{what}: picture has shape {shape} but must be [H,W,C] with 1, 3 or 4 channels")


def _pair(what: str, size: int | Size) -> Size:
    pair = (size, size) if isinstance(size, int) else size
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
        raise ConfigError(f"{what}: size={size!r} must be a positive integer or (height, width)")
    return pair


def _check_filter(what: str, name: str) -> None:
    if name not in FILTERS:
        raise ConfigError(f"{what}: filter={name!r} must be one of {', '.join(FILTERS)}")


def check_range(what: str, name: str, bounds: Range, least: float, most: float = math.inf) -> None:
    """Raises ConfigError unless least <= bounds[0] <= bounds[1] <= most (NaN never is)."""
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most or math.isinf(bounds[1]):
        raise ConfigError(f"{what}: {name}={bounds!r} must be (low, high) within {least} .. {most}")


# ---------------------------------------------------------------------------------- functions


def resize(picture: Array, size: Size, filter: Filter = "bilinear") -> Array:
    """``picture`` uint8 [H,W,3] resampled to ``size`` = (h, w), uint8 [h,w,3].

    Antialiased: where the result is smaller, the filter's support grows by the same factor. The same
    numbers as ``PIL.Image.resize``. Raises DataError when the result would exceed ``MAX_PIXELS``.
    """
    from PIL import Image

    check_picture("resize", picture)
    h, w = _pair("resize", size)
    _check_filter("resize", filter)
    if (h, w) == picture.shape[:2]:
        return picture
    if h * w > MAX_PIXELS:  # a sliver of 1 x 100000 pixels resized by its short side
        H, W = picture.shape[:2]
        raise DataError(
            f"resize: {H} x {W} would become {h} x {w}, beyond {MAX_PIXELS} pixels; crop it first"
        )
    resampling = Image.Resampling[filter.upper()]
    return from_image(to_image(picture).resize((w, h), resampling))


def center_crop(picture: Array, size: Size) -> Array:
    """The middle (h, w) of ``picture`` [H,W,3]: a view, [h,w,3].

    Top and left are round((H - h) / 2) and round((W - w) / 2), halves to even; a picture that is too
    small is first padded with black, the odd row or column at the bottom and the right.
    Source: torchvision ``center_crop``.
    """
    check_picture("center_crop", picture)
    h, w = _pair("center_crop", size)
    H, W = picture.shape[:2]
    if h > H or w > W:
        short_h, short_w = max(h - H, 0), max(w - W, 0)
        pads = ((short_h // 2, (short_h + 1) // 2), (short_w // 2, (short_w + 1) // 2), (0, 0))
        picture = np.pad(picture, pads)
        H, W = picture.shape[:2]
    top, left = round((H - h) / 2), round((W - w) / 2)
    return picture[top : top + h, left : left + w]


# ---------------------------------------------------------------------------------- deterministic


class PictureTransform:
    """Base of the transforms of uint8 pictures: what all of them check."""

    def __call__(self, picture: Array, rng: np.random.Generator | None = None) -> Array:
        """The transformed picture; raises DTypeError or ShapeError unless it is uint8 [H,W,3]."""
        check_picture(type(self).__name__, picture)
        return self._apply(picture, rng)

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        raise NotImplementedError


class RandomTransform(PictureTransform):
    """Base of those that draw: without a generator they raise ConfigError."""

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        if rng is None:
            raise ConfigError(
                f"{type(self).__name__}: is random and needs a generator; pass nnlite.data.generator(...)"
            )
        return self._draw(picture, rng)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class Compose:
    """``steps`` one after the other, all drawing from the same generator."""

    steps: tuple[Transform, ...]

    def __init__(self, steps: Iterable[Transform]) -> None:
        object.__setattr__(self, "steps", tuple(steps))

    def __call__(self, picture: Array, rng: np.random.Generator | None = None) -> Array:
        """The result of the last step, or ``picture`` when there is none."""
        for step in self.steps:
            picture = step(picture, rng)
        return picture


@dataclass(frozen=True)
class Resize(PictureTransform):
    """Resize to exactly (h, w), or, given one integer, the short side to it with the ratio kept.

    The long side becomes floor(size · long / short). Source: torchvision ``Resize(antialias=True)``.
    """

    size: int | Size
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        _pair("Resize", self.size)
        _check_filter("Resize", self.filter)

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        H, W = picture.shape[:2]
        if not isinstance(self.size, int):
            size = self.size
        elif W <= H:
            size = (self.size * H // W, self.size)
        else:
            size = (self.size, self.size * W // H)
        return resize(picture, size, self.filter)


@dataclass(frozen=True)
class ResizeToCover(PictureTransform):
    """Resize, ratio kept, to the smallest picture that covers ``size`` = (h, w).

    One side becomes exact, the other floor'd at or above its target; for h = w this is ``Resize(h)``.
    What ``Resize`` of the short side cannot do for a model whose input is not square.
    """

    size: Size
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        _pair("ResizeToCover", self.size)
        _check_filter("ResizeToCover", self.filter)

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        (h, w), (H, W) = self.size, picture.shape[:2]
        size = (h, h * W // H) if W * h >= H * w else (w * H // W, w)
        return resize(picture, size, self.filter)


@dataclass(frozen=True)
class CenterCrop(PictureTransform):
    """:func:`center_crop` to ``size`` = (h, w), or a square of one integer."""

    size: int | Size

    def __post_init__(self) -> None:
        _pair("CenterCrop", self.size)

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        return center_crop(picture, _pair("CenterCrop", self.size))


@dataclass(frozen=True)
class Normalize(PictureTransform):
    """uint8 [H,W,3] to float32 [3,H,W] in channels-last memory: (pixel · scale - mean) / std.

    ``mean`` and ``std`` are per channel in the order that the result has: RGB, or BGR when ``channels``
    says so (models that came from Caffe). Raises ConfigError unless every std is positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    channels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        count = len(self.mean)
        if count not in CHANNELS or len(self.std) != count or not all(0 < s < math.inf for s in self.std):
            raise ConfigError(
                f"Normalize: mean={self.mean}, std={self.std} must be 1, 3 or 4 numbers each, std positive"
            )
        if self.channels not in ("RGB", "BGR"):
            raise ConfigError(f"Normalize: channels={self.channels!r} must be 'RGB' or 'BGR'")

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        if self.channels == "BGR" and picture.shape[2] > 1:
            picture = np.concatenate([picture[..., 2::-1], picture[..., 3:]], 2)
        H, W, C = picture.shape
        if len(self.mean) != C:
            raise ShapeError(f"Normalize: picture has {C} channels but mean and std have {len(self.mean)}")
        # Rows of W·C instead of an inner axis of C: NumPy's loops are 7 times faster on long axes.
        x = picture.reshape(H, W * C) * np.float32(self.scale)  # [H, W·C]
        x -= np.tile(np.asarray(self.mean, np.float32), W)
        x /= np.tile(np.asarray(self.std, np.float32), W)
        return np.moveaxis(x.reshape(H, W, C), -1, 0)


@dataclass(frozen=True)
class ToFloat(PictureTransform):
    """uint8 [H,W,3] to float32 [3,H,W] in channels-last memory: pixel · scale (0 .. 1 by default)."""

    scale: float = 1 / 255

    def _apply(self, picture: Array, rng: np.random.Generator | None) -> Array:
        return np.moveaxis(np.multiply(picture, np.float32(self.scale), order="C"), -1, 0)


# ---------------------------------------------------------------------------------- random


@dataclass(frozen=True)
class HorizontalFlip(RandomTransform):
    """Left and right exchanged with probability ``p``: a view.

    Source: torchvision ``RandomHorizontalFlip``.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ConfigError(f"HorizontalFlip: p={self.p} must be within 0 .. 1")

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        return picture[:, ::-1] if rng.random() < self.p else picture


@dataclass(frozen=True)
class RandomResizedCrop(RandomTransform):
    """A random part of the picture, resized to ``size``.

    Its area is uniform in ``scale`` times the picture's, log(width / height) uniform in log(``ratio``),
    its place uniform. After ten draws that do not fit, the largest central crop within ``ratio`` is
    taken. Source: torchvision ``RandomResizedCrop``; Szegedy et al., "Going deeper with convolutions".
    """

    size: int | Size
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        _pair("RandomResizedCrop", self.size)
        _check_filter("RandomResizedCrop", self.filter)
        check_range("RandomResizedCrop", "scale", self.scale, 1e-6)
        check_range("RandomResizedCrop", "ratio", self.ratio, 1e-6)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, h, w) of a crop of a ``height`` x ``width`` picture."""
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                return int(top), int(left), h, w
        h, w = height, width
        if width / height < self.ratio[0]:
            h = max(round(w / self.ratio[0]), 1)
        elif width / height > self.ratio[1]:
            w = max(round(h * self.ratio[1]), 1)
        return (height - h) // 2, (width - w) // 2, h, w

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        H, W = picture.shape[:2]
        top, left, h, w = self.box(H, W, rng)
        part = picture[top : top + h, left : left + w]
        return resize(part, _pair("RandomResizedCrop", self.size), self.filter)
