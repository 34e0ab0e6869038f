"""Progress: on a terminal what happens, in a pipe only decisions, quiet nothing."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from nnlite.cli.progress import Bars
from nnlite.memory import peak_resident, resident
from nnlite.transfer.training import EpochRecord, Step


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def job():
    config = SimpleNamespace(head_epochs=2, epochs=3)
    return SimpleNamespace(config=config, folder=SimpleNamespace(train=[None] * 4))


def train(bars, job):
    bars.on_start(job)
    for epoch in range(2):
        for batch in range(2):
            bars.on_step(Step("head", epoch, batch, 0.5, 1, 2))
        bars.on_epoch(EpochRecord("head", epoch, 4, 0.5, 0.5, 1e-3, 0.1, 0.25, 0.75))
    bars.on_message("next")
    bars.on_step(Step("other", 0, 0, 2.0, 2, 2))
    bars.on_end(job, None)


def test_a_terminal_sees_epochs_loss_accuracy_time_and_memory(monkeypatch, job):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bars = Bars()
    bars.on_start(job)
    for batch in range(2):
        bars.on_step(Step("head", 0, batch, 0.5 + batch, 1, 2))
    bars.on_epoch(EpochRecord("head", 0, 4, 0.5, 0.5, 1e-3, 0.1, 0.25, 0.75))
    bars.on_step(Step("head", 1, 0, 0.25, 2, 2))
    line = str(bars._training.bar)
    assert line.startswith("head 2/2:  75%")
    assert "6.00/8.00" in line and "picture" in line
    assert "loss 0.250, accuracy 100.0%, held out 75.0%" in line
    assert " MB" in line
    bars.on_end(job, None)
    assert bars._training is None


def test_a_pipe_gets_decisions_and_quiet_nothing(monkeypatch, job):
    for quiet, expected in ((False, "next\n"), (True, "")):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        bars = Bars(quiet=quiet)
        train(bars, job)
        assert list(bars.on_batches([1, 2], "features", 2)) == [1, 2]
        assert list(bars.show_pictures([1, 2], "pictures", 2)) == [1, 2]
        assert stream.getvalue() == expected


def test_batches_of_pictures_are_counted(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bars = Bars()
    assert list(bars.on_batches([1, 2], "features", 2)) == [1, 2]
    assert "features" in stream.getvalue() and "0/2" in stream.getvalue()
    before = stream.getvalue()
    assert list(bars.on_batches([1], "epoch 1/2", 1)) == [1]
    assert stream.getvalue() == before, "an epoch stands in its phase's bar"


def test_memory_is_read():
    before = resident()
    if before is None:
        pytest.skip("this system does not say how much memory a process holds")
    array = np.ones(8_000_000)
    assert resident() >= before + 0.9 * array.nbytes
    assert peak_resident() >= resident() * 0.99
