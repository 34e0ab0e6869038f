"""Pictures mirrored, turned, sheared and seen from another side.

What lies outside the picture is filled with the median colour of its edge: drawings stand on white, and
black corners would tell a network that a picture was turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnlite.data.pillow import from_image, to_image
from nnlite.data.transforms import RandomTransform, Range, check_range
from nnlite.errors import ConfigError
from nnlite.layout import Array


def check_probability(what: str, p: float) -> None:
    """ConfigError unless 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise ConfigError(f"{what}: p={p} must be within 0 .. 1")


def edge_colour(picture: Array) -> tuple[int, ...]:
    """The median of each channel along the picture's four edges."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return tuple(int(value) for value in np.median(edge, axis=0))


def affine_matrix(
    height: int,
    width: int,
    angle: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
) -> Array:
    """M float64 [3,3] that takes (x, y, 1) of a picture to its place in the result.

        M = T(centre + shift) · R(angle) · [[1, tan shear_x], [tan shear_y, 1]] · scale · T(-centre)

    Angles in degrees, clockwise as one sees it (y points down); shift in pixels (x, y).
    """
    a, (sx, sy) = math.radians(angle), (math.tan(math.radians(s)) for s in shear)
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    linear = scale * turn @ np.array([[1, sx], [sy, 1]])
    centre = np.array([width / 2, height / 2])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre + np.array(shift) - linear @ centre
    return matrix


def warp(picture: Array, matrix: Array) -> Array:
    """``picture`` [H,W,C] moved by ``matrix`` [3,3] (affine or projective), bilinear, of the same size."""
    from PIL import Image

    back = np.linalg.inv(matrix)
    # Rounded, because a pixel at -1e-16 is outside.
    back = np.round(back / back[2, 2], 12)
    image = to_image(picture)
    affine = bool(np.allclose(back[2], (0, 0, 1), atol=1e-12))
    how = Image.Transform.AFFINE if affine else Image.Transform.PERSPECTIVE
    numbers = tuple(back.ravel()[: 6 if affine else 8].tolist())
    fill = edge_colour(picture)
    colour = fill[0] if len(fill) == 1 else fill
    warped = image.transform(image.size, how, numbers, resample=Image.Resampling.BILINEAR, fillcolor=colour)
    return from_image(warped)


def perspective_matrix(start: Array, end: Array) -> Array:
    """The projective M [3,3] that takes four points ``start`` [4,2] (x, y) to ``end`` [4,2]."""
    rows = []
    for (x, y), (u, v) in zip(start, end, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = np.linalg.solve(np.array(rows), end.reshape(-1))
    return np.append(solved, 1.0).reshape(3, 3)


@dataclass(frozen=True)
class VerticalFlip(RandomTransform):
    """Top and bottom exchanged with probability ``p``: a view."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability("VerticalFlip", self.p)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        return picture[::-1] if rng.random() < self.p else picture


@dataclass(frozen=True)
class Rotation(RandomTransform):
    """Turned about its centre by an angle uniform in [-``degrees``, ``degrees``]."""

    degrees: float = 15.0

    def __post_init__(self) -> None:
        check_range("Rotation", "degrees", (0.0, self.degrees), 0, 180)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        angle = rng.uniform(-self.degrees, self.degrees)
        return warp(picture, affine_matrix(picture.shape[0], picture.shape[1], angle))


@dataclass(frozen=True)
class Affine(RandomTransform):
    """Turned, shifted, scaled and sheared about its centre, each by an amount drawn uniformly.

    degrees: of turning, ±. shift: ± part of width and height. scale: bounds of the factor. shear: ±
    degrees, along x and along y.
    """

    degrees: float = 10.0
    shift: float = 0.1
    scale: Range = (0.9, 1.1)
    shear: float = 8.0

    def __post_init__(self) -> None:
        check_range("Affine", "degrees", (0.0, self.degrees), 0, 180)
        check_range("Affine", "shift", (0.0, self.shift), 0, 1)
        check_range("Affine", "scale", self.scale, 0.01)
        check_range("Affine", "shear", (0.0, self.shear), 0, 80)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        H, W = picture.shape[:2]
        angle = rng.uniform(-self.degrees, self.degrees)
        dx, dy = rng.uniform(-self.shift, self.shift, 2)
        scale = rng.uniform(*self.scale)
        shear_x, shear_y = rng.uniform(-self.shear, self.shear, 2)
        return warp(picture, affine_matrix(H, W, angle, (dx * W, dy * H), scale, (shear_x, shear_y)))


@dataclass(frozen=True)
class Perspective(RandomTransform):
    """Seen from another side with probability ``p``: each corner moves inwards by up to ``distortion`` / 2.

    Source: torchvision ``RandomPerspective``.
    """

    distortion: float = 0.3
    p: float = 0.5

    def __post_init__(self) -> None:
        check_range("Perspective", "distortion", (0.0, self.distortion), 0, 0.9)
        check_probability("Perspective", self.p)

    def _draw(self, picture: Array, rng: np.random.Generator) -> Array:
        if rng.random() >= self.p:
            return picture
        H, W = picture.shape[:2]
        corners = np.array([[0, 0], [W, 0], [W, H], [0, H]], np.float64)
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        moved = corners + inwards * rng.uniform(0, self.distortion / 2, (4, 2)) * (W, H)
        return warp(picture, perspective_matrix(corners, moved))
