"""A picture file as a uint8 array, whatever its format, mode and orientation.

Pillow is imported when the first picture is decoded, not before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nnlite.errors import ConfigError, DataError
from nnlite.layout import Array

if TYPE_CHECKING:
    from PIL import Image as PillowImage

# Pictures come from strangers: only these decoders may look at them, and never those of Pillow that
# start other programs (EPS) or are rarely exercised. "JPEG" includes the multi-picture JPEGs of phones.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# Where Pillow itself refuses (twice its warning level); kept here too because callers may lift Pillow's.
MAX_PIXELS = 178_956_970

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPARENT = ("RGBA", "LA", "PA")


def decode(
    path: str | os.PathLike[str], *, at_least: tuple[int, int] | None = None, channels: int = 3
) -> Array:
    """The picture at ``path`` as a contiguous uint8 RGB array [H,W,3] that the caller owns.

    ``channels``: 1 gives grey instead, [H,W,1]; 4 the four channels of a picture that has them as they
    are (opacity, infrared, depth), and 255 as the fourth of any other.

    EXIF orientation is applied; transparency is laid on white; grey, 1-bit, palette and CMYK become
    RGB; 16-bit grey v becomes round(v / 257), so that 65535 is 255. Of an animation the first frame is
    taken. Colour profiles are ignored, as all common training pipelines do.

    ``at_least`` = (h, w) allows a large JPEG to be decoded at 1/2, 1/4 or 1/8 of its size (which is
    several times faster), as long as the result, after orientation, is still at least h x w.

    Raises DataError naming the path and the reason: no such file, not a picture, truncated or damaged,
    more than ``MAX_PIXELS`` pixels (refused before memory is asked for), or grey values without a
    defined brightness (floats, 32-bit integers beyond 65535).
    """
    from PIL import Image

    if at_least is not None and (len(at_least) != 2 or min(at_least) < 1):
        raise ConfigError(f"decode: at_least={at_least!r} must be (height, width), both at least 1")
    name = os.fspath(path)
    if not os.path.isfile(name):
        # Also keeps a pipe or a device with a picture's name from blocking us.
        raise DataError(f"{name}: no such picture file; check the path")
    try:
        with Image.open(name, formats=FORMATS) as image:
            _check_size(image)
            if at_least is not None and image.format in ("JPEG", "MPO"):
                h, w = at_least if _orientation(image) < 5 else at_least[::-1]
                image.draft(None, (w, h))
            image.load()
            # Asked after load: Pillow turns TIFFs by itself while loading, and then says so here.
            return np.ascontiguousarray(_turned(_pixels(image, channels), _orientation(image)))
    except MemoryError:
        raise  # says nothing about the picture
    except Exception as error:  # Pillow's decoders raise nearly every type when bytes are damaged
        raise DataError(f"{name}: {_reason(error)}") from error


def _pixels(image: PillowImage.Image, channels: int) -> Array:
    from PIL import Image

    if channels == 4:
        if image.mode == "RGBA":
            return np.array(image)
        colours = _rgb(image)
        return np.concatenate([colours, np.full_like(colours[..., :1], 255)], 2)
    colours = _rgb(image)
    if channels == 3:
        return colours
    if image.mode == "I" or image.mode.startswith("I;16"):
        return colours[..., :1]
    return np.array(Image.fromarray(colours).convert("L"))[..., np.newaxis]


def decode_array(pixels: Array, channels: int = 3) -> Array:
    """Pixels that came in an array, uint8 or uint16, [H,W] or [H,W,C], as uint8 RGB [H,W,3].

    By the rules of :func:`decode`: 1 channel is grey, 2 are grey and opacity, 3 RGB, 4 RGB and opacity.
    Raises DataError for any other type or shape.
    """
    from PIL import Image

    array = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or array.size == 0:
        raise DataError(
            f"pixels [{', '.join(map(str, pixels.shape))}] must be [H,W] or [H,W,C] with 1 to 4 C"
        )
    if array.dtype == np.uint16:
        array = _eight_bits(array)
    if array.dtype != np.uint8:
        raise DataError(f"pixels are {pixels.dtype} but must be uint8 (0 .. 255) or uint16 (0 .. 65535)")
    if array.shape[2] == 1 or array.shape[2] == channels == 3:
        array = np.array(np.broadcast_to(array, (*array.shape[:2], 1 if channels == 1 else 3)))
        if channels != 4:
            return array
    return _pixels(Image.fromarray(np.ascontiguousarray(array)), channels)  # LA, RGB or RGBA, by the shape


class Header(NamedTuple):
    """What a picture's file says of itself."""

    format: str
    """Pillow's name: JPEG, PNG, ..."""
    mode: str
    """Pillow's name: RGB, L, RGBA, P, CMYK, ..."""
    orientation: int
    """EXIF orientation; 1 is upright."""


def header(path: str | os.PathLike[str]) -> Header:
    """Format, mode and orientation of the picture at ``path``; DataError when it is none."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return Header(image.format or "", image.mode, _orientation(image))
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{os.fspath(path)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"its content is no picture of a known format ({', '.join(FORMATS)}); convert or remove it"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels; make it smaller or remove it"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the picture cannot be read ({text}); replace or remove it"


def _check_size(image: PillowImage.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{image.width} x {image.height} is more than {MAX_PIXELS} pixels; make it smaller or remove it"
        )


def _orientation(image: PillowImage.Image) -> int:
    """EXIF orientation 1 .. 8; 1 (upright) when it is absent or its block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels may be fine although the metadata is not
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(array: Array, orientation: int) -> Array:
    """``array`` [H,W,3] made upright: a view. Orientations are those of EXIF 2.3, 4.6.4 A."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _rgb(image: PillowImage.Image) -> Array:
    from PIL import Image

    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        return _grey16(np.asarray(image))
    if mode == "F":
        raise DataError("floating-point grey has no defined white; convert it to 8 or 16 bits")
    if mode in _TRANSPARENT or "transparency" in image.info:
        colours = image.convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(colours, mask=colours.getchannel("A"))
        return np.array(page)
    return np.array(image.convert("RGB"))


def _grey16(values: Array) -> Array:
    # Older versions of Pillow hand out 16-bit grey as 32-bit integers, with the same values.
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError("32-bit grey beyond 0 .. 65535 has no defined white; convert it to 8 or 16 bits")
    return np.repeat(_eight_bits(values)[..., np.newaxis], 3, axis=2)


def _eight_bits(values: Array) -> Array:
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
