"""The command line as a person meets it: help, tables, JSON, one line per mistake and exit status 2."""

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

from nnlite import cli
from nnlite.cli.commands import nnlite as group
from nnlite.transfer import FinetuneConfig

VERBS = ["finetune", "resume", "lr-find", "eval", "predict", "attribute", "inspect", "backends"]


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("eval", model, data)``: exit status, standard output and errors of the real entry point."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nnlite", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        out, errors = capsys.readouterr()
        return status, out, errors

    return call


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def pictures(clipart, tmp_path_factory):
    """Four training and two held-out drawings of two classes."""
    root = tmp_path_factory.mktemp("two")
    for part, count in (("train", 4), ("val", 2)):
        for name in ("bird", "plant"):
            (root / part / name).mkdir(parents=True)
            for picture in sorted((clipart / part / name).iterdir())[:count]:
                shutil.copy(picture, root / part / name)
    return root


@pytest.fixture(scope="module")
def small(onnx_model, normal, tmp_path_factory):
    """A classifier of two named classes that costs nothing."""
    nodes = [
        ("Conv", ["x", "w"], ["c"], dict(strides=[4, 4])), ("Relu", ["c"], ["r"]),
        ("GlobalAveragePool", ["r"], ["p"]), ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "v"], ["y"], dict(transB=1)),
    ]  # fmt: skip
    metadata = {"nnlite.classes": json.dumps(["bird", "plant"])}
    arrays = {"w": normal(8, 3, 4, 4), "v": normal(2, 8)}
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    sizes = {"x": ["N", 3, None, None]}, {"y": ["N", 2]}
    onnx.save(onnx_model(nodes, *sizes, arrays, metadata=metadata), path)
    return path


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


FAST = ["--head-epochs", 1, "--epochs", 1, "--views", 1, "--size", 32, "--unfreeze", "all"]


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


# ------------------------------------------------------------------------------- mistakes


def mistakes(kind, path, mobilenet_path, onnx_model):
    """A bad model file at ``path``."""
    if kind == "text":
        path.write_text("this is no model")
    elif kind == "truncated":
        path.write_bytes(mobilenet_path.read_bytes()[:50_000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "unsupported":
        onnx.save(
            onnx_model([("StringNormalizer", ["x"], ["a"]), ("Det", ["a"], ["y"])], {"x": [2, 2]}, ["y"]),
            path,
        )
    return path


@pytest.mark.parametrize("verb", ["finetune", "eval", "predict", "inspect"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no such file"),
        ("text", "not an ONNX file"),
        ("truncated", "truncated"),
        ("empty", "not an ONNX file"),
        ("folder", "not a file"),
        ("unsupported", "2 nodes are not supported"),
    ],
)
def test_models_that_cannot_be_read(run, tmp_path, mobilenet_path, onnx_model, pictures, verb, kind, said):
    if (verb, kind) == ("inspect", "unsupported"):
        pytest.skip(
            "inspecting lists what is unsupported: test_inspect_lists_what_is_unsupported_and_succeeds"
        )
    model = mistakes(kind, tmp_path / "model.onnx", mobilenet_path, onnx_model)
    second = {"inspect": [], "predict": [pictures / "val" / "bird" / "x.jpg"]}.get(verb, [pictures])
    status, out, errors = run(verb, model, *second)
    assert (status, out) == (2, "")
    lines = errors.splitlines()
    assert lines[0].startswith(f"nnlite: error: {model}: ")
    assert said in lines[0]
    listed = [line.split(" (operator")[0].strip() for line in lines[1:]]
    wanted = ["StringNormalizer (stringnormalizer0): not supported", "Det (det1): not supported"]
    assert listed == wanted * (kind == "unsupported")


def _one_class(folder):
    shutil.rmtree(folder / "train" / "plant")
    shutil.rmtree(folder / "val" / "plant")


def _empty_class(folder):
    for picture in (folder / "train" / "plant").iterdir():
        picture.unlink()


def _truncated_picture(folder):
    path = min((folder / "train" / "plant").iterdir())
    path.write_bytes(path.read_bytes()[:500])


def _text(folder):
    min((folder / "val" / "plant").iterdir()).write_text("no picture")


def _empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "missing": (shutil.rmtree, "no such folder"),
    "empty": (_empty, "no class folders"),
    "one class": (_one_class, "only one class"),
    "empty class": (_empty_class, "class folder without pictures"),
    "truncated picture": (_truncated_picture, ".jpg"),
    "text": (_text, ".jpg"),
}


@pytest.mark.parametrize("verb", ["finetune", "eval"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_folders_that_cannot_be_used(run, small, pictures, tmp_path, verb, damage):
    if (verb, damage) == ("eval", "truncated picture"):
        pytest.skip("an evaluation does not look at training pictures")
    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    change, said = DAMAGE[damage]
    change(folder)
    options = (
        ["--out", tmp_path / "tuned.onnx", *FAST, "--json"]
        if verb == "finetune"
        else ["--size", 32, "--json"]
    )
    status, out, errors = run(verb, small, folder, *options)
    assert (status, out, len(errors.splitlines())) == (2, "", 1)
    assert errors.startswith(f"nnlite: error: {folder}")
    assert said in errors
    assert not (tmp_path / "tuned.onnx").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--unfreeze", "99"], "unfreeze='99' must be none, all or the number of last stages, 1 to"),
        (["--unfreeze", "some"], "unfreeze='some'"),
        (["--head", "nowhere"], "no layer is called 'nowhere'; name one with --head: w, v"),
        (["--head-epochs", "0"], "head_epochs=0 must be at least 1"),
        (["--epochs", "many"], "'many' is not a valid integer"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--learning-rate", "-1"], "learning_rate=-1.0 must be positive"),
        (["--label-smoothing", "1"], "label_smoothing=1.0"),
        (["--size", "0"], "size=0 must be 16 to 4096"),
        (["--size", "-5"], "size=-5 must be 16 to 4096"),
        (["--workers", "-1"], "workers=-1"),
        (["--seed", "-1"], "seed=-1"),
        (["--validation", "2"], "validation=2.0"),
        (["--preprocessing", "best"], "preprocessing='best' must be one of imagenet"),
        (["--on-bad-image", "cry"], "'cry' is not one of 'fail', 'skip'"),
        (["--no-such-option"], "No such option"),
        (["--recipe", "best"], "'best' is not one of 'auto', 'probe'"),
        (
            ["--recipe", "probe", "--unfreeze", "1"],
            "needs one class per picture and a linear head with a bias",
        ),
        (["--recipe", "full", "--unfreeze", "1"], "unfreeze='1' contradicts recipe='full'"),
        (["--budget", "0"], "budget=0.0 must be positive"),
        (["--stage-decay", "2"], "stage_decay=2.0"),
        (["--ema", "1"], "ema=1.0 must be below 1"),
        (["--clip", "-1"], "clip=-1.0 must be at least 0"),
        (["--accumulate", "0"], "accumulate=0 must be at least 1"),
        (["--patience", "-1"], "patience=-1 must be at least 0"),
        (["--set-aside", "1"], "set_aside=1.0"),
        (["--l2-sp", "-1"], "l2_sp=-1.0 must be at least 0"),
        (["--warmup", "1"], "warmup=1.0 must be below 1"),
        (["--checkpoint-minutes", "0"], "checkpoint_minutes=0.0 must be positive"),
        (["--split-seed", "-1"], "split_seed=-1 must be at least 0"),
        (["--views", "0"], "views=0 must be at least 1"),
        (["--cache-limit", "much"], "cache_limit='much' must be bytes"),
        (["--out", "nowhere/tuned.onnx"], "the folder nowhere does not exist"),
        (["--out", "."], "is a folder"),
    ],
)
def test_options_are_checked_before_any_picture_is_read(
    run, small, pictures, tmp_path, monkeypatch, options, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnlite.data.loader.Loader.epoch", lambda *_: pytest.fail("pictures were read"))
    status, out, errors = run("finetune", small, pictures, "--json", *options)
    assert (status, out) == (2, "")
    assert said in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_cannot_be_opened_for_writing_is_found_early(
    run, small, pictures, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nnlite.transfer.run_folder.tempfile.mkstemp", refuse)
    monkeypatch.setattr("nnlite.data.loader.Loader.epoch", lambda *_: pytest.fail("pictures were read"))
    status, _, errors = run("finetune", small, pictures, "--out", tmp_path / "tuned.onnx")
    assert status == 2
    assert errors == f"nnlite: error: --out {tmp_path / 'tuned.onnx'}: cannot be written: Permission denied\n"


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


@pytest.mark.parametrize("picture", ["nowhere.jpg", "text.jpg", "empty"])
def test_pictures_that_cannot_be_predicted(run, small, tmp_path, monkeypatch, picture):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    status, out, errors = run("predict", small, picture)
    assert (status, out, len(errors.splitlines())) == (2, "", 1)
    assert errors.startswith(f"nnlite: error: {picture}: ")


def test_a_bug_keeps_its_traceback(run, small, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("nnlite.onnx.inspect.inspect", fail)
    with pytest.raises(ZeroDivisionError):
        run("inspect", small)


def test_scores_add_up(run, small, pictures):
    chosen = sorted((pictures / "val" / "plant").iterdir())[0]
    _, out, _ = run("predict", small, chosen, "--size", 32, "--json")
    assert np.isclose(sum(entry["probability"] for entry in json.loads(out)[0]["classes"]), 1)
