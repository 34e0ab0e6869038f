from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nnlite.data import ImageFolder, Sample
from nnlite.errors import ConfigError, DataError

Tree = Callable[[dict[str, int | str | None]], Path]


def names(samples: tuple[Sample, ...]) -> list[str]:
    return [f"{sample.label}:{sample.path.parent.name}/{sample.path.name}" for sample in samples]


def many(**counts: int) -> dict[str, int | str | None]:
    return {f"{name}/{i:03}.png": "x" for name, count in counts.items() for i in range(count)}


def test_given_split(tree: Tree) -> None:
    root = tree({"train/b/2.png": "x", "train/b/10.JPG": "x", "train/a/1.jpeg": "x", "val/a/9.webp": "x"})
    folder = ImageFolder.open(root)
    assert folder.classes == ("a", "b")
    assert names(folder.train) == ["0:a/1.jpeg", "1:b/10.JPG", "1:b/2.png"]
    assert names(folder.validation) == ["0:a/9.webp"]
    assert folder.split == "folders"
    assert folder.ignored == 0
    assert all(sample.path.is_file() for sample in folder.train)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Val"])
def test_names_of_the_validation_folder(tree: Tree, name: str) -> None:
    root = tree({"train/a/1.png": "x", "train/b/1.png": "x", f"{name}/b/2.png": "x"})
    folder = ImageFolder.open(str(root))
    assert names(folder.validation) == ["1:b/2.png"]


def test_test_is_left_alone_when_there_is_val(tree: Tree) -> None:
    root = tree({"train/a/1.png": "x", "train/b/1.png": "x", "val/a/2.png": "x", "test/b/3.png": "x"})
    folder = ImageFolder.open(root)
    assert names(folder.validation) == ["0:a/2.png"]
    assert folder.ignored == 1


def test_two_validation_folders(tree: Tree) -> None:
    root = tree({"train/a/1.png": "x", "train/b/1.png": "x", "val/a/2.png": "x", "valid/b/3.png": "x"})
    with pytest.raises(DataError, match="val and valid claim to be the same part; keep one"):
        ImageFolder.open(root)


def test_train_alone_is_split(tree: Tree) -> None:
    folder = ImageFolder.open(tree({f"train/{name}": v for name, v in many(a=4, b=4).items()}))
    assert folder.split == "seed"
    assert folder.classes == ("a", "b")
    assert (len(folder.train), len(folder.validation)) == (6, 2)


def test_a_class_may_be_called_train(tree: Tree) -> None:
    folder = ImageFolder.open(tree(many(boat=2, train=2)))
    assert folder.classes == ("boat", "train")


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (8, 2), (40, 10)])
def test_split_counts(tree: Tree, count: int, expected: int) -> None:
    folder = ImageFolder.open(tree(many(a=count, b=2)))
    labels = [sample.label for sample in folder.validation]
    assert (labels.count(0), labels.count(1)) == (expected, 1)
    both = names(folder.train) + names(folder.validation)
    assert len(set(both)) == len(both) == count + 2


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.5, 5), (0.99, 9)])
def test_every_class_is_in_both_parts(tree: Tree, fraction: float, expected: int) -> None:
    folder = ImageFolder.open(tree(many(a=10, b=10)), validation=fraction)
    assert [s.label for s in folder.validation] == [0] * expected + [1] * expected


def test_split_depends_on_the_seed_alone(tree: Tree) -> None:
    root = tree(many(a=20, b=20))
    first = ImageFolder.open(root, seed=1)
    assert first == ImageFolder.open(root, seed=1)
    assert first.validation != ImageFolder.open(root, seed=2).validation
    chosen = [name[2:] for name in names(first.validation)]
    assert [n[2:] for n in chosen[:5]] != [n[2:] for n in chosen[5:]], "classes share their draw"
    assert list(first.train) == sorted(first.train, key=lambda s: (s.label, s.path.name))


def test_split_is_pinned(tree: Tree) -> None:
    # A new version of NumPy or of this module must not move pictures between the parts.
    folder = ImageFolder.open(tree(many(a=8, b=8)), seed=0)
    assert names(folder.validation) == ["0:a/006.png", "0:a/007.png", "1:b/000.png", "1:b/003.png"]


def test_what_is_ignored(tree: Tree) -> None:
    root = tree(
        {
            **many(a=2, b=2),
            "README.md": "x",  # 1
            "loose.jpg": "x",  # 2
            ".git/x.png": "x",  # 3
            "__MACOSX/a/x.png": "x",  # 4
            "a/Thumbs.db": "x",  # 5
            "a/.hidden.png": "x",  # 6
            "a/notes.txt": "x",  # 7
            "b/deeper/x.png": "x",  # 8
            "b/folder.png": None,  # 9
        }
    )
    folder = ImageFolder.open(root)
    assert folder.classes == ("a", "b")
    assert len(folder.train) + len(folder.validation) == 4
    assert folder.ignored == 9
    assert (
        folder.describe()
        == "2 classes, 2 training and 2 validation pictures (9 other files or folders ignored)"
    )


def link(target: Path, at: Path) -> None:
    try:
        os.symlink(target, at)
    except OSError:
        pytest.skip("this system does not let us make links")


def test_links_out_of_the_root_are_refused(tree: Tree, tmp_path: Path) -> None:
    root = tree(many(a=2, b=2))
    outside = tmp_path / "set-outside" / "c"  # a name that starts like the root's
    outside.mkdir(parents=True)
    (outside / "x.png").write_text("x")
    link(outside, root / "c")
    link(outside / "x.png", root / "a" / "z.png")
    link(root / "a" / "000.png", root / "b" / "inside.png")
    link(root / "gone", root / "b" / "dangling.png")
    folder = ImageFolder.open(root)
    assert folder.classes == ("a", "b")
    listed = [name[2:] for name in names(folder.train + folder.validation)]
    assert sorted(listed) == ["a/000.png", "a/001.png", "b/000.png", "b/001.png", "b/inside.png"]
    assert folder.ignored == 3


def test_the_root_may_be_a_link(tree: Tree, tmp_path: Path) -> None:
    root = tree(many(a=2, b=2))
    link(root, tmp_path / "alias")
    assert ImageFolder.open(tmp_path / "alias").classes == ("a", "b")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: no such folder; check the path"):
        ImageFolder.open(tmp_path / "none")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("x")
    with pytest.raises(DataError, match=r"f\.txt: is a file; give the folder"):
        ImageFolder.open(tmp_path / "f.txt")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": "x"}, r"set: no class folders; sort the pictures into one folder per class"),
        (
            {"a/x.heic": "x", "b/y.txt": "x"},
            r"set: no pictures in its 2 class folders \(2 other files\); known ex",
        ),
        ({"a/1.png": "x", "a/2.png": "x"}, r"set: only one class \('a'\); classification needs at least two"),
        (
            {**many(a=2, b=2), "empty/readme": "x"},
            r"set.empty: class folder without pictures; add some or remove",
        ),
        (
            {**many(a=2), "b/1.png": "x"},
            r"set.b: class with a single picture, which cannot both train and val",
        ),
        (
            {"train/a/1.png": "x", "train/b/1.png": "x", "val/a/1.png": "x", "val/c/1.png": "x"},
            r"val.c: class 'c' has validation pictures but no training folder; add one or remove",
        ),
        ({"train/a/1.png": "x", "train/b/1.png": "x", "val/x.png": "x"}, r"val: no class folders"),
        (
            {"train/a/1.png": "x", "train/b/1.png": "x", "val/a/x.txt": "x"},
            r"val: no pictures in its 1 class",
        ),
        ({"train/a/1.png": "x", "val/a/1.png": "x"}, r"set: only one class"),
    ],
)
def test_errors(tree: Tree, files: dict[str, int | str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageFolder.open(tree(files))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fraction(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"validation=.* must be a fraction between 0 and 1"):
        ImageFolder.open(tmp_path, validation=fraction)


def test_is_immutable(tree: Tree) -> None:
    folder = ImageFolder.open(tree(many(a=2, b=2)))
    with pytest.raises(AttributeError):
        folder.seed = 3  # type: ignore[attr-defined]
    assert hash(folder) == hash(ImageFolder.open(folder.root))
