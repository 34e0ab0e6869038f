"""Random changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from nnlite.data.pillow import on_colours
from nnlite.data.transforms import RandomTransform, Range, check_range
from nnlite.errors import ConfigError
from nnlite.layout import Array

if TYPE_CHECKING:
    from PIL import Image as PillowImage


@dataclass(frozen=True)
class ColorJitter(RandomTransform):
    """Brightness, contrast, saturation and hue changed by random amounts in a random order.

    A number b means factors uniform in [max(0, 1 - b), 1 + b], for hue shifts uniform in [-b, b] of the
    colour circle (b at most 0.5); a pair gives the bounds themselves. 0 leaves a property alone. With
    f the factor, x a pixel and L = 0.299 R + 0.587 G + 0.114 B, clipped to 0 .. 255:

        brightness  f·x          contrast  f·x + (1-f)·mean(L)          saturation  f·x + (1-f)·L

    The same numbers as torchvision's ``ColorJitter`` on Pillow pictures for the same factors and order.
    Raises ConfigError for bounds out of range.
    """

    brightness: float | Range = 0.0
    contrast: float | Range = 0.0
    saturation: float | Range = 0.0
    hue: float | Range = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            self._bounds(field.name)

    def _bounds(self, name: str) -> Range | None:
        """What to draw from, None where nothing would change."""
        value: float | Range = getattr(self, name)
        neutral, least, most = (0.0, -0.5, 0.5) if name == "hue" else (1.0, 0.0, float("inf"))
        if isinstance(value, (int, float)):
            if not value >= 0:
                raise ConfigError(f"ColorJitter: {name}={value} must not be negative")
            value = (max(neutral - value, least) if name != "hue" else -value, neutral + value)
        check_range("ColorJitter", name, value, least, most)
        return None if value[0] == value[1] == neutral else value

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        order = rng.permutation(len(_CHANGES))
        factors = [rng.uniform(*bounds) if (bounds := self._bounds(name)) else None for name, _ in _CHANGES]

        def change(image: PillowImage.Image) -> PillowImage.Image:
            for i in order:
                factor = factors[i]
                if factor is not None and (
                    image.mode == "RGB" or _CHANGES[i][0] in ("brightness", "contrast")
                ):
                    image = _CHANGES[i][1](image, factor)
            return image

        return on_colours(picture, change)


def _brightness(image: PillowImage.Image, factor: float) -> PillowImage.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: PillowImage.Image, factor: float) -> PillowImage.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: PillowImage.Image, factor: float) -> PillowImage.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Color(image).enhance(factor)


def _hue(image: PillowImage.Image, shift: float) -> PillowImage.Image:
    from PIL import Image

    hue, saturation, value = image.convert("HSV").split()
    # Hue is a circle of 256 steps: uint8 arithmetic wraps around as it should. torchvision cuts towards 0.
    turned = np.asarray(hue) + np.uint8(int(shift * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


_CHANGES: tuple[tuple[str, Callable[[PillowImage.Image, float], PillowImage.Image]], ...] = (
    ("brightness", _brightness),
    ("contrast", _contrast),
    ("saturation", _saturation),
    ("hue", _hue),
)
