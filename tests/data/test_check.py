"""What a look at the data finds: each fault planted by hand, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from nnlite.data import Compose, HorizontalFlip, ImageFolder, Resize, check_data, contact_sheet, save_picture
from nnlite.data.check import difference_hash
from nnlite.errors import DataError


def scene(seed, size=(64, 80)):
    """A smooth random picture, such as scaling does not change much."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path):
    """Two classes, twelve training and two validation pictures each, without a fault."""
    for part, count in (("train", 12), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                scene(1000 * label + 100 * (part == "val") + i).save(folder / f"{i}.png")
    return tmp_path


def found(root, level="errors"):
    report = check_data(ImageFolder.open(root))
    json.dumps(report)
    return [
        (entry["kind"], {path.removeprefix(f"{root}/") for path in entry["paths"]}) for entry in report[level]
    ]


def test_nothing_is_found_where_nothing_is_wrong(root):
    report = check_data(ImageFolder.open(root))
    assert report["errors"] == report["warnings"] == []
    assert report["classes"] == [
        {"name": "cat", "train": 12, "validation": 2}, {"name": "dog", "train": 12, "validation": 2}
    ]  # fmt: skip
    assert report["pictures"] == 28 and report["split"] == "folders"
    assert report["sizes"] == {"least": [64, 80], "median": [64, 80], "most": [64, 80]}
    assert (report["formats"], report["modes"], report["turned"]) == ({"PNG": 28}, {"RGB": 28}, 0)


def test_pictures_that_cannot_be_read(root):
    (root / "train/cat/0.png").write_bytes(b"no picture")
    whole = (root / "train/cat/1.png").read_bytes()
    (root / "train/cat/1.png").write_bytes(whole[: len(whole) // 2])
    assert found(root) == [("unreadable", {"train/cat/0.png"}), ("unreadable", {"train/cat/1.png"})]
    report = check_data(ImageFolder.open(root))
    assert report["errors"][0]["text"].startswith(f"{root}/train/cat/0.png: its content is no picture")


def test_the_same_picture_twice(root):
    data = (root / "train/cat/3.png").read_bytes()
    (root / "train/cat/copy.png").write_bytes(data)
    assert found(root, "errors") == []
    assert found(root, "warnings") == [("duplicate", {"train/cat/3.png", "train/cat/copy.png"})]


def test_leakage_and_conflict_are_errors(root):
    (root / "val/cat/copy.png").write_bytes((root / "train/cat/3.png").read_bytes())
    (root / "train/dog/copy.png").write_bytes((root / "train/cat/4.png").read_bytes())
    assert found(root) == [
        ("leakage", {"train/cat/3.png", "val/cat/copy.png"}),
        ("conflict", {"train/cat/4.png", "train/dog/copy.png"}),
    ]


def test_pictures_that_look_alike(root):
    picture = Image.open(root / "train/cat/3.png")
    picture.resize((160, 128), Image.Resampling.BICUBIC).save(root / "val/cat/larger.jpg", quality=80)
    assert found(root, "errors") == []
    assert found(root, "warnings") == [("near_leakage", {"train/cat/3.png", "val/cat/larger.jpg"})]


def test_difference_hashes_tell_pictures_apart_and_leave_flat_ones_out():
    hashes = [difference_hash(np.asarray(scene(seed))) for seed in range(20)]
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(20, 32), axis=1)
    distances = (bits[:, None] != bits[None]).sum(2)[np.triu_indices(20, 1)]
    assert distances.min() > 40
    assert difference_hash(np.full((50, 40, 3), 200, np.uint8)) == b""


def test_names_sizes_modes_and_turned_pictures(root):
    scene(9007).convert("L").save(root / "train/cat/a.jpg", "PNG")
    scene(9008, (20, 90)).convert("RGBA").save(root / "train/cat/b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(9009).save(root / "train/cat/c.jpg", exif=exif)
    assert found(root, "warnings") == [("extension", {"train/cat/a.jpg"}), ("tiny", {"train/cat/b.png"})]
    report = check_data(ImageFolder.open(root))
    assert report["modes"] == {"RGB": 29, "L": 1, "RGBA": 1} and report["turned"] == 1
    assert report["sizes"]["most"] == [80, 90]  # the turned one is as high as it was wide


def test_classes_that_are_small_or_not_validated(root):
    for i in range(10):
        (root / f"train/dog/{i}.png").unlink()
    for path in (root / "val/dog").iterdir():
        path.unlink()
    (root / "val/dog").rmdir()
    for i in range(30):
        scene(5000 + i).save(root / f"train/cat/more{i}.png")
    texts = {entry["kind"]: entry["text"] for entry in check_data(ImageFolder.open(root))["warnings"]}
    assert set(texts) == {"few", "not_validated", "imbalance"}
    assert texts["few"] == "class 'dog' has 2 training pictures; add some"
    assert "'cat' has 42 training pictures, 'dog' 2" in texts["imbalance"]


def test_a_sheet_of_augmented_pictures(root, tmp_path):
    folder = ImageFolder.open(root)
    transform = Compose((Resize((30, 40)), HorizontalFlip()))
    sheet = contact_sheet(folder, transform, 10, seed=1)
    assert sheet.shape == (2 * 34, 8 * 44, 3) and sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet, contact_sheet(folder, transform, 10, seed=1))
    assert (sheet[30:34] == 255).all() and (sheet[34:, 2 * 44 :] == 255).all()
    save_picture(tmp_path / "sheet.png", sheet)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
    with pytest.raises(DataError, match="give a name that ends in"):
        save_picture(tmp_path / "sheet", sheet)
