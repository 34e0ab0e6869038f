"""The main job: a model file and a folder of pictures in, a tuned model file and an honest evaluation out.

config ─▶ prepare ─▶ views ─▶ phases of the recipe ─▶ export ─▶ evaluate the file ─▶ baselines
          (job.py)  (views.py)  (recipes.py, phases.py)        (outcome.py)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlite import random
from nnlite.transfer.callbacks import Callback, Callbacks
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.job import prepare
from nnlite.transfer.outcome import evaluate_file, export, run_baselines
from nnlite.transfer.phases import Material, run_phase
from nnlite.transfer.recipes import phases_of
from nnlite.transfer.training import EpochRecord
from nnlite.transfer.views import compute_views


@dataclass
class FinetuneResult:
    """What a run produced."""

    metrics: dict[str, Any]
    history: list[EpochRecord]
    out: Path
    run_dir: Path


def finetune(config: FinetuneConfig, *, callbacks: Sequence[Callback] = ()) -> FinetuneResult:
    """Tune ``config.model`` on ``config.data`` and write the result; ``callbacks`` look on.

    Raises NnliteError for anything a user can mend; what was finished until then lies in the run folder.
    """
    start = time.perf_counter()
    random.manual_seed(config.seed)
    job = prepare(config, Callbacks(callbacks))
    phases = phases_of(config)
    material = Material(*compute_views(job, stages="stages" in phases))
    for name in phases:
        run_phase(name, job, material)
    tuned_seconds = time.perf_counter() - start
    out = Path(config.out)
    export(job, out)
    job.let_go()
    report = evaluate_file(job, out)
    report["seconds"] = {"tuning": tuned_seconds}
    if config.baselines:
        report["baselines"] = run_baselines(job, material.at_head)
    report["seconds"]["total"] = time.perf_counter() - start
    report["skipped"] = [{"path": path, "reason": reason} for path, reason in sorted(job.skipped.items())]
    job.run.write_json("metrics.json", report)
    job.run.copy(out, "tuned.onnx")
    result = FinetuneResult(report, job.history, out, job.run.path)
    job.callbacks.on_end(job, result)
    return result
