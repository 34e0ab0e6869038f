"""What TensorBoard is told, read back."""

from __future__ import annotations

import sys

import pytest

from nnlite.errors import ConfigError
from nnlite.transfer import FinetuneConfig, finetune


def values(proto_file):
    """Tag and step -> value, of one event file: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = proto_file.read_bytes(), {}
    while data:
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
    return found


def test_every_epoch_and_step_is_logged(mobilenet_path, few_pictures, tmp_path):
    pytest.importorskip("tensorboardX", reason="its logs are tested; install nnlite[tensorboard]")
    config = FinetuneConfig(
        str(mobilenet_path), str(few_pictures), str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"),
        head_epochs=2, epochs=1, views=1, batch_size=8, size=32, baselines=False, report=False,
        tensorboard=True,
    )  # fmt: skip
    result = finetune(config)
    (log,) = (tmp_path / "run" / "tensorboard").iterdir()
    found = values(log)
    for record in result.history:
        assert found[f"{record.phase}/loss", record.epoch] == pytest.approx(record.loss)
        assert found[f"{record.phase}/validation_accuracy", record.epoch] == pytest.approx(
            record.validation_accuracy
        )
    steps = [step for tag, step in found if tag == "head/step_loss"]
    assert steps == list(range(6)), "18 pictures, 8 at a time, twice"


def test_without_tensorboardx_it_says_so_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = FinetuneConfig("nowhere.onnx", "nowhere", str(tmp_path / "tuned.onnx"), tensorboard=True)
    with pytest.raises(ConfigError, match=r"install nnlite\[tensorboard\]"):
        finetune(config)
