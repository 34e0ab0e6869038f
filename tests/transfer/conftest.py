from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
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


@pytest.fixture(scope="session")
def network(onnx_model, normal, tmp_path_factory) -> Path:
    """Two stages and a head, with dropout, so that the generator's counter matters."""
    nodes = [
        ("Conv", ["x", "w0"], ["c0"], dict(strides=[2, 2], pads=[1, 1, 1, 1])), ("Relu", ["c0"], ["r0"]),
        ("Conv", ["r0", "w1"], ["c1"], dict(strides=[2, 2], pads=[1, 1, 1, 1])), ("Relu", ["c1"], ["r1"]),
        ("Conv", ["r1", "w2"], ["c2"], dict(strides=[2, 2], pads=[1, 1, 1, 1])), ("Relu", ["c2"], ["r2"]),
        ("GlobalAveragePool", ["r2"], ["p"]), ("Flatten", ["p"], ["f"]), ("Dropout", ["f", "rate"], ["d"]),
        ("Gemm", ["d", "v", "b"], ["y"], dict(transB=1)),
    ]  # fmt: skip
    arrays = {
        "w0": normal(8, 3, 3, 3) / 5, "w1": normal(12, 8, 3, 3, seed=1) / 8,
        "w2": normal(16, 12, 3, 3, seed=2) / 10, "v": normal(2, 16, seed=3), "b": normal(2),
        "rate": np.float32(0.2),
    }  # fmt: skip
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(onnx_model(nodes, {"x": ["N", 3, None, None]}, {"y": ["N", 2]}, arrays), path)
    return path
