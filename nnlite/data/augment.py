"""Which transforms augmentation consists of, in one word or a list.

none                      the evaluation's pipeline
light                     crop,flip,jitter                                      the default
strong                    crop=0.25,flip,rotate=15,jitter=0.4,grey,blur,erase
randaugment               crop,flip,randaugment,erase
crop,vflip,rotate=180     any list of the names below, each with an amount where it has one
"""

from __future__ import annotations

from collections.abc import Callable

from nnlite.data.appearance import GaussianBlur, Grey, RandAugment, RandomErasing
from nnlite.data.colour import ColorJitter
from nnlite.data.geometric import Affine, Perspective, Rotation, VerticalFlip
from nnlite.data.transforms import Filter, HorizontalFlip, RandomResizedCrop, Resize, Size, Transform
from nnlite.errors import ConfigError

POLICIES = {
    "light": "crop,flip,jitter",
    "strong": "crop=0.25,flip,rotate=15,jitter=0.4,grey,blur,erase",
    "randaugment": "crop,flip,randaugment,erase",
}

STEPS: dict[str, tuple[float | None, Callable[[float], Transform]]] = {
    "flip": (None, lambda _: HorizontalFlip()),
    "vflip": (None, lambda _: VerticalFlip()),
    "rotate": (15.0, Rotation),
    "affine": (10.0, lambda degrees: Affine(degrees)),
    "perspective": (0.3, Perspective),
    "jitter": (0.2, lambda b: ColorJitter(b, b, b, min(b / 10, 0.5))),
    "grey": (0.1, Grey),
    "blur": (2.0, lambda sigma: GaussianBlur((0.1, sigma))),
    "erase": (0.25, RandomErasing),
    "randaugment": (9.0, lambda magnitude: RandAugment(magnitude=int(magnitude))),
}
"""Name -> default amount (None where there is none) and what it makes. ``crop`` is the first step."""


def steps_of(augment: str, size: Size, filter: Filter, *, flip: bool = True) -> tuple[Transform, ...]:
    """The uint8 steps that ``augment`` (see above) means for inputs of ``size``.

    ``crop=A`` takes a random part of A to all of the picture's area; without it the whole picture is
    resized. ``flip=False`` leaves mirroring out, for classes that differ by left and right. Raises
    ConfigError that names what is not known.
    """
    first: Transform = Resize(size, filter)
    steps: list[Transform] = []
    for item in POLICIES.get(augment, augment).split(","):
        name, equals, text = item.strip().partition("=")
        if name == "crop":
            least = _amount(item, text, 0.5) if equals else 0.5
            if not 0 < least <= 1:
                raise ConfigError(f"{item.strip()!r} must be within 0 .. 1")
            first = RandomResizedCrop(size, scale=(least, 1.0), filter=filter)
            continue
        if name not in STEPS:
            known = ", ".join(("none", *POLICIES, "crop", *STEPS))
            raise ConfigError(f"{name!r} is none of {known}")
        default, make = STEPS[name]
        if equals and default is None:
            raise ConfigError(f"{name!r} takes no amount")
        if name != "flip" or flip:
            steps.append(make(_amount(item, text, default) if equals else default or 0.0))
    return first, *steps


def _amount(item: str, text: str, default: float | None) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{item.strip()!r} needs a number, such as {default:g}") from None


def check_augment(augment: str) -> str | None:
    """What is wrong with ``augment``, or None."""
    if augment == "none":
        return None
    try:
        steps_of(augment, (8, 8), "bilinear")
    except ConfigError as error:
        return f"is no policy: {error}"
    return None
