"""Drawing a map over a picture, with NumPy alone."""

from __future__ import annotations

import numpy as np

from nnlite.errors import ShapeError
from nnlite.layout import Array

HEAT = ((0, 0, 96), (110, 20, 150), (220, 50, 90), (255, 140, 20), (255, 240, 100))
"""From nothing to much: darker to lighter all the way, so that it also reads in grey."""
AGAINST, IN_FAVOUR = (30, 90, 220), (225, 40, 30)
"""Two colours that people who see no green tell apart."""
OPACITY = 0.75


def colours_of(picture: Array) -> Array:
    """``picture`` uint8 [H,W,C] as it is shown, [H,W,3]: grey three times, a fourth channel left out."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[..., :3]


def heat(values: Array) -> Array:
    """Colours uint8 [...,3] of ``values`` 0 .. 1 (clipped), linear between the stops of ``HEAT``."""
    stops = np.asarray(HEAT, np.float32)
    place = np.clip(np.nan_to_num(values), 0, 1) * (len(stops) - 1)
    below = np.minimum(place.astype(np.intp), len(stops) - 2)
    part = (place - below)[..., np.newaxis]
    return np.asarray(np.rint(stops[below] * (1 - part) + stops[below + 1] * part), np.uint8)


def scaled(values: Array, percentile: float = 100.0) -> Array:
    """``values`` / its ``percentile`` of magnitude, clipped to -1 .. 1; zeros stay zeros."""
    most = float(np.percentile(np.abs(values), percentile))
    most = most or float(np.abs(values).max()) or 1.0
    return np.clip(values / most, -1, 1)


def overlay(picture: Array, values: Array, *, signed: bool = False) -> Array:
    """``picture`` uint8 [H,W,3] in grey under the map ``values`` [H,W], uint8 [H,W,3].

    The map covers as much as it is large: where it is 0 the picture shows, where it is 1 nearly only
    its colour. ``signed`` draws -1 .. 1 in two colours instead of 0 .. 1 in :func:`heat`. Raises
    ShapeError unless the two have the same height and width.
    """
    if picture.shape[:2] != values.shape:
        raise ShapeError(f"overlay: the picture is {list(picture.shape)} but the map {list(values.shape)}")
    grey = (picture @ np.array([0.299, 0.587, 0.114]))[..., np.newaxis]
    strength = np.clip(np.abs(values), 0, 1)[..., np.newaxis]
    if signed:
        colours = np.where(values[..., np.newaxis] > 0, np.array(IN_FAVOUR), np.array(AGAINST))
    else:
        colours = heat(values)
    opacity = OPACITY * np.sqrt(strength)  # a weak trace is still seen
    return np.asarray(np.rint(grey * (1 - opacity) + colours * opacity), np.uint8)
