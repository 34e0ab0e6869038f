"""Runs that are killed, interrupted or run out of room, and go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from nnlite import saving
from nnlite.errors import ConfigError, DataError, FileError, ModelError
from nnlite.transfer import Callback, FinetuneConfig, finetune, resume
from nnlite.transfer.interrupt import RunInterrupted

FAULTS = int(os.environ.get("NNLITE_FAULTS", "0"))
"""How many random moments to kill at; a few are among the usual tests."""

MOST_WRITES = 20
"""More than a run of these tests makes; how many it makes is counted."""

DIE = """
import os, signal, sys
from nnlite import cli
call, number = sys.argv[1], int(sys.argv[2])
inner, left = getattr(os, call), [number]
def dying(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*arguments, **options)
setattr(os, call, dying)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.argv = ["nnlite", *sys.argv[3:]]
cli.main()
"""
"""The command line in a process that kills itself where it does something for the n-th time."""


@pytest.fixture(autouse=True)
def _signals():
    """Ctrl-C counts, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def options(network, pictures, out, **more):
    settings = dict(
        head_epochs=3, epochs=3, views=2, batch_size=4, size=32, unfreeze="all", baselines=False, workers=1
    )  # fmt: skip
    return FinetuneConfig(str(network), str(pictures), str(out), **(settings | more))


def as_flags(config):
    flags = [config.model, config.data, "--quiet"]
    for name, value in config.to_dict().items():
        if name in ("model", "data") or value is None or value == getattr(FinetuneConfig, name):
            continue
        flag = name.replace("_", "-")
        flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", value]
    return list(map(str, flags))


def history(run_dir):
    records = [json.loads(line) for line in (Path(run_dir) / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


KINDS = {
    "pictures anew": dict(unfreeze="all"),
    "kept features": dict(unfreeze="1", cache="memory"),
    "one stage more at a time": dict(
        recipe="gradual",
        unfreeze="2",
        patience=2,
        ema=0.5,
        l2_sp=0.1,
        clip=1.0,
        accumulate=2,
        epochs=4,
        calibrate=True,
    ),
    "scales": dict(unfreeze="all", tune="affine", cache="off"),
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, network, few_pictures, tmp_path_factory):
    """A configuration, and what it gives when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("whole")
    kind = KINDS[request.param]
    config = options(network, few_pictures, folder / "tuned.onnx", run_dir=str(folder / "run"), **kind)
    result = finetune(config)
    return config, result.out.read_bytes(), history(result.run_dir)


def same(config, run_dir, whole):
    assert Path(config.out).read_bytes() == whole[1]
    assert history(run_dir) == whole[2]


class Stop(Callback):
    """Interrupts the run at its n-th step, as Ctrl-C does."""

    def __init__(self, number):
        self.left = number

    def on_step(self, step):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("steps", [1, 7, 15, 17, 20, 27])
def test_an_interrupted_run_goes_on_bit_for_bit(whole, tmp_path, steps):
    """18 pictures in batches of 4 are five batches an epoch: within phases, and at an epoch's end."""
    config = replace(whole[0], out=str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"))
    with pytest.raises(RunInterrupted, match=f"go on with: nnlite resume {tmp_path / 'run'}"):
        finetune(config, callbacks=[Stop(steps)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    state = saving.load(tmp_path / "run" / "checkpoint.safetensors")
    at = state["phase"]["at"]
    if whole[0].recipe == "auto":
        assert 15 * state["number"] + 5 * at["epoch"] + at["batch"] == steps
    assert not (tmp_path / "tuned.onnx").exists()
    resume(tmp_path / "run")
    same(config, tmp_path / "run", whole)
    with pytest.raises(ConfigError, match="this run is finished"):
        resume(tmp_path / "run")


def test_interrupting_again_and_again(whole, tmp_path):
    config = replace(whole[0], out=str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"))
    with pytest.raises(RunInterrupted):
        finetune(config, callbacks=[Stop(4)])
    for _ in range(4):
        with pytest.raises(RunInterrupted):
            resume(tmp_path / "run", callbacks=[Stop(5)])
    resume(tmp_path / "run")
    same(config, tmp_path / "run", whole)


def test_checkpoints_within_an_epoch_by_the_clock(whole, tmp_path, monkeypatch):
    written = []
    config = replace(
        whole[0], out=str(tmp_path / "a.onnx"), run_dir=str(tmp_path / "run"), checkpoint_minutes=1e-9
    )
    save = saving.save

    def kept(path, state):
        save(path, state)
        written.append((saving.load(path), path.read_bytes()))

    monkeypatch.setattr(saving, "save", kept)
    finetune(config)
    assert Path(config.out).read_bytes() == whole[1], "saving changes nothing"
    batches = {state["phase"]["at"]["batch"] for state, _ in written if state["phase"]}
    assert batches == ({0, 1, 2, 3, 4, 5} if config.accumulate == 1 else {0, 2, 4})
    assert written[-1][0]["random"][1] > 0, "dropout draws from the counter"
    # Go on from one of them, within the first epoch of the stages.
    states = [file for s, file in written if s["number"] and s["phase"] and s["phase"]["at"]["batch"] == 2]
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(states[0])
    Path(config.out).unlink()
    resume(tmp_path / "run")
    same(config, tmp_path / "run", whole)


# ------------------------------------------------------------------------------- killed


def start(arguments, kill=("fsync", 0)):
    return subprocess.Popen(
        [sys.executable, "-c", DIE, kill[0], str(kill[1]), *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until_done(config, run_dir, wait):
    """Start, let ``wait(process)`` kill it, go on, and so forth, the last time undisturbed."""
    for killed, attempt in enumerate(wait):
        if (run_dir / "metrics.json").exists():  # killed when everything was written
            return killed
        known = (run_dir / "config.json").exists()
        process = attempt(["resume", str(run_dir), "--quiet"] if known else ["finetune", *as_flags(config)])
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL, errors
    raise AssertionError("the last attempt was killed")


def at_write(call, number):
    return lambda arguments: start(arguments, (call, number))


def at_moment(seconds):
    def attempt(arguments):
        process = start(arguments)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        return process

    return attempt


@pytest.mark.parametrize(
    ("call", "number"),
    [("fsync", 5), ("replace", 6)]
    if not FAULTS
    else [(c, n) for c in ("fsync", "replace") for n in range(1, MOST_WRITES + 1)],
)
def test_killed_while_writing(network, few_pictures, tmp_path, call, number, expected):
    """Before a file's bytes are on the disk, and before it gets its name."""
    config = replace(expected[0], out=str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"))
    assert until_done(config, tmp_path / "run", [at_write(call, number), at_moment(60)]) == (
        number <= expected[3]
    )
    same(config, tmp_path / "run", expected)


@pytest.fixture(scope="module")
def expected(network, few_pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    config = options(network, few_pictures, folder / "tuned.onnx", run_dir=str(folder / "run"))
    inner, written = os.replace, []

    def counted(source, target):
        written.append(target)
        inner(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted)
        result = finetune(config)
    assert len(written) < MOST_WRITES, "then some of them would not be killed at"
    return config, result.out.read_bytes(), history(result.run_dir), len(written)


@pytest.mark.parametrize("seed", range(FAULTS or 2))
def test_killed_at_any_moment(tmp_path, expected, seed):
    config = replace(expected[0], out=str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"))
    began = time.perf_counter()
    assert until_done(config, tmp_path / "run", [at_moment(120)]) == 0
    took = time.perf_counter() - began
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    moments = random.Random(seed)
    kills = [at_moment(moments.uniform(0.3, 1.0) * took) for _ in range(3)]
    until_done(config, tmp_path / "run", [*kills, at_moment(120)])
    same(config, tmp_path / "run", expected)


# ------------------------------------------------------------------- what else goes wrong


class Once(Callback):
    """Does something at the beginning of an epoch's first step."""

    def __init__(self, epochs, action):
        self.left, self.action = epochs, action

    def on_epoch(self, record):
        self.left -= 1
        if self.left == 0:
            self.action()


@pytest.fixture
def own(expected, copied, tmp_path):
    """The same run on a copy of the pictures, which may be damaged; names differ, numbers do not."""
    return replace(
        expected[0], data=str(copied()), out=str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run")
    )


def test_a_picture_that_changes_stops_the_run(own, expected, tmp_path):
    picture = min((Path(own.data) / "train" / "bird").iterdir())
    before, checkpoint = picture.read_bytes(), tmp_path / "run" / "checkpoint.safetensors"
    kept = []

    def change():
        kept.append(checkpoint.read_bytes())
        picture.write_bytes(max((Path(own.data) / "train" / "plant").iterdir()).read_bytes())

    said = rf"{picture}: the file has changed since the run began; put back .*nnlite resume {tmp_path}"
    with pytest.raises(DataError, match=said):
        finetune(own, callbacks=[Once(4, change)])
    assert checkpoint.read_bytes() == kept[0], "the last good checkpoint is intact"
    with pytest.raises(DataError, match="has changed since the run began"):
        resume(tmp_path / "run")
    picture.write_bytes(before)
    resume(tmp_path / "run")
    same(own, tmp_path / "run", expected)


def test_a_folder_that_vanishes(own, expected, tmp_path):
    away = tmp_path / "away"
    with pytest.raises(DataError, match=r"\.jpg.*The run is saved; go on with: nnlite resume"):
        finetune(own, callbacks=[Once(4, lambda: Path(own.data).rename(away))])
    with pytest.raises(DataError, match="no such folder"):
        resume(tmp_path / "run")
    away.rename(own.data)
    resume(tmp_path / "run")
    same(own, tmp_path / "run", expected)


def test_a_touched_picture_is_the_same_picture(own, expected, tmp_path):
    picture = min((Path(own.data) / "train" / "bird").iterdir())
    finetune(own, callbacks=[Once(2, picture.touch)])
    same(own, tmp_path / "run", expected)


def test_another_model(own, network, tmp_path):
    model = Path(shutil.copy(network, tmp_path / "model.onnx"))
    config = replace(own, model=str(model))
    with pytest.raises(RunInterrupted):
        finetune(config, callbacks=[Stop(1)])
    graph = onnx.load(model)
    graph.doc_string = "another"
    onnx.save(graph, model)
    with pytest.raises(ModelError, match=r"model\.onnx: is not the file that the run began with"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system"])
def test_nowhere_to_write(own, expected, tmp_path, monkeypatch, reason):
    def refuse(*_, **__):
        raise OSError(28, reason)

    with monkeypatch.context() as patch:
        change = Once(4, lambda: patch.setattr("nnlite.files.tempfile.mkstemp", refuse))
        said = rf"checkpoint\.safetensors: cannot be written: {reason}\. The run is saved; go on with"
        with pytest.raises(FileError, match=said):
            finetune(own, callbacks=[change])
    resume(tmp_path / "run")
    same(own, tmp_path / "run", expected)


LIMITED = """
import resource, sys
from nnlite import cli
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = ["nnlite", *sys.argv[2:]]
cli.main()
"""


def test_a_disk_that_is_full(own, expected, tmp_path):
    """The system itself refuses in the middle of a file: the checkpoint of the stages is larger."""
    pytest.importorskip("resource", reason="limits on files are POSIX's")
    command = [sys.executable, "-c", LIMITED, "12000", "finetune", *as_flags(own)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 2
    run = tmp_path / "run"
    where = run / "checkpoint.safetensors"
    said = f"nnlite: error: {where}: cannot be written: File too large. The run is saved"
    assert result.stderr.startswith(said)
    assert {path.name for path in run.iterdir()} == {
        "checkpoint.safetensors", "config.json", "history.jsonl", "inputs.json", "run.toml",
    }  # fmt: skip
    resume(run)
    same(own, run, expected)


def test_folders_that_hold_no_run(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder; give the folder that the run named"):
        resume(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no run \(no config\.json\)"):
        resume(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "{", "config.json: is damaged"),
        ("config.json", "[]", "config.json: is damaged: not a table"),
        ("config.json", '{"data": "x"}', "config.json: is damaged"),
        ("inputs.json", "{}", "inputs.json: is damaged: no hashes"),
        ("checkpoint.safetensors", "text", "not a safetensors file, or a truncated one"),
    ],
)
def test_damaged_runs(own, tmp_path, name, content, said):
    with pytest.raises(RunInterrupted):
        finetune(own, callbacks=[Stop(1)])
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises((ConfigError, ModelError), match=said):
        resume(tmp_path / "run")


def test_paths_are_meant_where_the_run_was_started(own, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = replace(own, data="pictures", out="tuned.onnx", run_dir="run")
    with pytest.raises(RunInterrupted, match="nnlite resume run"):
        finetune(relative, callbacks=[Stop(8)])
    monkeypatch.chdir("/")
    resume(tmp_path / "run")
    same(own, tmp_path / "run", expected)


def test_the_command_line_says_how_to_go_on(own, tmp_path):
    config, run = replace(own, epochs=5000), tmp_path / "run"
    process = start(["finetune", *as_flags(config)])
    for _ in range(600):
        if (run / "checkpoint.safetensors").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == f"nnlite: interrupted; go on with: nnlite resume {run}"
    assert saving.load(run / "checkpoint.safetensors")["history"]
