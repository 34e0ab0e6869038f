"""What a model expects of its input, as one value that travels with the model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, cast

from nnlite.data.augment import steps_of
from nnlite.data.transforms import (
    FILTERS,
    CenterCrop,
    Compose,
    Filter,
    HorizontalFlip,
    Normalize,
    Resize,
    ResizeToCover,
    Size,
    Transform,
    Triple,
)
from nnlite.errors import ConfigError

Channels = Literal["RGB", "BGR"]

MAX_SIDE = 8192  # beyond this a size in a file is a mistake or an attack, not a model


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model's input x [3,h,w] = (pixel · scale - mean) / std.

    size: (h, w) in pixels. crop: the part of the resized picture's short side that the central crop
    keeps, so 224 with 0.875 means resize to 256, crop 224; 1.0 resizes to (h, w) exactly, without a
    crop and without regard to the ratio. filter: bilinear, bicubic or lanczos, antialiased. mean, std:
    per channel, in the order given by ``channels`` (RGB or BGR), applied to pixel · scale with pixels
    0 .. 255.

    Raises ConfigError naming the field when a value is out of range or of the wrong type.
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    channels: Channels = "RGB"
    crop: float = 0.875
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        size = _numbers("size", self.size, 2, 1, MAX_SIDE)
        if not all(side == int(side) for side in size):
            raise ConfigError(f"preprocessing: size={self.size!r} must be whole pixels (height, width)")
        count = len(self.mean) if isinstance(self.mean, (tuple, list)) and len(self.mean) in (1, 4) else 3
        std = _numbers("std", self.std, count, -1e6, 1e6)
        if min(std) <= 0:
            raise ConfigError(f"preprocessing: std={self.std!r} must be positive")
        values = {
            "size": tuple(int(side) for side in size),
            "mean": _numbers("mean", self.mean, count, -1e6, 1e6),
            "std": std,
            "scale": _number("scale", self.scale, 1e-6, 1e6),
            "crop": _number("crop", self.crop, 0.1, 1.0),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _choice("channels", self.channels, ("RGB", "BGR"))
        _choice("filter", self.filter, FILTERS)

    @classmethod
    def named(
        cls, name: str, size: int | Size, *, crop: float = 0.875, filter: Filter = "bilinear"
    ) -> Preprocessing:
        """The preprocessing of a family in :data:`FAMILIES` for inputs of ``size`` (a side or (h, w)).

        Raises ConfigError listing the families when ``name`` is none of them.
        """
        if name not in FAMILIES:
            raise ConfigError(f"preprocessing: no family {name!r}; known are {', '.join(FAMILIES)}")
        pair = (size, size) if isinstance(size, int) else size
        return cls(pair, *FAMILIES[name], crop=crop, filter=filter)

    @classmethod
    def told(cls, text: str, size: int | Size) -> Preprocessing:
        """What a user writes: a family's name, ``field=value`` after commas, or both.

        ``lite,crop=0.875,filter=bicubic`` or ``mean=127/127/127,std=128,scale=1,channels=BGR``; one number
        counts for every channel. Without a name fields not given are imagenet's, with crop 1. Raises
        ConfigError that names what is not understood.
        """
        first, *rest = (part.strip() for part in text.split(","))
        name, rest = ("imagenet", [first, *rest]) if "=" in first else (first, rest)
        values = cls.named(name, size, crop=1.0).to_dict()
        for part in rest:
            key, _, given = part.partition("=")
            if key in ("mean", "std"):
                numbers = [_told_number(part, number) for number in given.split("/")]
                values[key] = numbers * 3 if len(numbers) == 1 else numbers
            elif key in ("scale", "crop"):
                values[key] = _told_number(part, given)
            elif key in ("channels", "filter"):
                values[key] = given
            else:
                known = "mean, std, scale, channels, crop and filter"
                raise ConfigError(f"preprocessing: {part!r} is none of {known}, each as field=value")
        return cls.from_dict(values)

    # ------------------------------------------------------------------------------- pipelines

    def evaluation(self) -> Compose:
        """The deterministic pipeline: resize, central crop, normalise.

        With crop < 1 the picture is resized, ratio kept, until it covers (h, w) / crop, rounded; for
        square sizes that is torchvision's ``Resize(round(h / crop))``, ``CenterCrop(h)``.
        """
        if self.crop == 1.0:
            steps: tuple[Transform, ...] = (Resize(self.size, self.filter),)
        else:
            h, w = (round(side / self.crop) for side in self.size)
            steps = (ResizeToCover((h, w), self.filter), CenterCrop(self.size))
        return Compose((*steps, self.normalize()))

    def training(self, augment: str = "light", *, flip: bool = True) -> Compose:
        """The augmenting pipeline: what ``augment`` means (:mod:`nnlite.data.augment`), then normalise.

        By default a random resized crop, a flip and colour jitter, milder than for training from
        scratch (area 0.5 .. 1, jitter 0.2, no change of hue beyond 0.02), as fine-tuning on few pictures
        needs. ``flip=False`` is for classes that differ by left and right, such as digits or arrows.
        ``augment="none"`` gives :meth:`evaluation`.
        """
        if augment == "none":
            return self.evaluation()
        return Compose((*steps_of(augment, self.size, self.filter, flip=flip), self.normalize()))

    @property
    def planes(self) -> int:
        """Channels of the input: 3, or 1 or 4 where ``mean`` and ``std`` have so many."""
        return len(self.mean)

    def of_channels(self, count: int) -> Preprocessing:
        """The same for ``count`` channels: what is added or left is normalised by the mean of the three."""
        if count == self.planes:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        if count == 1:
            return replace(self, mean=(mean,), std=(std,))
        return replace(self, mean=(*self.mean, mean), std=(*self.std, std))

    def test_time(self, *, flip: bool = True) -> tuple[Compose, ...]:
        """Pipelines whose scores are averaged in test-time augmentation.

        The evaluation's, and the same of the central 7/8 of each side; with ``flip`` both mirrored too.
        """
        closer = replace(self, crop=max(0.1, self.crop * 7 / 8))
        plain = [one.evaluation() for one in (self, closer)]
        mirrored = [Compose((*p.steps[:-1], HorizontalFlip(1.0), p.steps[-1])) for p in plain if flip]
        return (*plain, *mirrored)

    def normalize(self) -> Normalize:
        """The last step of both pipelines."""
        return Normalize(self.mean, self.std, self.scale, self.channels)

    def decode_hint(self) -> Size:
        """``at_least`` for :func:`nnlite.data.decode`: a size from which no pipeline has to enlarge.

        Twice the input covers crops of half the area (1 / sqrt(0.5 · 3/4) = 1.64) and 1 / crop.
        """
        factor = max(2.0, 2.0 / self.crop)
        return math.ceil(self.size[0] * factor), math.ceil(self.size[1] * factor)

    # ------------------------------------------------------------------------------- files

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_json(self) -> str:
        """One line of JSON that :meth:`from_json` turns into an equal value."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Preprocessing:
        """The inverse of :meth:`to_dict`; every field must be there and no other (ConfigError)."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"preprocessing: must be a JSON object, not {type(values).__name__}")
        names = [field.name for field in fields(cls)]
        for name in names:
            if name not in values:
                raise ConfigError(f"preprocessing: field {name!r} is missing; it needs {', '.join(names)}")
        for name in values:
            if name not in names:
                raise ConfigError(f"preprocessing: unknown field {name!r}; known are {', '.join(names)}")
        return cls(**cast(dict[str, Any], dict(values)))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """The inverse of :meth:`to_json`, for text from any source (ConfigError when it is not valid)."""
        try:
            values = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"preprocessing: not valid JSON ({error})") from error
        return cls.from_dict(values)


_HALF = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), 1.0, "RGB")
_ONES = (1.0, 1.0, 1.0)
_ZEROS = (0.0, 0.0, 0.0)

#: name -> (mean, std, scale, channels). imagenet: torchvision, timm, most of PyTorch. inception, half:
#: TensorFlow's Inception and MobileNet, -1 .. 1. lite: EfficientNet-Lite. unit: 0 .. 1. raw255: models
#: that normalise inside. caffe_bgr: the means of Caffe's ILSVRC-2012 models.
FAMILIES: Mapping[str, tuple[Triple, Triple, float, Channels]] = MappingProxyType(
    cast(
        dict[str, tuple[Triple, Triple, float, Channels]],
        {
            "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255, "RGB"),
            "inception": _HALF,
            "half": _HALF,
            "lite": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), 1.0, "RGB"),
            "unit": (_ZEROS, _ONES, 1 / 255, "RGB"),
            "raw255": (_ZEROS, _ONES, 1.0, "RGB"),
            "caffe_bgr": ((103.939, 116.779, 123.68), _ONES, 1.0, "BGR"),
        },
    )
)


# ---------------------------------------------------------------------------------- checks


def _number(name: str, value: object, least: float, most: float) -> float:
    # bool is an int in Python but never a measure; comparisons are false for NaN, and exact for huge ints.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ConfigError(f"preprocessing: {name}={_short(value)} must be a number in {least:g} .. {most:g}")
    return float(value)


def _numbers(name: str, value: object, count: int, least: float, most: float) -> tuple[float, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise ConfigError(f"preprocessing: {name}={_short(value)} must be {count} numbers")
    return tuple(_number(name, item, least, most) for item in value)


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"preprocessing: {name}={_short(value)} must be one of {', '.join(choices)}")


def _told_number(part: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"preprocessing: {part!r} needs numbers, several with / between them") from None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
