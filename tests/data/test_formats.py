"""CSV, COCO, YOLO and .npz: what is read, and what is said about files that are wrong."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnlite.data import (
    Compose,
    Dataset,
    ImageFolder,
    Loader,
    Resize,
    ToFloat,
    check_data,
    decode,
    open_dataset,
)
from nnlite.errors import ConfigError, DataError

Tree = Callable[[dict[str, int | str | None]], Path]
TRANSFORM = Compose([Resize((4, 4)), ToFloat()])


def shown(data: Dataset) -> dict[str, object]:
    """Name of each picture -> what is known about it, with a ! where it validates."""
    told = {}
    for samples, mark in ((data.train, ""), (data.validation, "!")):
        for sample in samples:
            what = sample.values or data.classes[sample.label]
            told[sample.path.name + mark] = what
    return told


def test_a_folder_is_what_it_was(tree: Tree) -> None:
    root = tree({f"{c}/{i}.png": i for c in "ab" for i in range(4)})
    assert open_dataset(root) == ImageFolder.open(root)
    assert open_dataset(root).task == "single"


# ------------------------------------------------------------------------------------------ CSV


def table(tree: Tree, text: str, name: str = "list.csv", pictures: str = "abcd") -> Path:
    return tree({name: text, **{f"{c}.png": ord(c) for c in pictures}}) / name


def test_csv_of_classes(tree: Tree) -> None:
    data = open_dataset(
        table(tree, "path,label,split\na.png,cat,train\nb.png,dog,train\n\nc.png, cat ,val\nd.png,dog,test\n")
    )
    assert shown(data) == {"a.png": "cat", "b.png": "dog", "c.png!": "cat"}
    assert (data.task, data.split, data.ignored) == ("single", "file", 1), "test is left where there is val"
    images, labels, _ = next(Loader(data.train, TRANSFORM, 2).epoch())
    assert images.shape == (2, 3, 4, 4)
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "task", "classes", "known"),
    [
        ("path,labels\na.png,x;y\nb.png,\nc.png,z\nd.png,y", "multi", "xyz", [(1, 1, 0), (0, 0, 0)]),
        ("path,label\na.png,x; y\nb.png,y\nc.png,y\nd.png,y", "multi", "xy", [(1, 1), (0, 1)]),
        ("file,q,p\na.png,1,0\nb.png,0,0\nc.png,1,1\nd.png,1,1", "multi", "pq", [(0, 1), (0, 0)]),
        ("\ufefffile,q,p\na.png,1.5,-2e3\nb.png,0,0\nc.png,1,1\nd.png,1,1", "regression", "qp",
         [(1.5, -2000), (0, 0)]),
        ("path,label\na.png,1\nb.png,2\nc.png,1\nd.png,2", "single", "12", ["1", "2"]),
    ],
)  # fmt: skip
def test_what_a_table_means(tree: Tree, text: str, task: str, classes: str, known: list[object]) -> None:
    data = open_dataset(table(tree, text), validation=0.25)
    assert (data.task, "".join(data.classes)) == (task, classes)
    told = {name.rstrip("!"): what for name, what in shown(data).items()}
    assert [told["a.png"], told["b.png"]] == known
    assert len(data.validation) in (1, 2)
    labels = next(Loader(data.train, TRANSFORM, 2).epoch()).labels
    assert labels.dtype == (np.int64 if task == "single" else np.float32)


def test_a_task_may_be_told(tree: Tree) -> None:
    text = "path,label\na.png,1\nb.png,2\nc.png,1\nd.png,2"
    data = open_dataset(table(tree, text), task="regression")
    assert set(shown(data).values()) == {(1.0,), (2.0,)}
    with pytest.raises(ConfigError, match="task='guess' must be one of auto, single, multi, regression"):
        open_dataset(data.root, task="guess")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name,label\na.png,x", r"list\.csv:1: the first line names the columns.*it has name, label"),
        ("", r"list\.csv:1: .*it has nothing"),
        ("path\na.png", r":1: no column says what the pictures show; add one called 'label'"),
        ("path,x,X\na.png,1,1", ":1: every column needs a name of its own"),
        ("path,label\na.png,x\nb.png", r"list\.csv:3: has 1 cells but there are 2 columns"),
        ("path,label\na.png,x\na.png,y", r":3: a\.png stands in line 2 already"),
        ("path,label\na.png,x\n../secret.png,y", r":3: '\.\./secret\.png' leads out of .*--images"),
        ("path,label\na.png,x\n/etc/passwd,y", r":3: '/etc/passwd' leads out of"),
        ("path,label\na.png,x\nlink.png,y", r":3: 'link\.png' leads out of"),
        ("path,label\na.png,x\n,y", ":3: no name of a picture"),
        ("path,label\na.png,x\nb.png,", ":3: no label; give one or remove the line"),
        ("path,label\na.png,x\nb.png,x", "only one class"),
        ("path,label\na.png,x\nb.png,y", "class 'x' has a single picture, which cannot both"),
        ("path,label,split\na.png,x,train\nb.png,y,", ":3: the split is empty; say train, val or test"),
        ("path,label,split\na.png,x,train\nb.png,y,train", "its parts are train; call one 'val'"),
        ("path,label,split\na.png,x,val\nb.png,y,train", "'x' has validation pictures but no training"),
        ("path,age\na.png,3\nb.png,old", r"list\.csv:3: age='old' must be a number"),
        ("path,age\na.png,3\nb.png,nan", "age='nan' must be a number"),
        ("path,age\na.png,3\nb.png,1e300", "age='1e300' must be a number"),
        ("path,label\nq.png,x\nr.png,y", r":2: none of the pictures is there, such as .*q\.png; --images"),
        ('path,label\na.png,"x', "list.csv:2: unexpected end of data"),
        ("path,label", "lists no pictures"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(tree: Tree, tmp_path: Path, text: str, match: str) -> None:
    path = table(tree, text)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (path.parent / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=match):
        open_dataset(path)


def test_text_that_is_not_utf8(tree: Tree) -> None:
    path = table(tree, "")
    path.write_bytes(b"path,label\na.png,\xe9")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_dataset(path)


def test_the_user_may_name_another_folder(tree: Tree, tmp_path: Path) -> None:
    root = tree({f"{c}.png": ord(c) for c in "abcd"})
    path = tmp_path / "list.tsv"
    path.write_text(f"path\tlabel\n{root / 'a.png'}\tx\nb.png\ty\nc.png\tx\nd.png\ty\n")
    assert len(open_dataset(path, images=root).train) == 2
    with pytest.raises(DataError, match="no such folder of pictures; --images names it"):
        open_dataset(path, images=tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------ boxes


def coco(tree: Tree, **changes: object) -> Path:
    """Two pictures of 20 x 24 and 21 x 24 pixels; three boxes, one of a crowd, one without area."""
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 20, "width": 24},
            {"id": 9, "file_name": "b.png", "height": 21, "width": 24},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [6, 5, 12, 10]},
            {"image_id": 7, "category_id": 5, "bbox": [0, 0, 6, 6]},
            {"image_id": 9, "category_id": 5, "bbox": [12, 0, 30, 7]},
            {"image_id": 9, "category_id": 1, "bbox": [0, 7, 12, 7]},
            {"image_id": 9, "category_id": 1, "bbox": [0, 0, 12, 7], "iscrowd": 1},
            {"image_id": 9, "category_id": 1, "bbox": [3, 3, 0, 5]},
        ],
    }
    content.update(changes)
    files = {"images/a.png": 0, "images/b.png": 1, "annotations/all.json": json.dumps(content)}
    return tree(files)  # type: ignore[arg-type]


def test_coco_crops(tree: Tree) -> None:
    root = coco(tree)
    data = open_dataset(root, seed=1)
    assert data.classes == ("cat", "dog")
    assert data.ignored == 2
    by_picture = {s.path.name: part for part in ("train", "validation") for s in getattr(data, part)}
    assert sorted(by_picture) == ["a.png", "b.png"]
    assert set(by_picture.values()) == {"train", "validation"}, "boxes of one picture stay together"
    pixels = {(s.path.name, data.classes[s.label]): s.read() for s in (*data.train, *data.validation)}
    a, b = decode(root / "images/a.png"), decode(root / "images/b.png")
    np.testing.assert_array_equal(pixels["a.png", "dog"], a[5:15, 6:18])
    np.testing.assert_array_equal(pixels["a.png", "cat"], a[:6, :6])
    np.testing.assert_array_equal(pixels["b.png", "cat"], b[:7, 12:24]), "clipped to the picture"
    assert open_dataset(root / "annotations/all.json", images=root / "images").classes == data.classes


def test_coco_parts(tree: Tree) -> None:
    root = coco(tree)
    text = (root / "annotations/all.json").read_text()
    (root / "annotations/all.json").rename(root / "annotations/instances_train2017.json")
    (root / "annotations/instances_val2017.json").write_text(text)
    (root / "images").rename(root / "val2017")
    (root / "train2017").symlink_to(root / "val2017")
    data = open_dataset(root)
    assert (len(data.train), len(data.validation), data.split) == (4, 4, "file")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"categories": 3}, "have a list 'categories', which is missing"),
        ({"images": []}, r"annotations\[0\]: image_id 7 is not among the images"),
        ({"categories": []}, r"category_id 1 is not among the categories"),
        ({"images": [{"id": 7, "file_name": "a.png", "height": 0, "width": 24}]}, "height 0 and width 24"),
        ({"images": [{"id": "7"}]}, r"images\[0\]: height must be an integer, not None"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]}, "bbox must be four"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, "4"]}]}, "bbox must be four"),
        ({"annotations": [5]}, r"annotations\[0\]: must be an object"),
        ({"annotations": []}, "none of its 2 pictures has a box"),
        ({"images": [{"id": 7, "file_name": "../../x", "height": 2, "width": 2}], "annotations": []},
         "were not found beside it; --images"),
    ],
)  # fmt: skip
def test_coco_that_is_wrong(tree: Tree, changes: dict[str, object], match: str) -> None:
    with pytest.raises(DataError, match=match):
        open_dataset(coco(tree, **changes))


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "is not valid JSON"), ("[]", "holds no COCO annotations"), ("[" * 99999, "JSON")],
)
def test_json_that_is_none(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=match):
        open_dataset(tmp_path / "a.json")


YAML = """\
# a comment
path: .
train: images/train  # where
val: 'images/val'
names:
  0: cat
  1: "dog"
other:
  deep: yes
"""


def yolo(tree: Tree, yaml: str = YAML, boxes: str = "0 0.5 0.5 0.5 0.4\n1 0 0 .25 0 .25 .5 0 .5\n") -> Path:
    files = {"data.yaml": yaml, "labels/train/a.txt": boxes, "labels/val/c.txt": "1 .1 .1 .2 .2"}
    pictures = {"images/train/a.png": 0, "images/train/b.png": 1, "images/val/c.png": 2}
    return tree(files | pictures)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", ["names: [cat, 'dog']", "names:\n- cat\n- dog"])
def test_yolo_crops(tree: Tree, names: str) -> None:
    root = yolo(tree, YAML[: YAML.index("names")] + names + "\n")
    data = open_dataset(root)
    assert (data.classes, data.split, len(data.train), len(data.validation)) == (("cat", "dog"), "file", 2, 1)
    a = decode(root / "images/train/a.png")  # 20 x 24
    np.testing.assert_array_equal(data.train[0].read(), a[6:14, 6:18])
    np.testing.assert_array_equal(data.train[1].read(), a[:10, :6])
    assert data.train[0].name.endswith("a.png at 0.300, 0.250, 0.700, 0.750")
    assert open_dataset(root / "data.yaml") == data


@pytest.mark.parametrize(
    ("yaml", "boxes", "match"),
    [
        ("train: images/train", "", "has no names of classes"),
        ("names: [a, b]", "", "does not say where the training pictures are"),
        ("names: [a, b\ntrain: images/train", "", r"data\.yaml:1: a list that begins with \["),
        ("names\ntrain: images/train", "", r"data\.yaml:1: 'names' must be 'key: value'"),
        ("  - a", "", r":1: '- a' belongs to no setting"),
        ("train: images/train\nnames:\n  0: a\n  2: b", "", "numbered 0, 1, 2, ... without a gap"),
        ("names: [a, b]\ntrain: ../../images", "", "leads out of"),
        ("names: [a, b]\ntrain: nowhere/images", "", "'nowhere/images' is no folder of pictures"),
        ("names: [a, b]\ntrain: labels/train", "", "has no part 'images'"),
        (YAML, "0 .5 .5 .5", r"a\.txt:1: a class needs x_centre"),
        (YAML, "0 .5 .5 .5 .5\n2 .5 .5 .5 .5", r"a\.txt:2: class 2 must be one of 0 .. 1"),
        (YAML, "cat .5 .5 .5 .5", r"a\.txt:1: 'cat .* must be numbers"),
        (YAML, "0 .5 nan .5 .5", r"a\.txt:1: a class needs"),
    ],
)
def test_yolo_that_is_wrong(tree: Tree, yaml: str, boxes: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        open_dataset(yolo(tree, yaml, boxes))


def test_a_small_box_of_a_large_jpeg_is_decoded_finely(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 512).astype(np.uint8)[None, :, None], (512, 512, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.jpg", quality=95)
    from nnlite.data import Sample

    sample = Sample(tmp_path / "a.jpg", 0, box=(0.0, 0.0, 0.25, 0.25))
    assert sample.read().shape == (128, 128, 3)
    assert sample.read(at_least=(64, 64)).shape == (64, 64, 3)
    assert sample.read(at_least=(65, 65)).shape == (128, 128, 3)


# ------------------------------------------------------------------------------------------ arrays


def arrays(tmp_path: Path, **values: np.ndarray) -> Path:
    np.savez(tmp_path / "set.npz", **values)
    return tmp_path / "set.npz"


X = np.random.default_rng(0).integers(0, 256, (8, 5, 6, 3), np.uint8)
Y = np.arange(8) % 2


@pytest.mark.parametrize(
    "names", [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "val_images",
              "val_labels")]
)  # fmt: skip
def test_arrays_with_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = open_dataset(
        arrays(tmp_path, **dict(zip(names, (X[:6], Y[:6, None], X[6:], Y[6:, None]), strict=True)))
    )
    assert (data.classes, data.split, len(data.train), len(data.validation)) == (("0", "1"), "file", 6, 2)
    np.testing.assert_array_equal(data.validation[1].read(), X[7])
    assert data.validation[1].name.endswith("set.npz[1]")
    batch = next(Loader(data.train, TRANSFORM, 6, workers=2).epoch())
    assert batch.labels.tolist() == Y[:6].tolist()
    np.testing.assert_array_equal(batch.images[3], TRANSFORM(X[3]))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (X[..., 0], np.repeat(X[..., :1], 3, 3)),
        (X[..., :1], np.repeat(X[..., :1], 3, 3)),
        (X.astype(np.uint16) * 257, X),
        (np.concatenate([X, np.full_like(X[..., :1], 255)], 3), X),
        (np.concatenate([X, np.zeros_like(X[..., :1])], 3), np.full_like(X, 255)),
        (np.asfortranarray(X), X),
    ],
)
def test_kinds_of_pixels(tmp_path: Path, pixels: np.ndarray, expected: np.ndarray) -> None:
    data = open_dataset(arrays(tmp_path, x=pixels, y=Y))
    assert len(data.train) + len(data.validation) == 8
    for sample in (*data.train, *data.validation):
        assert sample.row is not None
        np.testing.assert_array_equal(sample.read(), expected[sample.row])


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        (np.eye(2, dtype=int)[Y], "multi", ("label 0", "label 1")),
        (Y / 3, "regression", ("value 0",)),
        (Y.astype(np.uint8), "single", ("0", "1")),
    ],
)
def test_kinds_of_labels(tmp_path: Path, y: np.ndarray, task: str, classes: tuple[str, ...]) -> None:
    data = open_dataset(arrays(tmp_path, x=X, y=y))
    assert (data.task, data.classes) == (task, classes)
    if task != "single":
        known = {s.row: s.values for s in (*data.train, *data.validation)}
        np.testing.assert_allclose([known[row] for row in range(8)], y.reshape(8, -1))


def test_names_of_classes(tmp_path: Path) -> None:
    data = open_dataset(arrays(tmp_path, x=X, y=Y, classes=np.array(["no", "yes"])))
    assert data.classes == ("no", "yes")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"a": X}, r"holds a; call the pictures x and the labels y"),
        ({"x": X, "y": Y[:3]}, r"y \[3\] must have a row for each picture of x \[8, 5, 6, 3\]"),
        ({"x": X / 255, "y": Y}, "array 'x' is float64; save pixels 0 .. 255 as uint8"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, r"must be \[N,H,W\] or \[N,H,W,C\]; move the channels last"),
        ({"x": X, "y": Y - 1}, "one class per picture needs integers"),
        ({"x": X, "y": np.stack([Y, Y + 1], 1)}, "several labels per picture need 0 or 1"),
        ({"x": X, "y": Y * np.nan}, "a label is not a finite number"),
        ({"x": X, "y": Y, "classes": np.array(["a"])}, "classes has 1 names but the labels need 2"),
        ({"x": X, "y": np.array(["a"] * 8)}, "y is <U1 but must be numbers"),
        ({"x": X, "y": Y * 1j}, "array 'y' is complex128; only numbers are read"),
    ],
)  # fmt: skip
def test_arrays_that_are_wrong(tmp_path: Path, values: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(DataError, match=match):
        open_dataset(arrays(tmp_path, **values))


def test_nothing_in_an_array_file_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=X, y=np.array([{"a": 1}] * 8, object))
    with pytest.raises(DataError, match="array 'y' is object; only numbers are read"):
        open_dataset(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", pickle.dumps(X))
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match="array 'x' has no header of a NumPy array"):
        open_dataset(path)


def test_sizes_are_checked_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000, 3), }\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match="array 'x' claims 3000000000000 bytes but has"):
        open_dataset(path)
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(DataError, match=r"is no whole \.npz file"):
        open_dataset(path)


# ------------------------------------------------------------------------------------------ all


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"a\.txt: is none of the formats that are understood: a folder"):
        open_dataset(tmp_path / "a.txt")


def test_a_folder_is_no_regression(tree: Tree) -> None:
    root = tree({f"{c}/{i}.png": i for c in "ab" for i in range(4)})
    with pytest.raises(DataError, match="one class per picture, which is no regression task"):
        open_dataset(root, task="regression")


def test_checking_every_format(tree: Tree, tmp_path: Path) -> None:
    report = check_data(open_dataset(table(tree, "path,labels\na.png,x;y\nb.png,\nc.png,z\nd.png,y")))
    assert [(e["name"], e["train"] + e["validation"]) for e in report["classes"]] == [
        ("x", 1), ("y", 2), ("z", 1)
    ]  # fmt: skip
    (tmp_path / "set" / "n.csv").write_text("path,age\na.png,1\nb.png,2\nc.png,3\nd.png,x".replace("x", "6"))
    data = open_dataset(tmp_path / "set" / "n.csv")
    values = [sample.values[0] for sample in data.train]
    (entry,) = check_data(data)["numbers"]
    assert (entry["name"], entry["least"], entry["most"]) == ("age", min(values), max(values))
    assert entry["mean"] == pytest.approx(sum(values) / 3)
    twice = X.copy()
    twice[7] = twice[0]
    report = check_data(
        open_dataset(arrays(tmp_path, x=np.kron(twice, np.ones((1, 8, 8, 1), np.uint8)), y=Y))
    )
    assert [entry["kind"] for entry in report["errors"]] == ["conflict"]
    assert "set.npz[0]" in report["errors"][0]["text"]
    assert report["formats"] == {"array": 8}
    assert report["modes"] == {"3 x uint8": 8}
