"""Pictures blurred, without colour, with parts missing, or changed by RandAugment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnlite.data.geometric import affine_matrix, check_probability, warp
from nnlite.data.pillow import from_image, on_colours, to_image
from nnlite.data.transforms import RandomTransform, Range, check_range
from nnlite.errors import ConfigError
from nnlite.layout import Array


@dataclass(frozen=True)
class GaussianBlur(RandomTransform):
    """Blurred with probability ``p``, with a deviation in pixels drawn uniformly from ``sigma``.

    Pillow's ``GaussianBlur``: three box filters, within a few percent of the true one.
    """

    sigma: Range = (0.1, 2.0)
    p: float = 0.5

    def __post_init__(self) -> None:
        check_range("GaussianBlur", "sigma", self.sigma, 0, 100)
        check_probability("GaussianBlur", self.p)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        from PIL import ImageFilter

        if rng.random() >= self.p:
            return picture
        blurred = to_image(picture).filter(ImageFilter.GaussianBlur(rng.uniform(*self.sigma)))
        return from_image(blurred)


@dataclass(frozen=True)
class Grey(RandomTransform):
    """Without colour with probability ``p``: every colour becomes L = 0.299 R + 0.587 G + 0.114 B."""

    p: float = 0.1

    def __post_init__(self) -> None:
        check_probability("Grey", self.p)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p or picture.shape[2] == 1:
            return picture
        return on_colours(picture, lambda image: image.convert("L").convert("RGB"))


@dataclass(frozen=True)
class RandomErasing(RandomTransform):
    """A rectangle of noise over the picture with probability ``p``.

    Its area is uniform in ``scale`` times the picture's, the log of its height by width uniform in
    log(``ratio``); after ten draws that do not fit nothing is erased. Source: Zhong et al. 2020,
    arXiv:1708.04896, with uniform noise.
    """

    p: float = 0.25
    scale: Range = (0.02, 0.2)
    ratio: Range = (0.3, 3.3)

    def __post_init__(self) -> None:
        check_probability("RandomErasing", self.p)
        check_range("RandomErasing", "scale", self.scale, 0, 1)
        check_range("RandomErasing", "ratio", self.ratio, 0.01)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return picture
        H, W, C = picture.shape
        for _ in range(10):
            area = H * W * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < H and 0 < w < W:
                top, left = int(rng.integers(0, H - h + 1)), int(rng.integers(0, W - w + 1))
                erased: Array = picture.copy()
                erased[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, C), np.uint8)
                return erased
        return picture


# ---------------------------------------------------------------------------------- RandAugment


def _enhance(kind: str) -> Callable[[Array, float], Array]:
    def change(picture: Array, amount: float) -> Array:
        from PIL import ImageEnhance

        if kind == "Color" and picture.shape[2] == 1:
            return picture
        enhancer = getattr(ImageEnhance, kind)
        return on_colours(picture, lambda image: enhancer(image).enhance(1 + amount))

    return change


def _operate(kind: str) -> Callable[[Array, float], Array]:
    def change(picture: Array, amount: float) -> Array:
        from PIL import ImageOps

        arguments = {"posterize": (8 - round(4 * amount),), "solarize": (round(255 * (1 - amount)),)}
        operation = getattr(ImageOps, kind)
        return on_colours(picture, lambda image: operation(image, *arguments.get(kind, ())))

    return change


def _move(kind: str) -> Callable[[Array, float], Array]:
    def change(picture: Array, amount: float) -> Array:
        H, W = picture.shape[:2]
        moves: dict[str, dict[str, object]] = {
            "rotate": dict(angle=amount),
            "shear_x": dict(shear=(math.degrees(math.atan(amount)), 0.0)),
            "shear_y": dict(shear=(0.0, math.degrees(math.atan(amount)))),
            "shift_x": dict(shift=(amount * W, 0.0)),
            "shift_y": dict(shift=(0.0, amount * H)),
        }
        return warp(picture, affine_matrix(H, W, **moves[kind]))  # type: ignore[arg-type]

    return change


STEPS = 31
"""Values that a magnitude takes, 0 .. 30."""

OPERATIONS: tuple[tuple[str, float, bool, Callable[[Array, float], Array]], ...] = (
    ("identity", 0.0, False, lambda picture, amount: picture),
    ("shear_x", 0.3, True, _move("shear_x")),
    ("shear_y", 0.3, True, _move("shear_y")),
    ("shift_x", 150 / 331, True, _move("shift_x")),
    ("shift_y", 150 / 331, True, _move("shift_y")),
    ("rotate", 30.0, True, _move("rotate")),
    ("brightness", 0.9, True, _enhance("Brightness")),
    ("colour", 0.9, True, _enhance("Color")),
    ("contrast", 0.9, True, _enhance("Contrast")),
    ("sharpness", 0.9, True, _enhance("Sharpness")),
    ("posterize", 1.0, False, _operate("posterize")),
    ("solarize", 1.0, False, _operate("solarize")),
    ("autocontrast", 0.0, False, _operate("autocontrast")),
    ("equalize", 0.0, False, _operate("equalize")),
)
"""Name, amount at magnitude 30, whether its sign is random, and what is done."""


@dataclass(frozen=True)
class RandAugment(RandomTransform):
    """``count`` of the 14 changes in :data:`OPERATIONS`, drawn uniformly, each at ``magnitude`` of 30.

    Source: Cubuk et al. 2020, arXiv:1909.13719; the amounts are torchvision's ``RandAugment``.
    """

    count: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude < STEPS or not 0 <= self.count <= 10:
            raise ConfigError(
                f"RandAugment: count={self.count} must be 0 to 10, magnitude={self.magnitude} 0 to 30"
            )

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        for _ in range(self.count):
            _, most, signed, change = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
            amount = most * self.magnitude / (STEPS - 1)
            if signed and rng.random() < 0.5:
                amount = -amount
            picture = change(picture, amount)
        return picture


def apply_operation(name: str, picture: Array, amount: float) -> Array:
    """One of RandAugment's changes by its name, for looking at it alone."""
    return next(change for known, _, _, change in OPERATIONS if known == name)(picture, amount)
