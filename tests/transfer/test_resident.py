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

LIMIT, WITH_REPORT = 110 * 10**6, 120 * 10**6
WATCHED = """
import atexit
from nnlite import memory
from nnlite.cli import main
atexit.register(lambda: print("peak", memory.peak_resident()))
main()
"""


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("a", "b"):
        for i in range(20):
            folder = tmp_path / "pictures" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(("report", "most"), [("--no-report", LIMIT), ("--report", WITH_REPORT)])
def test_head_alone_within_so_many_megabytes(report, most, mobilenet_path, pictures, tmp_path):
    if memory.peak_resident() is None:
        pytest.skip("needs Linux's /proc/self/status")
    run = tmp_path / "run"
    command = [sys.executable, "-c", WATCHED, "finetune", str(mobilenet_path), str(pictures)]
    command += ["--out", str(tmp_path / "tuned.onnx"), "--run-dir", str(run), "--unfreeze", "none"]
    command += ["--head-epochs", "2", "--views", "2", "--size", "160", "--no-baselines", report]
    environment = os.environ | {"NNLITE_NUM_THREADS": "2"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling the sources takes memory as well
    for _ in range(2):
        if run.exists():
            (run / "config.json").unlink()
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, cwd=Path.cwd()
        )
    peak = int(done.stdout.split()[-1])
    assert json.loads((run / "metrics.json").read_text())["peak_memory"] <= peak <= most
