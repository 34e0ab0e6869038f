"""Temperature scaling: found where it is known, written into the file, fitted on nothing that is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnlite import onnx as nx
from nnlite.errors import ConfigError
from nnlite.transfer import Callback, FinetuneConfig, finetune
from nnlite.transfer.calibration import temperature
from nnlite.transfer.targets import MultiLabel, SingleLabel

RNG = np.random.default_rng(0)
NAMES = ("a", "b", "c")
SINGLE, MULTI = SingleLabel(NAMES), MultiLabel(NAMES)


@pytest.mark.parametrize("known", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("targets", [SINGLE, MULTI], ids=lambda t: t.task)
def test_a_known_temperature_is_found(targets, known):
    """Labels that are drawn with the probabilities of logits / T."""
    logits = 2 * RNG.standard_normal((20_000, 3)).astype(np.float32)
    p = targets.scores(logits / known)
    if targets is SINGLE:
        labels = (p.cumsum(1) < RNG.random((len(p), 1))).sum(1)
    else:
        labels = (RNG.random(p.shape) < p).astype(np.float32)
    assert temperature(targets, logits, labels) == pytest.approx(known, rel=0.05)


def test_pictures_that_are_all_right_do_not_make_it_certain():
    logits = 3 * np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    sure = SINGLE.scores(logits / temperature(SINGLE, logits, np.arange(9) % 3)).max(1)
    # Smoothing by 1 / 11 over three classes: the right one has 1 - 2 / 33.
    np.testing.assert_allclose(sure, 1 - 2 / 33, atol=1e-3)


class Watch(Callback):
    def __init__(self):
        self.aside, self.held, self.train = set(), set(), set()

    def on_start(self, job):
        self.aside = {sample.path for sample in job.aside}
        self.train = {sample.path for sample in job.train}
        self.held = {sample.path for sample in job.folder.validation}


@pytest.fixture
def config(network, few_pictures, tmp_path):
    return FinetuneConfig(
        str(network), str(few_pictures), str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"),
        head_epochs=2, epochs=1, views=1, batch_size=4, size=32, baselines=False, calibrate=True,
    )  # fmt: skip


@pytest.mark.parametrize("recipe", ["probe", "partial"])
def test_the_file_that_is_written_is_scaled(config, monkeypatch, tmp_path, recipe):
    x = RNG.standard_normal((5, 3, 32, 32)).astype(np.float32)
    logits, watch, seen = [], Watch(), []
    for number, value in enumerate((1.0, 2.0)):

        def told(targets, outputs, labels, value=value):
            seen.append((outputs, len(labels)))
            return value

        monkeypatch.setattr("nnlite.transfer.calibration.temperature", told)
        one = replace(config, recipe=recipe, run_dir=str(tmp_path / f"run{number}"))
        result = finetune(one, callbacks=[watch])
        assert result.metrics["temperature"] == {"value": value, "pictures": 3}
        logits.append(nx.load(config.out).run([x])[0])
    np.testing.assert_allclose(2 * logits[1], logits[0], rtol=1e-4, atol=1e-5)
    assert [count for _, count in seen] == [3, 3]
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert len(watch.aside) == 3 and not watch.aside & (watch.train | watch.held)
    page = (Path(result.run_dir) / "report.html").read_text()
    assert "divided by 2.00, which fits 3 training pictures that were set aside" in page


def test_numbers_have_no_probabilities(config, few_pictures, tmp_path):
    names = [str(path) for path in sorted((few_pictures / "train" / "bird").iterdir())]
    rows = "\n".join(f"{name},{number}" for number, name in enumerate(names))
    (tmp_path / "list.csv").write_text(f"path,size\n{rows}")
    told = replace(config, data=str(tmp_path / "list.csv"), images="/")
    with pytest.raises(ConfigError, match="calibrate=True is for classes and labels"):
        finetune(told)
