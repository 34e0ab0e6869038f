"""What a smaller precision of the frozen part costs is measured, said and judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnlite.transfer import FinetuneConfig, finetune
from nnlite.transfer.callbacks import Callback
from nnlite.transfer.logistic import cross_validated_accuracy
from nnlite.transfer.precision import Trial

GOOD = Trial("int8", 0.99, 0.9, 0.80, 0.80, 2.0, 100)


def test_what_auto_tolerates():
    assert GOOD.is_good
    assert replace(GOOD, accuracy=0.795).is_good
    assert not replace(GOOD, accuracy=0.78).is_good
    assert not replace(GOOD, mean_cosine=0.97).is_good
    assert replace(GOOD, accuracy=None).is_good  # one picture of a class: nothing was held out


def test_said():
    assert str(GOOD) == (
        "frozen part in int8: feature cosine 0.9900 mean, 0.9000 least; probe 80.0% against 80.0% in fp32; "
        "2.00 times as fast (100 training pictures)"
    )
    assert "probe" not in str(replace(GOOD, accuracy=None))


def test_cross_validated_accuracy():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    apart = np.eye(3)[labels] * 10 + rng.standard_normal((60, 3))
    assert cross_validated_accuracy(apart, labels, 3) == 1.0
    assert cross_validated_accuracy(rng.standard_normal((60, 3)), labels, 3) < 0.7
    assert cross_validated_accuracy(apart[:3], labels[:3], 3) is None


def lines_of(*, clipart_folder, model, tmp_path, **options):
    said = []

    class Listener(Callback):
        def on_message(self, text):
            said.append(text)

    config = FinetuneConfig(
        str(model), str(clipart_folder), str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"),
        head_epochs=1, epochs=1, views=1, batch_size=8, size=64, baselines=False, **options,
    )  # fmt: skip
    return finetune(config, callbacks=[Listener()]).metrics, said


def test_int8_is_said_and_reported(mobilenet_path, few_pictures, tmp_path):
    report, said = lines_of(
        clipart_folder=few_pictures, model=mobilenet_path, tmp_path=tmp_path, frozen_precision="int8"
    )
    (line,) = [text for text in said if "feature cosine" in text]
    assert line.startswith("frozen part in int8: feature cosine 0.9") and "18 training pictures" in line
    frozen = report["frozen_precision"]
    assert frozen["precision"] == "int8" and frozen["trials"][0]["mean_cosine"] > 0.9


def test_auto_takes_nothing_slower(mobilenet_path, few_pictures, tmp_path):
    report, said = lines_of(
        clipart_folder=few_pictures, model=mobilenet_path, tmp_path=tmp_path, frozen_precision="auto",
        cache="off",
    )  # fmt: skip
    frozen = report["frozen_precision"]
    assert [text for text in said if text.startswith(f"frozen precision auto: {frozen['precision']}")]
    assert all(trial["speed"] > 1 for trial in frozen["trials"])


def test_a_trial_shows_grey_pictures_to_a_network_of_one_channel(mobilenet_path, few_pictures, tmp_path):
    report, _ = lines_of(
        clipart_folder=few_pictures, model=mobilenet_path, tmp_path=tmp_path, frozen_precision="bf16",
        channels="1",
    )  # fmt: skip
    assert report["frozen_precision"]["trials"][0]["mean_cosine"] > 0.9
