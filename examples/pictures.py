"""Real pictures for the examples: Fashion-MNIST where it is installed, else scikit-learn's digits.

Both are returned as float32 [N,C,32,32] in -1..1 with labels [N], ten classes.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist

Set = tuple[np.ndarray, np.ndarray]


def _idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: magic number, number of axes, sizes, data."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    sizes = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _prepare(pictures: np.ndarray, largest: float, channels: int) -> np.ndarray:
    """Centred on 32x32, scaled to -1..1, the grey channel repeated."""
    side = pictures.shape[1]
    if side * 4 == 32:  # the digits are 8x8
        pictures, side = pictures.repeat(4, axis=1).repeat(4, axis=2), 32
    margin = (32 - side) // 2
    padded = np.pad(pictures, ((0, 0), (margin, margin), (margin, margin)))
    scaled = padded.astype(np.float32) * (2 / largest) - 1
    return np.repeat(scaled[:, None], channels, axis=1)


def fashion(train: bool, count: int, channels: int = 3) -> Set:
    """``count`` pictures of clothes."""
    part = "train" if train else "t10k"
    pictures = _idx(FASHION / f"{part}-images-idx3-ubyte.gz")[:count]
    labels = _idx(FASHION / f"{part}-labels-idx1-ubyte.gz")[:count]
    return _prepare(pictures, 255, channels), labels.astype(np.int64)


def digits(train: bool, count: int, channels: int = 3) -> Set:
    """``count`` handwritten digits; the last 400 of 1797 are held out."""
    from sklearn.datasets import load_digits

    known = load_digits()
    part = slice(0, 1397) if train else slice(1397, None)
    pictures, labels = known.images[part][:count], known.target[part][:count]
    return _prepare(pictures, 16, channels), labels.astype(np.int64)


def ten_classes(train: bool, count: int) -> tuple[Set, str]:
    """The better of the sets at hand, and its name."""
    if FASHION.exists():
        return fashion(train, count), "Fashion-MNIST"
    return digits(train, count), "scikit-learn's digits (Debian's dataset-fashion-mnist is not installed)"
