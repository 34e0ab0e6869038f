"""Transforms beyond the basics: hand values, Pillow, and that any picture can be made again alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from nnlite.data import (
    Affine,
    ColorJitter,
    GaussianBlur,
    Grey,
    Normalize,
    Perspective,
    Preprocessing,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Rotation,
    Transform,
    VerticalFlip,
    cutmix,
    generator,
    mixup,
)
from nnlite.data.appearance import OPERATIONS, apply_operation
from nnlite.data.augment import POLICIES, STEPS, steps_of
from nnlite.data.geometric import affine_matrix, edge_colour, perspective_matrix, warp
from nnlite.data.mixing import one_hot
from nnlite.errors import ConfigError, NnliteError, ShapeError

RANDOM = [
    VerticalFlip(), Rotation(), Affine(), Perspective(p=1.0), GaussianBlur(p=1.0), Grey(p=1.0),
    RandomErasing(p=1.0), RandAugment(count=3), ColorJitter(0.3, 0.3, 0.3, 0.1),
]  # fmt: skip


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_picture_can_be_made_again_alone(transform: Transform, channels: int) -> None:
    picture = noise(20, 16, channels)
    kept = picture.copy()
    shown = transform(picture, generator(1, 2, 3))
    assert shown.shape == picture.shape
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(picture, kept)
    np.testing.assert_array_equal(transform(picture, generator(1, 2, 3)), shown)
    others = [transform(picture, generator(1, 2, i)) for i in range(4, 12)]
    if not isinstance(transform, Grey):
        assert any((other != shown).any() for other in others)
    with pytest.raises(ConfigError, match="needs a generator"):
        transform(picture)


# ------------------------------------------------------------------------------------ geometry


def test_vertical_flip() -> None:
    picture = noise(5, 4, 3)
    np.testing.assert_array_equal(VerticalFlip(1.0)(picture, generator(0, 0, 0)), picture[::-1])
    assert VerticalFlip(0.0)(picture, generator(0, 0, 0)) is picture


@pytest.mark.parametrize(("angle", "turns"), [(90, -1), (180, 2), (-90, 1), (0, 0)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_right_angles_move_pixels_exactly(angle: float, turns: int, channels: int) -> None:
    picture = noise(9, 9, channels)
    turned = warp(picture, affine_matrix(9, 9, angle))
    np.testing.assert_array_equal(turned, np.rot90(picture, turns)), "clockwise as one sees it"


def test_shift_scale_and_fill() -> None:
    picture = noise(8, 10, 3)
    moved = warp(picture, affine_matrix(8, 10, shift=(3, -2)))
    np.testing.assert_array_equal(moved[:6, 3:], picture[2:, :7])
    np.testing.assert_array_equal(moved[6:], np.broadcast_to(edge_colour(picture), (2, 10, 3)))
    matrix = affine_matrix(8, 10, scale=2.0)
    np.testing.assert_allclose(matrix @ [5, 4, 1], [5, 4, 1]), "the centre stays"
    np.testing.assert_allclose(matrix @ [6, 4, 1], [7, 4, 1])
    np.testing.assert_allclose(affine_matrix(8, 10, shear=(45, 0)) @ [5, 5, 1], [6, 5, 1])


def test_the_edge_tells_what_fills() -> None:
    drawing = np.full((9, 9, 3), 255, np.uint8)
    drawing[3:6, 3:6] = 0
    assert edge_colour(drawing) == (255, 255, 255)
    assert Rotation(45)(drawing, generator(0, 0, 1))[0, 0].tolist() == [255, 255, 255]


def test_perspective_takes_corners_to_corners() -> None:
    start = np.array([[0, 0], [10, 0], [10, 8], [0, 8]], float)
    end = np.array([[1, 2], [9, 0], [10, 7], [2, 8]], float)
    matrix = perspective_matrix(start, end)
    for (x, y), expected in zip(start, end, strict=True):
        u, v, w = matrix @ [x, y, 1]
        np.testing.assert_allclose([u / w, v / w], expected)
    picture = noise(8, 10, 3)
    np.testing.assert_array_equal(warp(picture, perspective_matrix(start, start)), picture)
    np.testing.assert_array_equal(Perspective(0.0, 1.0)(picture, generator(0, 0, 0)), picture)


# ------------------------------------------------------------------------------------ appearance


def test_blur_is_pillows() -> None:
    picture = noise(20, 20, 3)
    expected = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.5)))
    np.testing.assert_array_equal(GaussianBlur((1.5, 1.5), 1.0)(picture, generator(0, 0, 0)), expected)


def test_grey_by_hand() -> None:
    picture = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 10, 10]]], np.uint8)
    grey = Grey(1.0)(picture, generator(0, 0, 0))
    assert grey[0].tolist() == [[76] * 3, [150] * 3, [29] * 3, [10] * 3]
    with_depth = np.concatenate([picture, np.full((1, 4, 1), 99, np.uint8)], 2)
    assert Grey(1.0)(with_depth, generator(0, 0, 0))[0, 0].tolist() == [76, 76, 76, 99]


def test_erasing_covers_a_rectangle_of_the_area_that_was_asked_for() -> None:
    picture = np.zeros((40, 50, 3), np.uint8)
    shares = []
    for i in range(40):
        erased = RandomErasing(1.0, scale=(0.1, 0.2))(picture, generator(0, 0, i))
        rows, columns = (np.flatnonzero((erased > 0).any(axis)) for axis in ((1, 2), (0, 2)))
        inside = erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (inside > 0).mean() > 0.95
        shares.append(inside.shape[0] * inside.shape[1] / 2000)
    assert 0.08 < min(shares) < max(shares) < 0.22


@pytest.mark.parametrize("name", ["posterize", "solarize", "autocontrast", "equalize"])
def test_operations_are_pillows(name: str) -> None:
    picture = noise(12, 12, 3)
    arguments = {"posterize": (6,), "solarize": (128,)}.get(name, ())
    expected = getattr(ImageOps, name)(Image.fromarray(picture), *arguments)
    np.testing.assert_array_equal(apply_operation(name, picture, 0.5), np.asarray(expected))


@pytest.mark.parametrize("name", [name for name, _, signed, _ in OPERATIONS if signed])
def test_operations_of_amount_zero_do_nothing(name: str) -> None:
    picture = noise(12, 12, 3)
    np.testing.assert_array_equal(apply_operation(name, picture, 0.0), picture)
    assert (apply_operation(name, picture, 0.3) != picture).any()


def test_operations_that_move() -> None:
    picture = noise(10, 10, 3)
    np.testing.assert_array_equal(apply_operation("shift_x", picture, 0.2)[:, 2:], picture[:, :8])
    np.testing.assert_array_equal(apply_operation("rotate", picture, 90.0), np.rot90(picture, -1))
    slanted = apply_operation("shear_x", picture, 1.0)
    np.testing.assert_allclose(slanted[5, 5], picture[5, 5], atol=128)


# ------------------------------------------------------------------------------------ mixing


def test_mixup_by_hand() -> None:
    images, labels = np.arange(6, dtype=np.float32).reshape(3, 2), one_hot(np.array([0, 1, 2]), 3)
    mixed, targets = mixup(images, labels, generator(0, 0, 0, 3))
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed, targets @ images, rtol=1e-5), "pictures as their labels"
    assert (images == np.arange(6).reshape(3, 2)).all()


def test_cutmix_replaces_what_the_labels_say() -> None:
    images = np.broadcast_to(np.arange(1.0, 5.0, dtype=np.float32)[:, None, None, None], (4, 3, 10, 12))
    labels = one_hot(np.arange(4), 4)
    shares = []
    for i in range(30):
        mixed, targets = cutmix(images, labels, generator(0, 0, i, 3))
        for n in range(4):
            counts = np.bincount(mixed[n, 0].astype(int).ravel(), minlength=5)[1:] / 120
            np.testing.assert_allclose(counts, targets[n], atol=1e-6)
        assert (mixed[:, :1] == mixed).all(), "all channels alike"
        shares.append(targets[0].max())
    assert np.ptp(shares) > 0.2
    with pytest.raises(ConfigError, match="use mixup for features"):
        cutmix(labels, labels, generator(0, 0, 0))


def test_values_are_mixed_as_they_are() -> None:
    values = np.array([[0.5, 1], [2, 3]], np.float32)
    assert one_hot(values, 2) is values


# ------------------------------------------------------------------------------------ policies


@pytest.mark.parametrize("policy", [*POLICIES, *STEPS, "crop=0.3,vflip,rotate=180,affine"])
def test_policies_give_the_input_size(policy: str) -> None:
    pipeline = Preprocessing.named("imagenet", 16).training(policy)
    shown = pipeline(noise(30, 40, 3), generator(0, 0, 0))
    assert shown.shape == (3, 16, 16)
    assert np.isfinite(shown).all()


def test_what_policies_consist_of() -> None:
    first, *rest = steps_of("crop=0.25, rotate=30,vflip", (8, 9), "bicubic")
    assert first == RandomResizedCrop((8, 9), (0.25, 1.0), filter="bicubic")
    assert rest == [Rotation(30.0), VerticalFlip()]
    light = Preprocessing.named("imagenet", 16).training()
    assert light.steps[2] == ColorJitter(0.2, 0.2, 0.2, 0.02)
    assert len(Preprocessing.named("imagenet", 16).training("strong", flip=False).steps) == 7


@pytest.mark.parametrize(
    ("augment", "match"),
    [
        ("zoom", "'zoom' is none of none, light, strong, randaugment, crop, flip"),
        ("flip=3", "'flip' takes no amount"),
        ("rotate=much", "'rotate=much' needs a number, such as 15"),
        ("rotate=500", "Rotation: degrees"),
        ("crop=0", "'crop=0' must be within 0 .. 1"),
        ("erase=2", "RandomErasing: p=2.0 must be within 0 .. 1"),
        ("randaugment=31", "magnitude=31 0 to 30"),
        ("", "'' is none of"),
    ],
)
def test_policies_that_are_none(augment: str, match: str) -> None:
    with pytest.raises(NnliteError, match=match):
        steps_of(augment, (8, 8), "bilinear")


# ------------------------------------------------------------------------------------ channels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_channel_is_resized_alike(channels: int) -> None:
    from nnlite.data import resize

    picture = noise(20, 20, channels)
    if channels == 4:
        picture[..., 3] = 0  # would blacken the colours if it were taken for opacity
    small = resize(picture, (7, 6))
    assert small.shape == (7, 6, channels)
    for c in range(min(channels, 3)):
        alone = Image.fromarray(picture[..., c]).resize((6, 7), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(small[..., c], np.asarray(alone))


def test_normalising_other_numbers_of_channels() -> None:
    picture = noise(3, 4, 4)
    four = Normalize((1.0, 2.0, 3.0, 4.0), (1.0, 1.0, 1.0, 2.0), 1.0)
    np.testing.assert_allclose(four(picture)[3], (picture[..., 3] - 4.0) / 2)
    reverse = Normalize((0.0,) * 4, (1.0,) * 4, 1.0, "BGR")(picture)
    np.testing.assert_array_equal(np.moveaxis(reverse, 0, -1), picture[..., [2, 1, 0, 3]])
    with pytest.raises(ShapeError, match="picture has 3 channels but mean and std have 4"):
        four(noise(3, 4, 3))
    assert math.isclose(
        Normalize((2.0,), (4.0,), 1.0)(noise(1, 1, 1))[0, 0, 0], (noise(1, 1, 1)[0, 0, 0] - 2.0) / 4
    )
