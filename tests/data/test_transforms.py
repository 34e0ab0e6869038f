from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from nnlite.data import (
    CenterCrop,
    ColorJitter,
    Compose,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Resize,
    ResizeToCover,
    ToFloat,
    Transform,
    center_crop,
    generator,
    resize,
)
from nnlite.errors import ConfigError, DataError, DTypeError, ShapeError
from nnlite.layout import is_channels_last

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def ramp(height: int, width: int) -> np.ndarray:
    """Pixel (y, x) is [y, x, 7]."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, 7)], axis=-1).astype(np.uint8)


# ---------------------------------------------------------------------------------- resize


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("size", [(10, 13), (80, 61), (40, 7)])
def test_resize_is_pillows(picture: np.ndarray, size: tuple[int, int], filter: str) -> None:
    expected = np.asarray(Image.fromarray(picture).resize(size[::-1], FILTERS[filter]))
    np.testing.assert_array_equal(resize(picture, size, filter), expected)  # type: ignore[arg-type]


def test_resize_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (8, 8))
    assert 110 < small.min() <= small.max() < 145, "stripes finer than a pixel must turn grey"


def test_resize_takes_views_and_read_only_arrays(picture: np.ndarray) -> None:
    picture.flags.writeable = False
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(picture[:, ::-1])).resize((5, 6), 2))
    np.testing.assert_array_equal(resize(picture[:, ::-1], (6, 5)), expected)


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((40, 30), 20, (26, 20)),  # 20·40/30 = 26.67
        ((30, 40), 20, (20, 26)),
        ((30, 30), 20, (20, 20)),
        ((33, 77), 50, (50, 116)),  # 50·77/33 = 116.67
        ((20, 61), 20, (20, 61)),
    ],
)
def test_resize_short_side(shape: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert Resize(side)(ramp(*shape)).shape == (*expected, 3)
    assert Resize((4, 9))(ramp(*shape)).shape == (4, 9, 3)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((40, 30), (20, 20), (26, 20)),
        ((30, 30), (10, 20), (20, 20)),
        ((30, 30), (20, 10), (20, 20)),
        ((30, 60), (20, 40), (20, 40)),
        ((30, 61), (20, 40), (20, 40)),  # 20·61/30 = 40.67
        ((31, 60), (20, 40), (20, 40)),  # 40·31/60 = 20.67
        ((10, 50), (30, 31), (30, 150)),
    ],
)
def test_resize_to_cover(shape: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert ResizeToCover(size)(ramp(*shape)).shape == (*expected, 3)


def test_cover_of_a_square_is_the_short_side(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(ResizeToCover((17, 17))(picture), Resize(17)(picture))


def test_a_sliver_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"1 x 9000 would become 256 x 2304000, beyond .* pixels; crop it first"
    ):
        Resize(256)(ramp(1, 9000))


# ---------------------------------------------------------------------------------- crop


@pytest.mark.parametrize(
    ("shape", "size", "top", "left"),
    [
        ((10, 10), (4, 4), 3, 3),
        ((11, 13), (4, 4), 4, 4),  # 3.5 -> 4 and 4.5 -> 4: halves go to even
        ((9, 7), (4, 4), 2, 2),  # 2.5 -> 2 and 1.5 -> 2
        ((6, 8), (6, 8), 0, 0),
    ],
)
def test_center_crop(shape: tuple[int, int], size: tuple[int, int], top: int, left: int) -> None:
    part = CenterCrop(size)(ramp(*shape))
    assert part.shape == (*size, 3)
    assert part[0, 0].tolist() == [top, left, 7]
    assert part[-1, -1].tolist() == [top + size[0] - 1, left + size[1] - 1, 7]


def test_center_crop_pads_what_is_too_small() -> None:
    part = center_crop(np.full((3, 4, 3), 9, np.uint8), (6, 2))
    assert part[:, 0, 0].tolist() == [0, 9, 9, 9, 0, 0]  # 3 short: 1 above, 2 below
    assert CenterCrop(5)(np.full((4, 4, 3), 9, np.uint8))[..., 0].sum() == 9 * 16


def test_random_crop_parameters_stay_in_range() -> None:
    crop = RandomResizedCrop(8, scale=(0.3, 0.6), ratio=(0.5, 2.0))
    H, W = 200, 300
    boxes = np.array([crop.box(H, W, generator(0, 0, i)) for i in range(1500)])
    top, left, h, w = boxes.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + h <= H).all()
    assert (left + w <= W).all()
    area, ratio = h * w / (H * W), w / h
    assert 0.295 < area.min() < area.max() < 0.605
    assert 0.49 < ratio.min() < ratio.max() < 2.05
    assert top.max() > 50
    assert left.max() > 80


def test_random_crop_ratio_is_log_uniform_and_area_uniform() -> None:
    # Scale so small that every draw fits; uniform on [0, 1] has mean 1/2 and variance 1/12.
    crop = RandomResizedCrop(8, scale=(0.05, 0.15), ratio=(0.25, 4.0))
    boxes = np.array([crop.box(2000, 2000, generator(1, 0, i)) for i in range(3000)], float)
    area = (boxes[:, 2] * boxes[:, 3] / 2000**2 - 0.05) / 0.1
    ratio = (np.log(boxes[:, 3] / boxes[:, 2]) + math.log(4)) / (2 * math.log(4))
    for values in (area, ratio):
        assert values.mean() == pytest.approx(0.5, abs=0.02)  # 3.8 standard errors
        assert values.var() == pytest.approx(1 / 12, abs=0.006)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10, 1000), (0, 493, 10, 13)),  # too wide: w = round(10·4/3), left = (1000 - 13) // 2
        ((1000, 10), (493, 0, 13, 10)),
        ((1, 1), (0, 0, 1, 1)),
    ],
)
def test_random_crop_falls_back_to_the_centre(
    shape: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert RandomResizedCrop(8, scale=(1.0, 1.0)).box(*shape, generator(0, 0, 0)) == expected


def test_random_crop_resizes_its_box(picture: np.ndarray) -> None:
    crop = RandomResizedCrop((6, 9), filter="bicubic")
    top, left, h, w = crop.box(40, 30, generator(4, 3, 2))
    part = Image.fromarray(picture).crop((left, top, left + w, top + h))
    expected = np.asarray(part.resize((9, 6), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(crop(picture, generator(4, 3, 2)), expected)


def test_random_crop_of_everything_is_a_resize() -> None:
    square = ramp(30, 30)
    crop = RandomResizedCrop(12, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(crop(square, generator(0, 0, 0)), resize(square, (12, 12)))


# ---------------------------------------------------------------------------------- flip


def test_flip(picture: np.ndarray) -> None:
    mirrored = picture[:, ::-1]
    np.testing.assert_array_equal(HorizontalFlip(1.0)(picture, generator(0, 0, 0)), mirrored)
    np.testing.assert_array_equal(HorizontalFlip(0.0)(picture, generator(0, 0, 0)), picture)
    flips = sum(
        np.array_equal(HorizontalFlip(0.3)(picture, generator(0, 0, i)), mirrored) for i in range(1000)
    )
    assert 250 < flips < 350  # 3.4 standard deviations


# ---------------------------------------------------------------------------------- colour


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_jitter_is_pillows(picture: np.ndarray, name: str, enhance: type, factor: float) -> None:
    expected = np.asarray(enhance(Image.fromarray(picture)).enhance(factor))
    jitter = ColorJitter(**{name: (factor, factor)})
    np.testing.assert_array_equal(jitter(picture, generator(0, 0, 0)), expected)


def test_jitter_by_hand() -> None:
    picture = np.array([[[100, 200, 40], [0, 10, 250]]], np.uint8)
    rng = generator(0, 0, 0)
    dark = ColorJitter(brightness=(0.5, 0.5))(picture, rng)
    np.testing.assert_array_equal(dark, [[[50, 100, 20], [0, 5, 125]]])
    # L = 152, 34 (Pillow's weights); their mean is 93
    flat = ColorJitter(contrast=(0.0, 0.0))(picture, rng)
    np.testing.assert_array_equal(flat, np.full((1, 2, 3), 93))
    grey = ColorJitter(saturation=(0.0, 0.0))(picture, rng)
    np.testing.assert_array_equal(grey, [[[152] * 3, [34] * 3]])


def test_hue_turns_the_colour_circle() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    third = ColorJitter(hue=(1 / 3, 1 / 3))(red, generator(0, 0, 0))
    np.testing.assert_allclose(third[0, 0], (0, 255, 0), atol=6)
    back = ColorJitter(hue=(-1 / 3, -1 / 3))(red, generator(0, 0, 0))
    np.testing.assert_allclose(back[0, 0], (0, 0, 255), atol=6)
    grey = np.full((2, 2, 3), 77, np.uint8)
    np.testing.assert_array_equal(ColorJitter(hue=0.5)(grey, generator(0, 0, 0)), grey)


def test_hue_wraps_around_exactly(picture: np.ndarray) -> None:
    # -0.1 · 255 = -25.5 is cut to -25, and the circle has 256 steps.
    hsv = np.array(Image.fromarray(picture).convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(int) - 25) % 256
    bands = [Image.fromarray(np.ascontiguousarray(hsv[..., i])) for i in range(3)]
    expected = np.asarray(Image.merge("HSV", bands).convert("RGB"))
    jittered = ColorJitter(hue=(-0.1, -0.1))(picture, generator(0, 0, 0))
    np.testing.assert_array_equal(jittered, expected)


def test_factors_are_uniform_in_their_bounds() -> None:
    grey = np.full((1, 1, 3), 100, np.uint8)
    values = [int(ColorJitter(brightness=0.5)(grey, generator(0, 0, i))[0, 0, 0]) for i in range(1000)]
    assert 50 <= min(values) < 55
    assert 145 < max(values) <= 150
    assert np.mean(values) == pytest.approx(100, abs=4)


def test_the_order_is_random() -> None:
    # Brightness that clips and saturation do not commute.
    picture = np.array([[[255, 128, 0]]], np.uint8)
    jitter = ColorJitter(brightness=(2.0, 2.0), saturation=(0.0, 0.0))
    results = {tuple(jitter(picture, generator(0, 0, i))[0, 0].tolist()) for i in range(40)}
    # brightness first: (255,255,0) -> L 226; saturation first: L 151 -> 302 -> 255
    assert results == {(226, 226, 226), (255, 255, 255)}


def test_no_jitter_changes_nothing(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(ColorJitter()(picture, generator(0, 0, 0)), picture)


# ---------------------------------------------------------------------------------- floats


def test_normalize() -> None:
    picture = np.array([[[0, 51, 255], [255, 0, 102]]], np.uint8)
    x = Normalize((0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(picture)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[[-1, 1]], [[-0.2, -1]], [[0.5, 0.2]]], atol=1e-6)


def test_normalize_bgr() -> None:
    picture = np.array([[[10, 20, 30]]], np.uint8)
    x = Normalize((1.0, 2.0, 3.0), (1.0, 1.0, 1.0), scale=1.0, channels="BGR")(picture)
    assert x[:, 0, 0].tolist() == [29.0, 18.0, 7.0]


def test_normalize_agrees_with_float64(picture: np.ndarray) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = np.moveaxis((picture / 255 - np.array(mean)) / np.array(std), -1, 0)
    np.testing.assert_allclose(Normalize(mean, std)(picture[:, ::-1])[:, :, ::-1], expected, atol=1e-6)


def test_to_float(picture: np.ndarray) -> None:
    np.testing.assert_allclose(ToFloat()(picture), picture.transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(ToFloat(1.0)(picture), picture.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "transform", [ToFloat(), Normalize((0, 0, 0), (1, 1, 1)), Normalize((0, 0, 0), (1, 1, 1), 1.0, "BGR")]
)
def test_floats_are_channels_last(picture: np.ndarray, transform: Transform) -> None:
    for view in (picture, picture[:, ::-1], picture[3:9, 5:25]):
        x = transform(view, None)
        assert x.shape == (3, *view.shape[:2])
        assert is_channels_last(x[np.newaxis])


# ---------------------------------------------------------------------------------- all


ALL: list[Transform] = [
    Resize(9),
    Resize((9, 8)),
    ResizeToCover((9, 8)),
    CenterCrop(9),
    CenterCrop(99),
    Normalize((0, 0, 0), (1, 1, 1)),
    ToFloat(),
    HorizontalFlip(),
    RandomResizedCrop(9),
    ColorJitter(0.5, 0.5, 0.5, 0.1),
    Compose([]),
]


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_arguments_are_never_written(picture: np.ndarray, transform: Transform) -> None:
    before = picture.copy()
    picture.flags.writeable = False
    for i in range(4):
        transform(picture, generator(0, 0, i))
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("transform", ALL[:-1], ids=lambda t: type(t).__name__)
def test_only_pictures_are_taken(transform: Transform) -> None:
    rng = generator(0, 0, 0)
    name = type(transform).__name__
    with pytest.raises(
        DTypeError, match=f"{name}: picture is float32 but must be uint8; Normalize comes last"
    ):
        transform(np.zeros((4, 4, 3), np.float32), rng)
    for shape in [(4, 4), (4, 4, 2), (3, 4, 5), (0, 4, 3)]:
        with pytest.raises(ShapeError, match=rf"{name}: picture has shape .* but must be \[H,W,C\]"):
            transform(np.zeros(shape, np.uint8), rng)


def test_compose_is_one_after_the_other(picture: np.ndarray) -> None:
    steps = [RandomResizedCrop(16), HorizontalFlip(), ColorJitter(0.3, 0.3, 0.3, 0.1), ToFloat()]
    rng = generator(1, 2, 3)
    expected = picture
    for step in steps:
        expected = step(expected, rng)
    np.testing.assert_array_equal(Compose(steps)(picture, generator(1, 2, 3)), expected)


@pytest.mark.parametrize("transform", [HorizontalFlip(), RandomResizedCrop(4), ColorJitter(0.1)])
def test_random_transforms_need_a_generator(picture: np.ndarray, transform: Transform) -> None:
    with pytest.raises(ConfigError, match=r"is random and needs a generator; pass nnlite\.data\.generator"):
        transform(picture)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), r"Resize: size=0 must be a positive integer or \(height, width\)"),
        (lambda: Resize((3, 2.5)), r"Resize: size=\(3, 2\.5\) must be"),  # type: ignore[arg-type]
        (lambda: CenterCrop((3, 2, 1)), r"CenterCrop: size=\(3, 2, 1\) must be"),  # type: ignore[arg-type]
        (lambda: Resize(3, "box"), r"Resize: filter='box' must be one of bilinear, bicubic, lanczos"),  # type: ignore[arg-type]
        (lambda: ResizeToCover((3, 0)), r"ResizeToCover: size=\(3, 0\)"),
        (lambda: HorizontalFlip(1.5), r"HorizontalFlip: p=1\.5 must be within 0 \.\. 1"),
        (lambda: RandomResizedCrop(4, scale=(0.5, 0.2)), r"RandomResizedCrop: scale=\(0\.5, 0\.2\) must be"),
        (lambda: RandomResizedCrop(4, ratio=(0.0, 1.0)), r"RandomResizedCrop: ratio=\(0\.0, 1\.0\) must be"),
        (lambda: RandomResizedCrop(4, scale=(math.nan, 1.0)), r"scale=\(nan, 1\.0\)"),
        (lambda: ColorJitter(brightness=-0.1), r"ColorJitter: brightness=-0\.1 must not be negative"),
        (lambda: ColorJitter(contrast=(-1.0, 1.0)), r"ColorJitter: contrast=\(-1\.0, 1\.0\) must be"),
        (lambda: ColorJitter(hue=0.6), r"ColorJitter: hue=\(-0\.6, 0\.6\) must be .* within -0\.5 \.\. 0\.5"),
        (
            lambda: Normalize((0, 0, 0), (1, 0, 1)),
            r"Normalize: .*std=\(1, 0, 1\) must be 1, 3 or 4 numbers each, std positive",
        ),
        (lambda: Normalize((0, 0, 0), (1, 1, 1), 1.0, "GBR"), r"Normalize: channels='GBR' must be"),  # type: ignore[arg-type]
    ],
)
def test_bad_options(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
