from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from nnlite.data import FAMILIES, Preprocessing, generator
from nnlite.errors import ConfigError


def test_evaluation_by_hand(picture: np.ndarray) -> None:
    # 14 / 0.875 = 16: short side 30 -> 16, 40 -> floor(16·40/30) = 21;
    # crop 14: rows from round(3.5) = 4, columns from 1
    x = Preprocessing.named("imagenet", 14).evaluation()(picture)
    resized = np.asarray(Image.fromarray(picture).resize((16, 21), Image.Resampling.BILINEAR)) / 255
    part = resized[4:18, 1:15]
    expected = (part - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x, expected.transpose(2, 0, 1), atol=2e-6)
    assert x.dtype == np.float32


def test_crop_of_one_squashes(picture: np.ndarray) -> None:
    x = Preprocessing.named("raw255", (8, 12), crop=1.0, filter="lanczos").evaluation()(picture)
    expected = np.asarray(Image.fromarray(picture).resize((12, 8), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(x, expected.transpose(2, 0, 1))


def test_sizes_that_are_not_square_are_covered() -> None:
    white = np.full((30, 30, 3), 255, np.uint8)
    for size in [(8, 16), (16, 8)]:
        x = Preprocessing.named("unit", size).evaluation()(white)
        np.testing.assert_array_equal(x, np.ones((3, *size)))  # no black padding anywhere


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("inception", [-1.0, 0.5 / 127.5, 1.0]),
        ("half", [-1.0, 0.5 / 127.5, 1.0]),
        ("lite", [-127 / 128, 1 / 128, 1.0]),
        ("unit", [0.0, 128 / 255, 1.0]),
        ("raw255", [0.0, 128.0, 255.0]),
        ("caffe_bgr", [255 - 103.939, 128 - 116.779, 0 - 123.68]),
    ],
)
def test_families(name: str, expected: list[float]) -> None:
    picture = np.full((4, 4, 3), (0, 128, 255), np.uint8)
    x = Preprocessing.named(name, 2, crop=1.0).evaluation()(picture)
    np.testing.assert_allclose(x[:, 0, 0], expected, atol=1e-5)


def test_every_family_is_tested_and_valid() -> None:
    assert list(FAMILIES) == ["imagenet", "inception", "half", "lite", "unit", "raw255", "caffe_bgr"]


def test_unknown_family() -> None:
    with pytest.raises(ConfigError, match="no family 'nope'; known are imagenet, inception"):
        Preprocessing.named("nope", 224)


def test_training_augments_reproducibly(picture: np.ndarray) -> None:
    pipeline = Preprocessing.named("imagenet", 16).training()
    first = pipeline(picture, generator(0, 1, 2))
    assert first.shape == (3, 16, 16)
    np.testing.assert_array_equal(first, pipeline(picture, generator(0, 1, 2)))
    assert not np.array_equal(first, pipeline(picture, generator(0, 2, 2)))


def test_training_without_augmentation_is_evaluation(picture: np.ndarray) -> None:
    preprocessing = Preprocessing.named("lite", 16)
    assert preprocessing.training("none") == preprocessing.evaluation()


@pytest.mark.parametrize("flip", [True, False])
def test_flip_can_be_left_out(flip: bool) -> None:
    # Left half black, right half white: only a flip can make the left brighter than the right.
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = 255
    pipeline = Preprocessing.named("unit", 16).training(flip=flip)
    outputs = [pipeline(picture, generator(0, 0, i)) for i in range(40)]
    flipped = sum(bool(x[:, :, 0].mean() > x[:, :, -1].mean()) for x in outputs)
    assert (8 < flipped < 32) if flip else flipped == 0


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
@pytest.mark.parametrize("crop", [0.5, 0.875, 1.0])
def test_decode_hint_suffices_for_every_crop(size: tuple[int, int], crop: float) -> None:
    preprocessing = Preprocessing.named("imagenet", size, crop=crop)
    h, w = preprocessing.decode_hint()
    assert h >= size[0] / crop
    assert w >= size[1] / crop
    random_crop = preprocessing.training().steps[0]
    for i in range(200):
        _, _, box_h, box_w = random_crop.box(h, w, generator(0, 0, i))  # type: ignore[attr-defined]
        assert box_h >= size[0] * 0.99
        assert box_w >= size[1] * 0.99


# ---------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", FAMILIES)
def test_json_round_trip(name: str) -> None:
    preprocessing = Preprocessing.named(name, (224, 192), crop=0.95, filter="bicubic")
    text = preprocessing.to_json()
    assert Preprocessing.from_json(text) == preprocessing
    assert Preprocessing.from_dict(json.loads(text)) == preprocessing
    assert "\n" not in text


def test_lists_become_tuples() -> None:
    made = Preprocessing([8, 8], [0, 0, 0], [1, 1, 1])  # type: ignore[arg-type]
    assert made == Preprocessing((8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert hash(made) == hash(Preprocessing((8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert [type(v) for v in (*made.size, *made.mean)] == [int, int, float, float, float]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 224),
        ("size", [224]),
        ("size", [0, 224]),
        ("size", [224.5, 224]),
        ("size", [1e9, 1e9]),
        ("size", [True, True]),
        ("size", ["224", "224"]),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, None]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("mean", [0.5, 0.5, float("inf")]),
        ("mean", [0.5, 0.5, 10**400]),
        ("mean", "abc"),
        ("std", [1, 1, 0]),
        ("std", [1, 1, -1]),
        ("std", {"0": 1, "1": 1, "2": 1}),
        ("scale", 0),
        ("scale", -1),
        ("scale", "1/255"),
        ("scale", None),
        ("channels", "rgb"),
        ("channels", ["RGB"]),
        ("channels", None),
        ("crop", 0),
        ("crop", 1.01),
        ("crop", float("nan")),
        ("filter", "nearest"),
        ("filter", {}),
    ],
)
def test_bad_values_name_the_field(field: str, value: object) -> None:
    values = Preprocessing.named("imagenet", 224).to_dict() | {field: value}
    with pytest.raises(ConfigError, match=rf"preprocessing: {field}=.* must be"):
        Preprocessing.from_dict(values)
    with pytest.raises(ConfigError, match=rf"preprocessing: {field}=.* must be"):
        Preprocessing.from_json(json.dumps(values))


def test_long_values_are_cut() -> None:
    values = Preprocessing.named("imagenet", 224).to_dict() | {"filter": "x" * 100_000}
    with pytest.raises(ConfigError) as caught:
        Preprocessing.from_dict(values)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("field", ["size", "mean", "std", "scale", "channels", "crop", "filter"])
def test_missing_field(field: str) -> None:
    values = Preprocessing.named("imagenet", 224).to_dict()
    del values[field]
    with pytest.raises(ConfigError, match=f"field '{field}' is missing; it needs size, mean"):
        Preprocessing.from_dict(values)


def test_unknown_field() -> None:
    values = Preprocessing.named("imagenet", 224).to_dict() | {"gamma": 2}
    with pytest.raises(ConfigError, match="unknown field 'gamma'; known are size"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"size": ' + "9" * 10_000 + "}"])
def test_not_json(text: str) -> None:
    with pytest.raises(ConfigError, match=r"preprocessing: (not valid JSON|field)"):
        Preprocessing.from_json(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_not_an_object(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a JSON object, not"):
        Preprocessing.from_json(text)
