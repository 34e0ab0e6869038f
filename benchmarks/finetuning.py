"""Whole processes of fine-tuning and prediction beside PyTorch's: python finetuning.py [repeats] [rows like]

MobileNetV2 at 160 pixels on the bundled drawings, 10 epochs, two threads, decoding included. Both sides
alternate as processes of their own; medians of wall time and the largest peak resident set (the children
of PyTorch's DataLoader not counted). Needs PyTorch for the peer's side; ``--own`` leaves it out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL, DATA = ROOT / "examples/assets/mobilenet_v2.onnx", ROOT / "examples/assets/clipart8"
PEER = Path(__file__).parent / "torch_finetuning.py"
HEAD = ["--head-epochs", "10", "--unfreeze", "none", "--no-baselines", "--size", "160"]

ROWS: dict[str, tuple[list[str], str, float]] = {
    "head, PyTorch's usual loop": ([*HEAD, "--views", "1"], "loop", 15),
    "the same, our side without a report": ([*HEAD, "--views", "1", "--no-report"], "loop", 15),
    "head, PyTorch on cached features": ([*HEAD, "--views", "1"], "cached", 2),
    "head, augmented anew in every epoch": ([*HEAD, "--views", "10"], "augmented", 3),
    # Ours is the last stage: four blocks, where the peer trains two.
    "last blocks and head": ([*HEAD, "--views", "1", "--unfreeze", "1", "--epochs", "10"], "blocks", 3),
    "predict one picture": ([], "predict", 5),
}  # fmt: skip
"""What is run: options of ``nnlite finetune``, the peer's kind, the ratio to reach."""


# Leaves a model's arrays for the peer. Not in this process: a child's peak counts from its parent's size.
WEIGHTS = """
import sys
import numpy as np
from nnlite.onnx import load
module = load(sys.argv[1])
states = (*module.named_parameters(), *module.named_buffers())
np.savez(sys.argv[2], **{key: np.ascontiguousarray(state.numpy()) for key, state in states})
"""


def run(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident kilobytes of a process."""
    environment = os.environ | {"NNLITE_NUM_THREADS": "2"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled, as PyTorch is
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss


def own(options: list[str], folder: Path) -> list[str]:
    nnlite = [sys.executable, "-m", "nnlite"]
    if not options:
        picture = sorted((DATA / "val").rglob("*.*"))[0]
        return [*nnlite, "predict", str(MODEL), str(picture)]
    out, runs = folder / "tuned.onnx", folder / f"run-{time.monotonic_ns()}"
    return [*nnlite, "finetune", str(MODEL), str(DATA), "--out", str(out), "--run-dir", str(runs), *options]


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--own"]
    repeats, alone = int(arguments[0]) if arguments else 3, "--own" in sys.argv
    rows = {what: row for what, row in ROWS.items() if " ".join(arguments[1:]) in what}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights.npz"
        if not alone:
            subprocess.run([sys.executable, "-c", WEIGHTS, str(MODEL), str(weights)], check=True)
        print(f"{'':38} {'nnlite':>8} {'PyTorch':>8} {'ratio':>6} {'asked':>6} {'MB':>6} {'MB':>6}")
        for what, (options, kind, asked) in rows.items():
            mine, theirs = [], []
            for _ in range(repeats):
                mine.append(run(own(options, folder)))
                if not alone:
                    theirs.append(run([sys.executable, str(PEER), kind, str(weights), str(DATA)]))
            seconds, peak = statistics.median(t for t, _ in mine), max(kb for _, kb in mine) / 1024
            line = f"{what:38} {seconds:7.2f}s"
            if theirs:
                other, high = statistics.median(t for t, _ in theirs), max(kb for _, kb in theirs) / 1024
                line += f" {other:7.2f}s {other / seconds:6.1f} {asked:6.1f} {peak:6.0f} {high:6.0f}"
            else:
                line += f" {'':>8} {'':>6} {asked:6.1f} {peak:6.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
