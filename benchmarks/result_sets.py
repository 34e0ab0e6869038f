"""The sets of benchmarks/results.py from packages that lie unpacked in a folder.

    python benchmarks/result_sets.py FOLDER OUT

FOLDER holds what `dpkg -x` makes of Debian's dataset-fashion-mnist and tuxpaint-stamps-default, and
`unzip` of the wheel elpv-dataset; OUT gets fashion.npz, elpv.csv (beside its pictures) and stamps/.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import sys
from pathlib import Path

import numpy as np


def idx(path: Path, header: int) -> np.ndarray:
    data = path.read_bytes()
    return np.frombuffer(gzip.decompress(data) if path.suffix == ".gz" else data, np.uint8, offset=header)


def fashion(folder: Path, out: Path) -> None:
    arrays = {}
    for part, name in (("train", "train"), ("t10k", "test")):
        images, labels = sorted(next(folder.rglob(f"{part}-images-idx3-ubyte*")).parent.glob(f"{part}-*"))[:2]
        arrays[f"x_{name}"] = idx(images, 16).reshape(-1, 28, 28)
        arrays[f"y_{name}"] = idx(labels, 8)
    np.savez(out / "fashion.npz", **arrays)


def elpv(folder: Path, out: Path) -> None:
    """Solar cells: certainly whole (0) or certainly broken (1); those between are left out."""
    labels = next(folder.rglob("labels.csv"))
    rows = [line.split() for line in labels.read_text().splitlines() if line.strip()]
    target = out / "elpv"
    target.mkdir(exist_ok=True)
    with (target / "elpv.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for row in rows:
            if float(row[1]) in (0.0, 1.0):
                picture = Path(row[0]).name
                shutil.copy(labels.parent / "images" / picture, target)
                writer.writerow((picture, "broken" if float(row[1]) else "whole"))


def stamps(folder: Path, out: Path) -> None:
    root = next(path for path in folder.rglob("stamps") if path.parent.name == "tuxpaint")
    for kind in ("animals", "food", "household", "hobbies", "plants", "town", "vehicles"):
        for number, picture in enumerate(sorted((root / kind).rglob("*.png"))):
            target = out / "stamps" / kind
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target / f"{number:03}-{picture.name}")


if __name__ == "__main__":
    source, result = Path(sys.argv[1]), Path(sys.argv[2])
    result.mkdir(parents=True, exist_ok=True)
    for make in (fashion, elpv, stamps):
        make(source, result)
