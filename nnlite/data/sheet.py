"""A sheet of pictures as augmentation shows them, to be looked at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from nnlite.data.dataset import Dataset
from nnlite.data.random import generator
from nnlite.data.transforms import Transform
from nnlite.errors import DataError
from nnlite.files import write_atomically
from nnlite.layout import Array

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def contact_sheet(
    folder: Dataset, transform: Transform, count: int, seed: int = 0, columns: int = 8
) -> Array:
    """``count`` training pictures as augmentation shows them in epoch 0, uint8 [H,W,3]; white between them.

    ``transform`` gives uint8 [h,w,3]: a training pipeline without its last step.
    """
    indices = np.linspace(0, len(folder.train) - 1, min(count, len(folder.train))).astype(int)
    shown = [transform(folder.train[i].read(), generator(seed, 0, int(i))) for i in indices]
    h, w = (max(picture.shape[axis] for picture in shown) + 4 for axis in (0, 1))
    rows = -(-len(shown) // columns)
    sheet = np.full((rows * h, min(columns, len(shown)) * w, 3), 255, np.uint8)
    for number, picture in enumerate(shown):
        top, left = number // columns * h, number % columns * w
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def save_picture(path: Path, picture: Array) -> None:
    """Write uint8 [H,W,3] in the format that the name says; FileError when it cannot be written."""
    from PIL import Image

    if path.suffix.lower() not in KINDS:
        raise DataError(f"{path}: give a name that ends in {', '.join(KINDS)}")
    data = io.BytesIO()
    Image.fromarray(picture).save(data, KINDS[path.suffix.lower()])
    write_atomically(path, data.getvalue())
