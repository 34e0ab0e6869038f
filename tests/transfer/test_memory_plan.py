"""A budget of memory: what is predicted, what is chosen, and what the operating system counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nnlite import memory
from nnlite.errors import ConfigError
from nnlite.transfer import FinetuneConfig
from nnlite.transfer.memory_plan import Holding, MemoryPlan, Needs, choose, predict

MB = 10**6
NEEDS = Needs(
    now=80 * MB, peak=90 * MB, weights=9 * MB, frozen=9 * MB, trained=0, live=2 * MB, kept=0, results=60 * MB,
    head_features=5120, cut_features=0, picture=100_000, prepared=300_000, train=300, held=100,
)  # fmt: skip


def config(**options):
    return FinetuneConfig("m.onnx", "pictures", **options)


def test_enough_memory_takes_no_savings():
    told = config(memory="2GB")
    changed, plan = choose(NEEDS, told)
    assert (changed, plan.choices, plan.holding) == (told, (), Holding())


def test_budgets_are_kept_down_to_the_smallest_that_a_refusal_names():
    with pytest.raises(ConfigError, match="memory='20MB': this run needs at least") as refused:
        choose(NEEDS, config(memory="20MB"))
    least = int(str(refused.value).partition("at least ")[2].partition("MB")[0])
    for budget in range(least, 300):
        assert choose(NEEDS, config(memory=f"{budget}MB"))[1].predicted <= budget * MB
    with pytest.raises(ConfigError, match=f"at least {least}MB"):
        choose(NEEDS, config(memory=f"{least - 1}MB"))


def test_savings_that_cost_time_alone_come_first():
    told = config(memory="126MB", report=False, baselines=False)
    _, plan = choose(NEEDS, told)
    assert plan.choices == ("decoded pictures are not kept",)
    assert plan.holding == replace(Holding(), decoded=0)


def test_smaller_batches_make_the_same_step():
    needs = replace(NEEDS, trained=4 * MB, kept=12 * MB)
    changed, _ = choose(needs, config(memory="300MB", report=False, baselines=False))
    assert changed.batch_size < 32 and changed.batch_size * changed.accumulate == 32
    with pytest.raises(ConfigError, match="stages"):
        choose(needs, config(memory="300MB", report=False, baselines=False, train_batch_norm=True))


def test_prediction_grows_with_what_is_held():
    small, large = (predict(NEEDS, config(), replace(Holding(), pictures=n))["features"] for n in (1, 8))
    assert large - small >= 7 * NEEDS.live


def test_a_plan_survives_its_file():
    _, plan = choose(NEEDS, config(memory="150MB"))
    assert MemoryPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def finetune(mobilenet_path, clipart, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnlite", "finetune", str(mobilenet_path), str(clipart), "--size", "160"]
    command += ["--out", str(out / "tuned.onnx"), "--run-dir", str(out / "run"), "--views", "2", *options]
    environment = os.environ | {"NNLITE_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path.cwd())


HEAD = ("--unfreeze", "none", "--head-epochs", "2", "--no-baselines", "--no-report")
STAGES = ("--unfreeze", "1", "--head-epochs", "1", "--epochs", "1", "--no-baselines", "--no-report")


@pytest.mark.skipif(memory.peak_resident() is None, reason="needs Linux's /proc/self/status")
@pytest.mark.parametrize(
    ("options", "budget"), [(HEAD, "125MB"), (HEAD, "300MB"), (STAGES, "235MB")], ids=str
)
def test_a_budget_holds_as_the_system_counts(options, budget, mobilenet_path, clipart, tmp_path):
    done = finetune(mobilenet_path, clipart, tmp_path, *options, "--memory", budget)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())["memory"]
    assert told["measured"] <= told["budget"]
    assert 0.8 * told["predicted"] <= told["measured"] <= told["predicted"] * 1.03


@pytest.mark.skipif(memory.peak_resident() is None, reason="needs Linux's /proc/self/status")
def test_an_impossible_budget_is_refused_before_work(mobilenet_path, clipart, tmp_path):
    done = finetune(mobilenet_path, clipart, tmp_path, *HEAD, "--memory", "20MB")
    assert done.returncode != 0
    assert "memory='20MB': this run needs at least" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
