"""A budget of memory: what is predicted, what is chosen, and what the operating system counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nnlite import memory, onnx
from nnlite.errors import ConfigError
from nnlite.optim import AdamW
from nnlite.transfer import Callback, FinetuneConfig, finetune, resume, segments
from nnlite.transfer.interrupt import RunInterrupted
from nnlite.transfer.memory_plan import Holding, MemoryPlan, Needs, choose, predict, result_bytes
from nnlite.transfer.segments import segment_ends
from nnlite.transfer.stages import types_for

MB = 10**6
NEEDS = Needs(
    now=80 * MB, peak=90 * MB, weights=9 * MB, frozen=9 * MB, trained=0, live=2 * MB, kept=0, recomputed=0,
    results=60 * MB, ranges=16 * MB,
    head_features=5120, cut_features=0, picture=100_000, prepared=300_000, train=300, held=100,
)  # fmt: skip


def config(**options):
    return FinetuneConfig("m.onnx", "pictures", **options)


def test_enough_memory_takes_no_savings():
    told = config(memory="2GB")
    changed, plan = choose(NEEDS, told)
    assert (changed, plan.choices, plan.holding) == (told, (), Holding())


WITH_STAGES = replace(NEEDS, trained=8 * MB, kept=12 * MB, recomputed=2 * MB, cut_features=50_000)


@pytest.mark.parametrize("needs", [NEEDS, WITH_STAGES], ids=["head", "stages"])
def test_budgets_are_kept_down_to_the_smallest_that_a_refusal_names(needs):
    with pytest.raises(ConfigError, match="memory='20MB': this run needs at least") as refused:
        choose(needs, config(memory="20MB"))
    least = int(str(refused.value).partition("at least ")[2].partition("MB")[0])
    for budget in range(least, 300):
        assert choose(needs, config(memory=f"{budget}MB"))[1].predicted <= budget * MB
    with pytest.raises(ConfigError, match=f"at least {least}MB"):
        choose(needs, config(memory=f"{least - 1}MB"))


def test_savings_that_cost_time_alone_come_first():
    told = config(memory="140MB", cache="disk", report=False, baselines=False)
    _, plan = choose(NEEDS, told)
    assert plan.choices == ("decoded pictures are not kept",)
    assert plan.holding == replace(Holding(), decoded=0)


def test_decoded_pictures_are_few_where_all_views_are_made_of_each():
    """The features of more views count, and 16 decoded pictures, not 300."""
    needs = replace(NEEDS, frozen=1 * MB)  # compiling it is not the peak
    one, ten = (predict(needs, config(views=n), Holding())["features"] for n in (1, 10))
    assert ten - one == 9 * NEEDS.train * NEEDS.head_features + 16 * NEEDS.picture


def test_smaller_batches_make_the_same_step():
    needs = replace(NEEDS, trained=4 * MB, kept=12 * MB, recomputed=12 * MB)
    changed, _ = choose(needs, config(memory="300MB", report=False, baselines=False))
    assert changed.batch_size < 32 and changed.batch_size * changed.accumulate == 32
    with pytest.raises(ConfigError, match="stages"):
        choose(needs, config(memory="300MB", report=False, baselines=False, train_batch_norm=True))


STAGES_ALONE = dict(report=False, baselines=False)


def test_results_are_computed_again_before_batches_are_halved():
    needs = replace(NEEDS, trained=4 * MB, kept=12 * MB, recomputed=2 * MB)
    changed, plan = choose(needs, config(memory="300MB", **STAGES_ALONE))
    assert changed.batch_size == 32 and plan.holding.recompute
    assert "results of the stages are computed again in backward" in str(plan)
    with pytest.raises(ConfigError, match="stages"):  # running statistics would be updated twice
        choose(needs, config(memory="300MB", train_batch_norm=True, **STAGES_ALONE))


def test_gradients_are_freed_first_where_a_step_does_not_need_all_of_them():
    needs = replace(NEEDS, trained=40 * MB, kept=1 * MB, recomputed=1 * MB)
    enough = choose(needs, config(memory="2GB", **STAGES_ALONE))[1].predicted
    less = f"{enough // MB - 20}MB"
    _, plan = choose(needs, config(memory=less, **STAGES_ALONE))
    assert plan.choices == ("gradients are used and freed during backward",)
    assert plan.holding == replace(Holding(), step_in_backward=True)
    for rule in (dict(clip=1.0), dict(l2_sp=0.1), dict(accumulate=2), dict(retry_smaller=True)):
        _, plan = choose(needs, config(memory=less, **STAGES_ALONE, **rule))
        assert not plan.holding.step_in_backward and plan.choices


def test_auto_falls_back_to_fp32_where_a_comparison_does_not_fit():
    enough, plan = choose(NEEDS, config(memory="2GB", frozen_precision="auto"))
    assert enough.frozen_precision == "auto"
    (line,) = plan.choices
    assert line.startswith("precision auto: comparing bf16 and int8 with fp32 takes ")
    needed = int(line.split()[-2])
    told = dict(report=False, baselines=False)
    assert choose(NEEDS, config(memory=f"{needed + 1}MB", frozen_precision="auto", **told))[1].choices == (
        line,
    )
    changed, plan = choose(NEEDS, config(memory=f"{needed - 1}MB", frozen_precision="auto", **told))
    assert (changed.frozen_precision, plan.holding) == ("fp32", Holding())
    assert plan.choices == (f"precision fp32: with a choice of bf16 and int8 it would take {needed} MB",)
    assert plan.predicted == choose(NEEDS, config(memory="2GB", **told))[1].predicted


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_that_was_told_is_kept_or_refused(precision):
    told = dict(frozen_precision=precision, report=False, baselines=False)
    with pytest.raises(
        ConfigError, match=r"\(the trial of precisions\); .* frozen_precision='fp32'"
    ) as refused:
        choose(NEEDS, config(memory="20MB", **told))
    least = int(str(refused.value).partition("at least ")[2].partition("MB")[0])
    changed, plan = choose(NEEDS, config(memory=f"{least}MB", **told))
    assert changed.frozen_precision == precision and plan.phase == "trial of precisions"
    assert choose(NEEDS, config(memory=f"{least - 1}MB", report=False, baselines=False))  # fp32 needs less


def test_segments_hold_little(mobilenet_path):
    module = onnx.load(mobilenet_path)
    types = types_for(module, (160, 160))
    ends, least = segment_ends(module.graph, types)
    assert set(ends) < set(module.graph.cut_points())
    assert least < result_bytes(module.graph, types) / 4


@pytest.mark.skipif(memory.peak_resident() is None, reason="needs Linux's /proc/self/status")
@pytest.mark.parametrize(
    "saved",
    [dict(step_in_backward=True), dict(recompute=True), dict(step_in_backward=True, recompute=True)],
    ids=str,
)
@pytest.mark.parametrize(
    "kind",
    [dict(unfreeze="all"), dict(recipe="gradual", unfreeze="2"), dict(unfreeze="2", tune="affine")],
    ids=str,
)
def test_what_is_saved_in_backward_changes_no_bit(kind, saved, network, few_pictures, tmp_path, monkeypatch):
    """With dropout, and an average of the weights; also when the run is interrupted."""
    # So small a network is best in one segment.
    monkeypatch.setattr(segments, "segment_ends", lambda graph, types: (graph.cut_points(), MB))
    stepped, again = [], []
    step, checkpoint = AdamW.step_in_backward, segments.checkpoint
    monkeypatch.setattr(AdamW, "step_in_backward", lambda *a: (stepped.append(1), step(*a)))
    monkeypatch.setattr(segments, "checkpoint", lambda *a: (again.append(1), checkpoint(*a))[1])

    def run(name: str, holding: Holding, *callbacks: Callback) -> Path:
        plan = MemoryPlan(10**10, 0, "stages", (), holding)
        monkeypatch.setattr("nnlite.transfer.job.memory_plan_for", lambda needs, config: (config, plan))
        told = FinetuneConfig(
            str(network), str(few_pictures), str(tmp_path / f"{name}.onnx"), run_dir=str(tmp_path / name),
            head_epochs=1, epochs=2, views=2, batch_size=4, size=32, unfreeze="all", baselines=False,
            report=False, workers=1, ema=0.5, memory="10GB",
        )  # fmt: skip
        return finetune(told, callbacks=callbacks).out

    expected = run("usual", Holding()).read_bytes()
    assert not stepped and not again
    limit, holding = memory.limit(), replace(Holding(), **saved)
    assert run("saved", holding).read_bytes() == expected
    assert bool(stepped) == holding.step_in_backward and bool(again) == holding.recompute
    assert memory.limit() == limit
    with pytest.raises(RunInterrupted):
        run("stopped", holding, Stop(8))
    done = len(stepped), len(again)
    assert resume(tmp_path / "stopped").out.read_bytes() == expected
    assert (len(stepped) > done[0], len(again) > done[1]) == (holding.step_in_backward, holding.recompute)


class Stop(Callback):
    """Interrupts the run at its n-th step, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        self.left = number

    def on_step(self, step):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_prediction_grows_with_what_is_held():
    small, large = (predict(NEEDS, config(), replace(Holding(), pictures=n))["features"] for n in (1, 8))
    assert large - small >= 7 * NEEDS.live


def test_a_plan_survives_its_file():
    _, plan = choose(NEEDS, config(memory="150MB"))
    assert MemoryPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def finetuned(mobilenet_path, clipart, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnlite", "finetune", str(mobilenet_path), str(clipart), "--size", "160"]
    command += ["--out", str(out / "tuned.onnx"), "--run-dir", str(out / "run"), "--views", "2", *options]
    environment = os.environ | {"NNLITE_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path.cwd())


HEAD = ("--unfreeze", "none", "--head-epochs", "2", "--no-baselines", "--no-report")
ALL = ("--unfreeze", "all", "--head-epochs", "1", "--epochs", "1", "--no-baselines", "--no-report")
STAGES = ("--unfreeze", "2", "--head-epochs", "1", "--epochs", "1", "--no-baselines", "--no-report")


@pytest.mark.skipif(memory.peak_resident() is None, reason="needs Linux's /proc/self/status")
@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (HEAD, "96MB"),
        (HEAD, "300MB"),
        (STAGES, "158MB"),
        (STAGES, "270MB"),
        (ALL, "187MB"),
        ((*HEAD, "--frozen-precision", "bf16"), "103MB"),
        ((*HEAD, "--frozen-precision", "int8"), "132MB"),
        ((*HEAD, "--frozen-precision", "auto"), "110MB"),
        ((*HEAD, "--frozen-precision", "auto"), "300MB"),
        ((*STAGES, "--frozen-precision", "int8"), "200MB"),
    ],
    ids=str,
)
def test_a_budget_holds_as_the_system_counts(options, budget, mobilenet_path, clipart, tmp_path):
    done = finetuned(mobilenet_path, clipart, tmp_path, *options, "--memory", budget)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())["memory"]
    assert told["measured"] <= told["budget"]
    assert 0.8 * told["predicted"] <= told["measured"] <= told["predicted"] * 1.03


@pytest.mark.skipif(memory.peak_resident() is None, reason="needs Linux's /proc/self/status")
def test_an_impossible_budget_is_refused_before_work(mobilenet_path, clipart, tmp_path):
    done = finetuned(mobilenet_path, clipart, tmp_path, *HEAD, "--memory", "20MB")
    assert done.returncode != 0
    assert "memory='20MB': this run needs at least" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
