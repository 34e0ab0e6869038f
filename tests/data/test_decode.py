from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nnlite.data import decode
from nnlite.data.decode import MAX_PIXELS
from nnlite.errors import ConfigError, DataError


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_is_exact_and_owned(tmp_path: Path, picture: np.ndarray) -> None:
    array = decode(saved(tmp_path / "a.png", Image.fromarray(picture)))
    np.testing.assert_array_equal(array, picture)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_a_string_path_works(tmp_path: Path, picture: np.ndarray) -> None:
    path = saved(tmp_path / "a.bmp", Image.fromarray(picture))
    np.testing.assert_array_equal(decode(str(path)), picture)


@pytest.mark.parametrize("extension", ["png", "pgm", "tif", "bmp"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, extension: str) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    array = decode(saved(tmp_path / f"a.{extension}", Image.fromarray(grey)))
    np.testing.assert_array_equal(array, np.stack([grey] * 3, axis=-1))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    array = decode(saved(tmp_path / "a.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(array, np.where(bits, 255, 0)[..., np.newaxis].repeat(3, axis=2))


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51], [200, 100, 0, 51]]], np.uint8)
    array = decode(saved(tmp_path / "a.png", Image.fromarray(pixels)))
    # 51/255 = 1/5: 0/5 + 255·4/5 = 204, 200/5 + 204 = 244, 100/5 + 204 = 224
    np.testing.assert_array_equal(array, [[[10, 20, 30], [255, 255, 255], [204, 204, 204], [244, 224, 204]]])


def test_grey_with_alpha(tmp_path: Path) -> None:
    pixels = np.array([[[40, 255], [40, 0], [100, 51]]], np.uint8)
    array = decode(saved(tmp_path / "a.png", Image.fromarray(pixels)))
    np.testing.assert_array_equal(array[..., 0], [[40, 255, 224]])


def palette(colours: list[tuple[int, int, int]], indices: list[list[int]]) -> Image.Image:
    image = Image.new("P", (len(indices[0]), len(indices)))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata([index for row in indices for index in row])
    return image


@pytest.mark.parametrize("extension", ["png", "gif"])
def test_palette_with_and_without_transparency(tmp_path: Path, extension: str) -> None:
    colours = [(1, 2, 3), (40, 50, 60), (250, 0, 9)]
    image = palette(colours, [[0, 1, 2, 1]])
    opaque = decode(saved(tmp_path / f"a.{extension}", image))
    np.testing.assert_array_equal(opaque, [[colours[0], colours[1], colours[2], colours[1]]])
    clear = decode(saved(tmp_path / f"b.{extension}", image, transparency=1))
    np.testing.assert_array_equal(clear, [[colours[0], (255,) * 3, colours[2], (255,) * 3]])


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_grey_is_rounded_to_8(tmp_path: Path, extension: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    array = decode(saved(tmp_path / f"a.{extension}", Image.fromarray(values)))
    # v / 257: 128 -> 0.498, 129 -> 0.502, 32768 -> 127.5019, 65406 -> 254.498, 65407 -> 254.502
    np.testing.assert_array_equal(array[0, :, 0], [0, 0, 1, 1, 128, 254, 255, 255])
    np.testing.assert_array_equal(array[..., 0], array[..., 2])


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = [
        (256, 3, 2),
        (257, 3, 1),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (278, 3, 1),
        (279, 4, 4),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    pixels = struct.pack(">HH", 257, 65535)
    path.write_bytes(
        b"MM\0*" + struct.pack(">I", 12) + pixels + struct.pack(">H", len(tags)) + entries + b"\0" * 4
    )
    np.testing.assert_array_equal(decode(path)[..., 0], [[1, 255]])


def test_cmyk(tmp_path: Path) -> None:
    pixels = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    image = Image.frombytes("CMYK", (4, 1), pixels.tobytes())
    array = decode(saved(tmp_path / "a.tif", image))
    np.testing.assert_array_equal(array, [[[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]])


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    array = decode(saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95))
    np.testing.assert_allclose(array.mean(axis=(0, 1)), [255, 0, 0], atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
def test_exif_orientation(tmp_path: Path, picture: np.ndarray, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(picture), exif=exif)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert upright.shape == ((40, 30, 3) if orientation < 5 else (30, 40, 3))
    np.testing.assert_array_equal(decode(path), upright)


def test_orientation_6_turns_clockwise(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(grey), exif=exif)
    np.testing.assert_array_equal(decode(path)[..., 0], [[4, 1], [5, 2], [6, 3]])


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage, no TIFF header", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, picture: np.ndarray, exif: bytes) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(picture), exif=exif)
    np.testing.assert_array_equal(decode(path), picture)


def gradient(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, np.full_like(rows, 90)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    ("at_least", "shape"),
    [
        ((480, 640), (480, 640)),
        ((241, 320), (480, 640)),
        ((240, 320), (240, 320)),
        ((90, 100), (120, 160)),
        ((1, 1), (60, 80)),
    ],
)
def test_draft_never_goes_below_what_was_asked(
    tmp_path: Path, at_least: tuple[int, int], shape: tuple[int, int]
) -> None:
    path = saved(tmp_path / "a.jpg", gradient(480, 640), quality=95)
    array = decode(path, at_least=at_least)
    assert array.shape == (*shape, 3)
    reference = np.asarray(gradient(480, 640).resize(shape[::-1], Image.Resampling.BOX), np.int16)
    np.testing.assert_allclose(array.astype(np.int16), reference, atol=6)


def test_draft_counts_in_upright_sides(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", gradient(400, 640), exif=exif)  # upright: 640 x 400
    assert decode(path, at_least=(320, 200)).shape == (320, 200, 3)
    assert decode(path, at_least=(200, 320)).shape == (640, 400, 3)


def test_draft_leaves_other_formats_alone(tmp_path: Path, picture: np.ndarray) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(picture))
    np.testing.assert_array_equal(decode(path, at_least=(2, 2)), picture)


def test_draft_needs_a_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at_least=\(0, 5\) must be \(height, width\)"):
        decode(tmp_path / "a.jpg", at_least=(0, 5))


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "tif", "bmp", "webp"])
def test_truncated(tmp_path: Path, picture: np.ndarray, extension: str) -> None:
    path = saved(tmp_path / f"broken.{extension}", Image.fromarray(picture))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"broken\.{extension}: the picture cannot be read \(.+\); replace"):
        decode(path)


@pytest.mark.parametrize(
    "content", [b"", b"no picture at all", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_no_picture_inside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"text\.jpg: (its content is no picture|the picture cannot be read)"):
        decode(path)


def test_random_damage_is_a_data_error_or_a_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outcomes: set[str] = set()
    for extension in ("png", "jpg", "gif", "tif", "webp"):
        buffer = io.BytesIO()
        gradient(24, 32).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension.upper()))
        for trial in range(20):
            data = bytearray(buffer.getvalue())
            for position in rng.integers(0, min(len(data), 400), 8):
                data[position] = rng.integers(256)
            path = tmp_path / f"{trial}.{extension}"
            path.write_bytes(data)
            try:
                outcomes.add(str(decode(path).dtype))
            except DataError as error:
                outcomes.add("error that names it" if path.name in str(error) else str(error))
    assert outcomes == {"uint8", "error that names it"}


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: no such picture file"):
        decode(tmp_path / "none.png")
    with pytest.raises(DataError, match="no such picture file"):
        decode(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="no such picture file"):
        decode(tmp_path / "pipe.jpg")


def huge_png(path: Path, width: int, height: int) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    )
    return path


@pytest.mark.parametrize("pillow_limit", [True, False])
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillow_limit: bool) -> None:
    if not pillow_limit:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = huge_png(tmp_path / "bomb.png", 60000, 60000)
    with pytest.raises(DataError, match=rf"bomb\.png: .*more than {MAX_PIXELS} pixels; make it smaller"):
        decode(path)


def test_values_without_a_white(tmp_path: Path) -> None:
    real = saved(tmp_path / "real.tif", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(DataError, match=r"real\.tif: floating-point grey has no defined white"):
        decode(real)
    wide = saved(tmp_path / "wide.tif", Image.fromarray(np.array([[70000, 1]], np.int32)))
    with pytest.raises(DataError, match=r"wide\.tif: 32-bit grey beyond 0 \.\. 65535"):
        decode(wide)
    fits = saved(tmp_path / "fits.tif", Image.fromarray(np.array([[65535, 257]], np.int32)))
    np.testing.assert_array_equal(decode(fits)[..., 1], [[255, 1]])


def test_importing_does_not_import_pillow() -> None:
    code = "import sys, nnlite.data, nnlite.metrics; assert 'PIL' not in sys.modules, 'Pillow was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
