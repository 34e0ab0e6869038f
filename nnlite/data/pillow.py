"""Pictures [H,W,C] of 1, 3 or 4 channels to Pillow's and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nnlite.layout import Array

if TYPE_CHECKING:
    from PIL import Image as PillowImage

CHANNELS = (1, 3, 4)


def to_image(picture: Array) -> PillowImage.Image:
    """``picture`` uint8 [H,W,C] for Pillow, every channel treated like the others.

    Four channels become CMYK, not RGBA: Pillow multiplies RGBA by the opacity before it resamples,
    which would spoil colours where the fourth channel is infrared or depth.
    """
    from PIL import Image

    array = np.ascontiguousarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    if picture.shape[2] != 4:
        return Image.fromarray(array)
    return Image.frombytes("CMYK", (picture.shape[1], picture.shape[0]), array.tobytes())


def from_image(image: PillowImage.Image) -> Array:
    """The inverse of :func:`to_image`."""
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array


def on_colours(picture: Array, function: Callable[[PillowImage.Image], PillowImage.Image]) -> Array:
    """``function`` of a picture's colours or grey; a fourth channel stays as it is."""
    if picture.shape[2] < 4:
        return from_image(function(to_image(picture)))
    colours = from_image(function(to_image(picture[..., :3])))
    return np.concatenate([colours, picture[..., 3:]], 2)
