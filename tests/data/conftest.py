from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def picture() -> np.ndarray:
    """Noise, so that no two pixels, rows or channels can be taken for each other."""
    return _noise(1, 40, 30)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """``tree(**{"cats/a.png": 1})``: files below tmp_path/set; a number seeds a picture, text is text."""

    def make(files: dict[str, int | str | None]) -> Path:
        root = tmp_path / "set"
        root.mkdir()
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str):
                path.write_text(content)
            else:
                Image.fromarray(_noise(content, 20 + content % 5, 24)).save(path)
        return root

    return make
