"""What a whole process of fine-tuning takes, as the operating system counts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnlite import memory

LIMIT = 120 << 20


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("a", "b"):
        for i in range(20):
            folder = tmp_path / "pictures" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def test_head_alone_within_120_megabytes(mobilenet_path, pictures, tmp_path):
    if memory.peak_resident() is None:
        pytest.skip("needs Linux's /proc/self/status")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "nnlite", "finetune", str(mobilenet_path), str(pictures)]
    command += ["--out", str(tmp_path / "tuned.onnx"), "--run-dir", str(run), "--unfreeze", "none"]
    command += ["--head-epochs", "2", "--views", "2", "--size", "160", "--no-baselines", "--no-report"]
    environment = os.environ | {"NNLITE_NUM_THREADS": "2"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling the sources takes memory as well
    for _ in range(2):
        if run.exists():
            (run / "config.json").unlink()
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=Path.cwd())
    assert json.loads((run / "metrics.json").read_text())["peak_memory"] <= LIMIT
