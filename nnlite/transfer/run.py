"""The main job: a model file and a folder of pictures in, a tuned model file and an honest evaluation out.

config ─▶ prepare ─▶ views ─▶ phases of the recipe ─▶ calibrate ─▶ export ─▶ evaluate the file ─▶ baselines
          (job.py)  (views.py)  (recipes.py, phases.py)            (outcome.py)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlite import memory, random
from nnlite.errors import NnliteError, TrainingError
from nnlite.transfer import checkpoint
from nnlite.transfer.calibration import calibrate
from nnlite.transfer.callbacks import Callback, Callbacks
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.interrupt import Interrupt
from nnlite.transfer.job import Job, prepare
from nnlite.transfer.outcome import evaluate_file, export, run_baselines
from nnlite.transfer.phases import Material, run_phase
from nnlite.transfer.report.callback import ReportWriter
from nnlite.transfer.run_folder import RunFolder
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

    Raises NnliteError for anything a user can mend; what was finished until then lies in the run folder,
    and :func:`resume` goes on from there. Ctrl-C finishes the batch, saves and raises RunInterrupted.
    """
    return _run(config, None, callbacks)


def resume(run_dir: str | Path, *, callbacks: Sequence[Callback] = ()) -> FinetuneResult:
    """Go on with a run that was interrupted: the same weights and history as if it had not been.

    Raises ConfigError when ``run_dir`` holds no run or a finished one, ModelError or DataError when model
    or pictures are not those that the run began with.
    """
    run = RunFolder.open(run_dir)
    return _run(run.config(), run, callbacks)


def _run(config: FinetuneConfig, run: RunFolder | None, callbacks: Sequence[Callback]) -> FinetuneResult:
    own: list[Callback] = [ReportWriter()]
    if config.tensorboard:
        from nnlite.transfer.tensorboard import TensorBoard

        own.append(TensorBoard())
    with Interrupt() as interrupt:
        began = time.perf_counter()
        random.manual_seed(config.seed)
        job = prepare(config, Callbacks([interrupt, *callbacks, *own]), run)
        job.began = began
        interrupt.resume = f"go on with: nnlite resume {job.run.path}"
        try:
            return _work(job, interrupt)
        except TrainingError:
            raise  # going on would end in the same
        except NnliteError as error:
            if not (job.run.path / checkpoint.NAME).exists():
                raise
            raise type(error)(f"{error}. The run is saved; {interrupt.resume}") from error


def _work(job: Job, interrupt: Interrupt) -> FinetuneResult:
    config = job.config
    state = checkpoint.read(job.run.path)
    if state is not None:
        job.cache_mode = state["cache"]
        job.frozen.decided = state.get("precision")
        job.say(f"going on after {len(state['history'])} epochs")
    at_head, at_cut = compute_views(job)
    keeper = checkpoint.Keeper(job, state, interrupt)
    job.run.write_history(record.to_dict() for record in job.history)
    material = Material(at_head, at_cut, keeper)
    for stretch in job.stretches[keeper.done :]:
        run_phase(stretch, job, material)
        memory.release()
    del material, at_cut
    probed = at_head if config.baselines else None
    del at_head  # features are not kept for nothing
    tuned_seconds = keeper.seconds
    out = Path(config.out)
    if config.calibrate:
        calibrate(job)
        memory.release()
    export(job, out)
    job.let_go()
    report = evaluate_file(job, out)
    memory.release()
    report["seconds"] = {"tuning": tuned_seconds}
    if config.calibrate:
        report["temperature"] = {"value": job.temperature, "pictures": len(job.aside)}
    report["frozen_precision"] = job.frozen.report()
    if probed is not None:
        report["baselines"] = run_baselines(job, probed)
    report["seconds"]["total"] = keeper.seconds
    report["peak_memory"] = memory.peak_resident()
    if job.memory_plan is not None:
        report["memory"] = job.memory_plan.to_dict() | {"measured": memory.peak_resident()}
        job.say(f"memory: {(memory.peak_resident() or 0) / 1e6:.0f} MB measured; {job.memory_plan}")
    report["skipped"] = [{"path": path, "reason": reason} for path, reason in sorted(job.skipped.items())]
    job.run.copy(out, "tuned.onnx")
    job.run.write_json("metrics.json", report)  # last: now the run is finished
    (job.run.path / checkpoint.NAME).unlink(missing_ok=True)
    result = FinetuneResult(report, job.history, out, job.run.path)
    job.callbacks.on_end(job, result)
    return result
