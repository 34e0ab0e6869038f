"""The command line as a person meets it: help, tables, JSON. Their mistakes are in test_mistakes.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from PIL import Image
from quick_options import FAST

from nnlite import cli
from nnlite.cli.commands import nnlite as group
from nnlite.transfer import FinetuneConfig

VERBS = ["finetune", "resume", "lr-find", "eval", "predict", "attribute", "inspect", "backends"]


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


# ------------------------------------------------------------------------------------- help, start


@pytest.mark.parametrize("arguments", [[], *([verb] for verb in VERBS)], ids=str)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(run, arguments, flag):
    status, out, errors = run(*arguments, flag)
    assert (status, errors) == (0, "")
    assert out.startswith("Usage: ")
    if not arguments:
        assert all(verb in out for verb in VERBS)


def test_help_and_import_load_nothing_heavy():
    script = (
        "import sys, contextlib, io; sys.argv = ['nnlite', *sys.argv[1:]]\n"
        "import nnlite\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    sys.argv[1:] and __import__('nnlite.cli').cli.main()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    for arguments in ([], ["--help"], ["finetune", "--help"]):
        result = python("-c", script, *arguments)
        assert result.returncode == 0, result.stderr
        loaded = set(result.stdout.split())
        assert not loaded & {"numpy", "onnx", "PIL", "torch", "onnxruntime", "tqdm", "google"}
        assert ("click" in loaded) == bool(arguments)


def test_the_package_and_its_version_run():
    result = python("-m", "nnlite", "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert cli.__name__.split(".")[0] in result.stdout
    assert __import__("nnlite").__version__ in result.stdout


def test_a_mistake_is_one_line_without_a_traceback_in_a_real_process(tmp_path):
    result = python("-m", "nnlite", "inspect", str(tmp_path / "nowhere.onnx"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"nnlite: error: {tmp_path / 'nowhere.onnx'}: no such file\n"


def test_defaults_are_those_of_the_configuration():
    command = group.commands["finetune"]
    options = {p.name: p for p in command.params if isinstance(p, click.Option)}
    config = {field.name: field.default for field in fields(FinetuneConfig) if field.default is not MISSING}
    assert set(options) - {"as_json", "help", "quiet", "config_file", "compared", "seeds"} == set(config)
    for name, default in config.items():
        own = options[name].default
        assert (own if isinstance(own, (int, float, str)) else None) == default, name
    for verb in ("eval", "predict", "inspect"):
        for parameter in group.commands[verb].params:
            if parameter.name in config and isinstance(parameter.default, (int, float, str)):
                assert parameter.default == config[parameter.name], (verb, parameter.name)


# ------------------------------------------------------------------------------------- what works


def test_inspect(run, mobilenet_path):
    status, out, _ = run("inspect", mobilenet_path)
    assert status == 0
    assert "3,504,872 parameters" in out
    status, out, errors = run("inspect", mobilenet_path, "--json")
    report = json.loads(out)
    assert (status, errors) == (0, "")
    assert report["parameters"] == 3_504_872
    assert report["at"] == [[1, 3, 224, 224]]
    # The paper says 300 million for convolutions and the classifier; normalisation is counted too.
    assert 300e6 < report["macs"] < 310e6
    assert report["problems"] == []
    last = report["cut_points"][-1]
    assert last["macs_before"] + last["macs_after"] == report["macs"]


def test_evaluating_all_pictures(run, small, pictures):
    folder = pictures / "val"  # neither train nor val within: the seed would hold out a part
    status, out, _ = run("eval", small, folder, "--size", 32, "--json", "--all")
    assert status == 0 and json.loads(out)["pictures"] == 4
    status, out, _ = run("eval", small, folder, "--size", 32)
    assert status == 0 and "2 pictures (those that the seed holds out; --all takes all)" in out


def test_check_data(run, pictures, tmp_path):
    status, out, _ = run("check-data", pictures, "--show", "4", "--sheet", tmp_path / "sheet.png")
    assert status == 0 and "0 errors" in out and (tmp_path / "sheet.png").exists()
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    first = sorted((copy / "train").rglob("*.jpg"))[0]
    shutil.copy(first, copy / "val" / first.parent.name / "copied.jpg")
    status, out, errors = run("check-data", copy)
    assert (status, errors) == (1, "")
    assert "leakage: " in out and "copied.jpg: the same picture is trained on and validates" in out
    status, out, _ = run("check-data", copy, "--json")
    assert status == 1 and [entry["kind"] for entry in json.loads(out)["errors"]] == ["leakage"]
    status, _, errors = run("check-data", tmp_path / "nowhere")
    assert status == 2 and "no such folder" in errors


def test_attribution(run, small, pictures, tmp_path):
    picture, out = sorted((pictures / "val" / "bird").iterdir())[0], tmp_path / "map.png"
    for method, note in (("gradcam", "feature map 'r'"), ("ig", "shares sum"), ("occlusion", "covering")):
        status, text, errors = run(
            "attribute", small, picture, "--method", method, "--class", "plant", "--size", 64, "--out", out
        )
        assert (status, errors) == (0, "")
        assert "'plant'" in text and note in text and str(out) in text
        with Image.open(out) as drawn:
            assert drawn.size == (64, 64)
    report = json.loads(run("attribute", small, picture, "--out", out, "--json")[1])
    assert report["class"] in ("bird", "plant") and 0.5 <= report["score"] <= 1
    status, _, errors = run("attribute", small, picture, "--class", "cat", "--out", out)
    assert (status, errors) == (2, "nnlite: error: the model has no class 'cat'; it knows bird, plant\n")
    status, _, errors = run("attribute", small, picture, "--out", tmp_path / "map.txt")
    assert status == 2 and "give a name that ends in .png" in errors


def test_inspect_shows_the_compiled_plan(run, mobilenet_path):
    status, out, _ = run("inspect", mobilenet_path, "--plan", "--size", "64", "--batch", "2")
    assert status == 0
    assert "152 nodes, 55 steps for inputs [[2, 3, 64, 64]]" in out
    assert "conv2d+clamp" in out and "in one block" in out and "of the largest output" in out
    status, out, _ = run("inspect", mobilenet_path, "--plan", "--size", "64", "--json")
    report = json.loads(out)
    assert status == 0 and len(report["steps"]) == 55
    assert 0 < report["largest_relative_difference"] < 1e-5
    assert report["memory"]["peak"] <= report["memory"]["planned"] < report["memory"]["unplanned"]


def test_inspect_lists_what_is_unsupported_and_succeeds(run, onnx_model, tmp_path):
    path = tmp_path / "odd.onnx"
    onnx.save(
        onnx_model([("StringNormalizer", ["x"], ["a"]), ("Det", ["a"], ["y"])], {"x": [2, 2]}, ["y"]), path
    )
    status, out, _ = run("inspect", path)
    assert status == 0
    assert "2 nodes are not supported" in out
    assert "StringNormalizer (stringnormalizer0)" in out
    assert "Det (det1)" in out
    status, out, _ = run("inspect", path, "--json")
    assert [problem["op_type"] for problem in json.loads(out)["problems"]] == ["StringNormalizer", "Det"]


def test_backends(run):
    status, out, _ = run("backends", "--json")
    assert status == 0
    assert "reference" in {entry["name"] for entry in json.loads(out)["backends"]}
    status, out, _ = run("backends")
    assert status == 0
    assert "reference" in out


def test_evaluating_and_predicting(run, small, pictures):
    status, out, errors = run("eval", small, pictures, "--size", 32, "--json")
    report = json.loads(out)
    assert (status, errors, report["pictures"]) == (0, "", 4)
    status, out, _ = run("eval", small, pictures, "--size", 32)
    assert status == 0
    assert f"accuracy {report['accuracy']:.1%}" in out
    chosen = sorted((pictures / "val" / "bird").iterdir())
    status, out, errors = run("predict", small, *chosen, "--size", 32, "--top", 1, "--json")
    ranked = json.loads(out)
    assert (status, errors) == (0, "")
    assert [entry["picture"] for entry in ranked] == [str(path) for path in chosen]
    assert {len(entry["classes"]) for entry in ranked} == {1}
    status, out, _ = run("predict", small, chosen[0], "--size", 32)
    assert status == 0
    assert out.splitlines()[0] == str(chosen[0])
    assert len(out.splitlines()) == 3


def test_fine_tuning(run, small, pictures, tmp_path):
    out_file = tmp_path / "tuned.onnx"
    status, out, errors = run("finetune", small, pictures, "--out", out_file, *FAST, "--json")
    assert (status, errors) == (0, "")
    report = json.loads(out)
    assert report["out"] == str(out_file)
    assert (
        json.loads((Path(report["run_dir"]) / "metrics.json").read_text())["accuracy"] == report["accuracy"]
    )
    assert set(report["baselines"]) == {"majority", "probe", "scratch"}
    status, out, errors = run("finetune", small, pictures, "--out", out_file, *FAST, "--no-baselines")
    assert status == 0
    assert "fine-tuned network" in out
    assert "4 held-out pictures: one picture is 25.0% of accuracy." in out
    assert "training the head" in errors, "decisions go to the error stream"
    run_dirs = list((tmp_path / "runs").iterdir())
    assert len(run_dirs) == 2, "no run overwrites another"
    status, _, errors = run("finetune", small, pictures, "--out", out_file, "--run-dir", run_dirs[0], *FAST)
    assert status == 2
    assert "holds a run already" in errors


def test_a_configuration_file_and_flags_over_it(run, small, pictures, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f'model = "{small}"\nviews = 1\nhead_epochs = 1\nrecipe = "partial"\nbaselines = false\n')
    first = ["--out", tmp_path / "a.onnx", "--run-dir", tmp_path / "a"]
    status, _, errors = run("finetune", "--config", file, *first)
    assert status == 2
    assert errors.endswith(f'DATA is missing: give it, or a line data = "..." in {file}\n')
    status, _, errors = run(
        "finetune", small, pictures, "--config", file, *first, "--size", 32, "--epochs", 1, "--quiet"
    )
    assert (status, errors) == (0, "")
    resolved = (tmp_path / "a" / "run.toml").read_text()
    assert "head_epochs = 1\n" in resolved and "epochs = 1\n" in resolved and "size = 32\n" in resolved
    again = ["--config", tmp_path / "a" / "run.toml", "--out", tmp_path / "b.onnx", "--quiet"]
    status, _, _ = run("finetune", *again, "--run-dir", tmp_path / "b")
    assert status == 0
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes(), "reproduces the run"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epoch = 3", "there is no option 'epoch'; did you mean epochs?"),
        ("head-epochs = 3", "there is no option 'head-epochs'; did you mean head_epochs?"),
        ("epochs = ", "is not TOML"),
        ("[epochs]", "epochs must be text, a number, true or false"),
        ("epochs = 1.5", "epochs=1.5 must be a whole number"),
        ("epochs = true", "epochs=True must be a whole number"),
        ("flip = 1", "flip=1 must be true or false"),
        ("recipe = 'best'", "recipe='best' must be one of auto, probe, partial, full, gradual"),
        ("ema = 1.0", "ema=1.0 must be below 1"),
        ("unfreeze = '1'\nrecipe = 'full'", "unfreeze='1' contradicts recipe='full'"),
    ],
)
def test_configuration_files_that_are_wrong(run, small, pictures, tmp_path, monkeypatch, content, said):
    monkeypatch.setattr("nnlite.data.loader.Loader.epoch", lambda *_: pytest.fail("pictures were read"))
    file = tmp_path / "run.toml"
    file.write_text(content)
    out = tmp_path / "tuned.onnx"
    status, _, errors = run("finetune", small, pictures, "--config", file, "--out", out, "--quiet")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert said in errors
    status, _, errors = run("finetune", small, pictures, "--config", tmp_path / "none.toml")
    assert status == 2 and "none.toml: cannot be read: No such file" in errors


def test_recipes_side_by_side(run, small, pictures, tmp_path):
    arguments = [small, pictures, "--out", tmp_path / "tuned.onnx", *FAST[:-2], "--quiet"]
    status, out, errors = run("finetune", *arguments, "--compare", "--seeds", 2)
    assert (status, errors) == (0, "")
    assert "2 seeds, the same split" in out
    (path,) = tmp_path.glob("runs/*/metrics.json")
    compared = json.loads(path.read_text())["compare"]
    assert list(compared) == ["majority", "scratch", "probe", "partial", "full"]
    for entry in compared.values():
        assert len(entry["values"]) == 2
        assert entry["mean"] == pytest.approx(np.mean(entry["values"]))
        assert entry["spread"] == pytest.approx(np.std(entry["values"], ddof=1))
    status, _, errors = run("finetune", *arguments, "--compare", "--seeds", 0)
    assert status == 2 and "seeds=0 must be at least 1" in errors
    status, _, errors = run("finetune", *arguments, "--seeds", 2)
    assert status == 2 and "--seeds is for --compare" in errors


def test_finding_a_learning_rate(run, small, pictures, tmp_path):
    arguments = ["lr-find", small, pictures, *FAST, "--batch-size", 4, "--steps", 20]
    plot = tmp_path / "curve.svg"
    status, out, errors = run(*arguments, "--high", 10, "--plot", plot, "--json")
    assert (status, errors) == (0, "")
    report = json.loads(out)
    rates = [rate for rate, _ in report["points"]]
    assert report["phase"] == "stages" and rates[0] == pytest.approx(1e-6)
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(1e7) / 19, rtol=1e-6)
    assert report["suggestion"] in rates
    assert plot.read_text().startswith("<svg") and "polyline" in plot.read_text()
    assert list(tmp_path.iterdir()) == [plot]
    status, out, _ = run(*arguments[:-2], "--unfreeze", "none", "--quiet")
    assert status == 0 and "most steeply at --head-learning-rate" in out
    for flags, said in (
        (["--low", 1, "--high", 0.1], "need 0 < low < high"),
        (["--steps", 2], "steps=2: need"),
        (["--plot", tmp_path / "no" / "where.svg"], "cannot be written"),
    ):
        status, _, errors = run(*arguments, *flags, "--quiet")
        assert status == 2 and said in errors


def test_resuming_what_is_no_run(run, tmp_path):
    status, out, errors = run("resume", tmp_path)
    assert (status, out) == (2, "")
    assert errors == (
        f"nnlite: error: run folder {tmp_path}: holds no run (no config.json); "
        "give the folder that the run named\n"
    )


def test_skipped_pictures_are_counted_and_listed(run, small, pictures, tmp_path):
    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (folder / "train" / "bird" / "text.jpg").write_text("no picture")
    arguments = ["finetune", small, folder, "--out", tmp_path / "tuned.onnx", *FAST, "--no-baselines"]
    status, _, errors = run(*arguments)
    assert status == 2
    assert "text.jpg" in errors.splitlines()[-1]
    status, out, _ = run(*arguments, "--on-bad-image", "skip")
    assert status == 0
    assert "1 pictures could not be read and were skipped; see metrics.json." in out
    lists = [json.loads(p.read_text())["skipped"] for p in tmp_path.glob("runs/*/metrics.json")]
    assert [[Path(entry["path"]).name for entry in skipped] for skipped in lists] == [["text.jpg"]]


def test_a_folder_is_predicted_into_a_csv(run, small, pictures, tmp_path):
    out = tmp_path / "out.csv"
    status, text, errors = run("predict", small, pictures / "val", "--csv", out)
    assert (status, text) == (0, "")
    count = sum(1 for path in (pictures / "val").rglob("*") if path.is_file())
    assert errors == f"{count} pictures in {out}\n"
    lines = out.read_text().splitlines()
    assert lines[0] == "path,label,probability"
    assert len(lines) == count + 1
    status, _, errors = run("predict", small, pictures / "val", "--csv", tmp_path / "nowhere" / "out.csv")
    assert (status, "cannot be written" in errors) == (2, True)


def test_scores_add_up(run, small, pictures):
    chosen = sorted((pictures / "val" / "plant").iterdir())[0]
    _, out, _ = run("predict", small, chosen, "--size", 32, "--json")
    assert np.isclose(sum(entry["probability"] for entry in json.loads(out)[0]["classes"]), 1)
