from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def few_pictures(clipart, tmp_path_factory) -> Path:
    """Six training and two held-out drawings of three classes."""
    root = tmp_path_factory.mktemp("few")
    for part, count in (("train", 6), ("val", 2)):
        for name in ("bird", "building", "plant"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for picture in sorted((clipart / part / name).iterdir())[:count]:
                shutil.copy(picture, folder)
    return root


@pytest.fixture
def copied(few_pictures, tmp_path) -> Callable[[], Path]:
    """``copied()``: the pictures once more, to be damaged."""
    return lambda: Path(shutil.copytree(few_pictures, tmp_path / "pictures"))
