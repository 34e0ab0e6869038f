"""summary: shapes, parameters, arithmetic and memory against hand counts and published figures."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import nn, zoo

# Billions of multiply-accumulates of convolutions and linear layers, as torchvision publishes them.
PUBLISHED = {
    "resnet18": (1.814, 224),
    "resnet50": (4.089, 224),
    "squeezenet1_0": (0.819, 224),
    "squeezenet1_1": (0.349, 224),
    "densenet121": (2.834, 224),
    "mobilenet_v2": (0.301, 224),
    "mobilenet_v3_small": (0.057, 224),
    "mobilenet_v3_large": (0.217, 224),
    "efficientnet_b0": (0.386, 224),
    "googlenet": (1.498, 224),
    "inception_v3": (5.713, 299),
}


class Net(nn.Module):
    """Functional operations of its own, a shared layer, and one that never runs."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 1, bias=False)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        self.unused = nn.Linear(2, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return self.head(x + self.twice(self.twice(x)))


def test_rows_by_hand():
    report = nl.summary(Net(), (2, 3, 10, 10))
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["conv", "norm", "Net", "twice", "head.0", "head.1", "head.2", "unused"]
    assert [row.kind for row in report.rows[:4]] == ["Conv2d", "BatchNorm2d", "Net", "Conv2d"]
    conv, norm, own, twice, linear = (rows[name] for name in ("conv", "norm", "Net", "twice", "head.2"))
    result = 2 * 8 * 10 * 10
    assert (conv.shape, conv.parameters, conv.macs) == ((2, 8, 10, 10), 8 * 27 + 8, result * 27)
    assert (norm.shape, norm.parameters, norm.macs) == ((2, 8, 10, 10), 16, result)
    assert (own.shape, own.parameters, own.macs, own.memory) == ((2, 8, 10, 10), 0, 0, 2 * 4 * result)
    assert (twice.parameters, twice.macs, twice.memory) == (64, 2 * 8 * result, 2 * 4 * result)
    assert (linear.shape, linear.parameters, linear.macs, linear.memory) == ((2, 5), 45, 2 * 40, 4 * 10)
    assert (rows["unused"].shape, rows["unused"].parameters, rows["unused"].macs) == ((), 9, 0)
    assert report.parameters == report.trainable == sum(row.parameters for row in report.rows)
    assert report.buffers == 16
    assert report.parameter_bytes == 4 * (report.parameters + 16)
    assert report.macs == sum(row.macs for row in report.rows)
    assert report.memory == sum(row.memory for row in report.rows)


def test_frozen_parameters_are_counted_apart():
    model = Net()
    model.conv.freeze()
    report = nl.summary(model, (1, 3, 8, 8))
    assert report.frozen == 8 * 27 + 8
    assert report.trainable == sum(p.size for p in model.parameters()) - report.frozen


def test_nothing_is_left_behind():
    model = Net().train()
    model.head.eval()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    state = model.state_dict()
    nl.summary(model, (1, 3, 8, 8))
    with pytest.raises(nl.errors.ShapeError):
        nl.summary(model, (1, 4, 8, 8))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert (model.training, model.norm.training, model.head.training, model.head[2].training) == (
        True,
        True,
        False,
        False,
    )
    assert all(np.array_equal(value, state[name]) for name, value in model.state_dict().items())
    with nl.no_grad():
        assert model(nl.tensor(np.zeros((2, 3, 8, 8), np.float32))).shape == (2, 5)


def test_several_inputs_and_other_types():
    class Pair(nn.Module):
        def forward(self, a, b):
            return F.matmul(a, b)

    report = nl.summary(Pair(), (2, 3), (3, 4), dtype=np.float64)
    assert report.inputs == ((2, 3), (3, 4))
    (row,) = report.rows
    assert (row.name, row.shape, row.macs, row.memory) == ("Pair", (2, 4), 24, 64)


def test_a_model_from_a_file_is_only_reckoned(mobilenet_path, monkeypatch):
    model = nl.onnx.load(mobilenet_path)
    monkeypatch.setattr(type(model), "forward", None)
    report = nl.summary(model, (1, 3, 224, 224))
    assert report.parameters == sum(row.parameters for row in report.rows) == 3_504_872
    convolutions = sum(row.macs for row in report.rows if row.kind in ("conv2d", "linear"))
    assert convolutions / 1e9 == pytest.approx(0.301, abs=6e-4)
    assert report.rows[-1].shape == (1, 1000)


def test_modules_and_files_agree(tmp_path, normal):
    model = Net()
    nl.onnx.save(model, tmp_path / "m.onnx", inputs=[normal(1, 3, 10, 10)])
    module, file = (
        nl.summary(model, (1, 3, 10, 10)),
        nl.summary(nl.onnx.load(tmp_path / "m.onnx"), (1, 3, 10, 10)),
    )
    assert file.macs == module.macs
    assert file.parameters == module.parameters - 9  # the layer that never runs is not in the file


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_arithmetic(name):
    billions, side = PUBLISHED[name]
    report = nl.summary(getattr(zoo, name)(), (1, 3, side, side))
    macs = sum(row.macs for row in report.rows if row.kind != "BatchNorm2d")
    assert macs / 1e9 == pytest.approx(billions, abs=6e-4)


def test_the_table():
    text = str(nl.summary(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(6, 2000).freeze()), (1, 3, 8, 8)))
    head, columns, _, conv, linear, _, total, counts = text.split("\n")
    assert head == "Sequential, input 1×3×8×8"
    assert columns.split() == ["layer", "kind", "output", "parameters", "MACs", "memory"]
    assert conv.split() == ["0", "Conv2d", "1×8×6×6", "224", "7,776", "1.2", "kB"]
    assert linear.split() == ["1", "Linear", "1×8×6×2000", "14,000", "576,000", "384.0", "kB"]
    assert total.split() == ["total", "14,224", "583,776", "385.2", "kB"]
    assert counts == "224 trainable and 14,000 frozen parameters, 0 other constants: 56.9 kB"
    assert len({len(line) for line in (columns, conv, linear, total)}) == 1
