"""The examples run, learn something, and keep their promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_small_cnn_learns() -> None:
    pytest.importorskip(
        "sklearn", reason="scikit-learn's digits are the pictures where no other set is installed"
    )
    printed = run("small_cnn.py", "3", "1200")
    before, after = (float(figure) for figure in re.findall(r"training ([\d.]+)%", printed))
    assert after > before + 15, printed


def test_readme_python_block_runs(tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    script = tmp_path / "readme.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loss = float(done.stdout.split()[0])
    assert loss < 2.0, done.stdout  # ln 10 = 2.3 at the start
    assert (tmp_path / "model.onnx").stat().st_size > 100_000
