"""Fine-tuning on what seems to be a GPU, and with too little memory for a batch."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

import nnlite as nl
from nnlite import device, nn
from nnlite.cli import main
from nnlite.data.prefetch import on_device
from nnlite.errors import ConfigError, DeviceError, OutOfMemoryError
from nnlite.graph import GraphModule, trace
from nnlite.ops import OPS
from nnlite.optim import SGD
from nnlite.tensors import Tensor
from nnlite.transfer import Callback, Classifier, FinetuneConfig, evaluate, finetune, predict
from nnlite.transfer.training import Phase, Rules


class Messages(Callback):
    def __init__(self):
        self.lines = []

    def on_message(self, text):
        self.lines.append(text)


@pytest.fixture
def config(network, few_pictures, tmp_path):
    return FinetuneConfig(
        str(network), str(few_pictures), str(tmp_path / "here.onnx"), head_epochs=2, epochs=2, views=2,
        batch_size=8, size=32, unfreeze="all", baselines=False, report=False, workers=1,
    )  # fmt: skip


# ----------------------------------------------------------------------------------- the whole run


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": "partial", "ema": 0.5, "clip": 1.0, "class_weights": "auto"},
        {"recipe": "full", "cache": "off", "mix": "mixup", "l2_sp": 0.1, "accumulate": 2},
        {"recipe": "partial", "unfreeze": "1", "tune": "affine", "cache": "disk"},
        {"recipe": "probe", "unfreeze": None},
    ],
    ids=["partial", "anew", "affine", "probe"],
)
def test_a_run_there_is_a_run_here(gpu, config, tmp_path, options):
    config = replace(config, cache_dir=str(tmp_path / "cache"), **options)
    here = finetune(config)
    seen = Messages()
    there = finetune(replace(config, out=str(tmp_path / "there.onnx"), device="cuda"), callbacks=[seen])
    assert "computing on cuda:0 (Stand-in, 16 GB)" in seen.lines
    assert gpu.to_device > 0
    assert not any("were there from an earlier run" in line for line in seen.lines), "keys tell devices apart"
    losses = [[record.loss for record in run.history] for run in (here, there)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    mine = [row["probability"] for row in here.metrics["predictions"]]
    others = [row["probability"] for row in there.metrics["predictions"]]
    np.testing.assert_allclose(others, mine, atol=2e-3)


def test_eval_and_predict_take_a_device(gpu, config, few_pictures):
    finetune(config)
    expected = evaluate(config.out, few_pictures)
    assert evaluate(config.out, few_pictures, device="cuda")["accuracy"] == expected["accuracy"]
    picture = next(few_pictures.rglob("*.png"), None) or next(few_pictures.rglob("*.jpg"))
    (here,), (there,) = (
        predict(Classifier.open(config.out, device=where), [picture], 1) for where in ("cpu", "auto")
    )
    assert there["classes"][0]["class"] == here["classes"][0]["class"]


def test_without_a_gpu_the_command_says_what_is_missing(monkeypatch, capsys, config, few_pictures):
    monkeypatch.setattr(device, "missing_driver", lambda: "this machine has no NVIDIA driver (libcuda)")
    with pytest.raises(DeviceError, match=r"device 'cuda' cannot be used: .*no NVIDIA driver"):
        finetune(replace(config, device="cuda"))
    for command in (["eval", config.model, str(few_pictures)], ["predict", config.model, str(few_pictures)]):
        monkeypatch.setattr(sys, "argv", ["nnlite", *command, "--device", "cuda"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        assert "no NVIDIA driver (libcuda); use device 'cpu'" in capsys.readouterr().err


def test_another_device_is_refused(config):
    with pytest.raises(ConfigError, match=r"device='tpu' must be cpu, cuda, cuda:<number> or auto"):
        replace(config, device="tpu")


# --------------------------------------------------------------------------------------- prefetching


def test_batches_arrive_in_order_and_keep_their_memory_order(gpu):
    rng = np.random.default_rng(0)
    sizes = (4, 4, 2, 8, 1, 4, 4)
    batches = [(nl.layout.channels_last(rng.random((n, 3, 5, 5), np.float32)), np.arange(n)) for n in sizes]
    for (expected, labels), (found, same) in zip(batches, on_device(batches, "cuda:0"), strict=True):
        assert device.device_of(found) == "cuda:0"
        assert nl.layout.is_channels_last(found)
        assert same is labels
        np.testing.assert_array_equal(device.to_host(found), expected)


def test_what_is_there_or_stays_here_passes(gpu):
    array = np.ones((2, 3), np.float32)
    assert next(on_device([(array, 1)], "cpu"))[0] is array
    there = device.moved(array, "cuda:0")
    assert next(on_device([(there, 1)], "cuda:0"))[0] is there


# ------------------------------------------------------------------------------------- out of memory


def _phase(rules, said=None, batch=8):
    nl.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    x = np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)
    labels = np.arange(24) % 3
    graph, leaves = trace(net, [Tensor(x[:2])])
    module = GraphModule(graph, leaves=leaves)
    batches = [(x[i : i + batch], labels[i : i + batch]) for i in range(0, 24, batch)]
    optimiser = SGD(module.parameters(), lr=0.1, momentum=0.9)
    return Phase(
        "test", module, optimiser, 2, len(batches), lambda epoch, first: batches[first:],
        rules=rules, say=(said if said is not None else []).append,
    )  # fmt: skip


@pytest.fixture
def small_memory(monkeypatch):
    """Convolutions of more than three pictures do not fit, in backward either."""
    record, tried = OPS["conv2d"], []
    forward = record.forward

    def limited(ctx, x, *operands, **params):
        tried.append(len(x))
        if len(x) > 3:
            raise MemoryError(f"{x.nbytes} bytes cannot be allocated")
        return forward(ctx, x, *operands, **params)

    monkeypatch.setitem(record.__dict__, "forward", limited)
    return tried


@pytest.mark.parametrize("accumulate", [1, 2])
def test_smaller_parts_make_the_same_steps(small_memory, monkeypatch, accumulate):
    said = []
    split, history = _phase(Rules(retry_smaller=True, accumulate=accumulate), said), []
    small_memory.clear()  # it was traced
    split.run(history.append)
    assert said == [
        "memory ran out: batches are learned from in 2 parts from here on",
        "memory ran out: batches are learned from in 4 parts from here on",
    ]
    assert small_memory[:3] == [8, 4, 2], "what did not fit is not tried again"
    assert set(small_memory[3:]) == {2}
    monkeypatch.undo()
    whole, expected = _phase(Rules(accumulate=accumulate)), []
    whole.run(expected.append)
    for name, value in whole.module.state_dict().items():
        np.testing.assert_allclose(split.module.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    for one, other in zip(history, expected, strict=True):
        assert (one.pictures, one.accuracy) == (other.pictures, other.accuracy)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_unasked_nothing_is_split(small_memory):
    with pytest.raises(OutOfMemoryError, match=r"conv2d.*out of memory.*--retry-smaller"):
        _phase(Rules()).run(lambda record: None)


def test_a_single_picture_that_does_not_fit_is_the_end(small_memory, monkeypatch):
    phase = _phase(Rules(retry_smaller=True))

    def none(*operands, **params):
        raise MemoryError("none left")

    monkeypatch.setitem(OPS["conv2d"].__dict__, "forward", none)
    with pytest.raises(OutOfMemoryError, match="none left"):
        phase.run(lambda record: None)
    assert phase.at.parts == 8


def test_where_it_stands_tells_the_parts(small_memory):
    phase = _phase(Rules(retry_smaller=True))
    phase.run(lambda record: None)
    state = phase.state_dict()
    assert state["at"]["parts"] == 4
    other = _phase(Rules(retry_smaller=True))
    other.load_state_dict(state)
    assert other.at.parts == 4
    del state["at"]["parts"]  # by an earlier version
    other.load_state_dict(state)
    assert other.at.parts == 1
