"""Every mistake that a person can make is one line, which names what is wrong, and exit status 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from quick_options import FAST


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
