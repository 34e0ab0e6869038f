"""Learning-rate schedules against closed formulas and PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnlite import nn, optim
from nnlite.errors import ConfigError


def optimizer(*rates: float) -> optim.SGD:
    return optim.SGD([{"params": [nn.Parameter([1.0])], "lr": rate} for rate in rates])


def rates(schedule: optim.Schedule, steps: int, group: int = 0) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[group]["lr"])
        schedule.step()
    return found


def test_cosine_without_warmup_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=20, eta_min=0.01)
    expected = []
    for _ in range(21):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        reference.step()
    found = rates(optim.CosineSchedule(optimizer(0.4), 20, minimum=0.01), 21)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_cosine_with_warmup():
    found = rates(optim.CosineSchedule(optimizer(1.0), total_steps=14, warmup_steps=4), 20)
    np.testing.assert_allclose(found[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    half_cosine = [(1 + math.cos(math.pi * i / 10)) / 2 for i in range(11)]
    np.testing.assert_allclose(found[4:15], half_cosine, atol=1e-12)
    assert found[14:] == [0.0] * 6, "and there it stays"
    assert found[9] == pytest.approx(0.5)


def test_every_group_keeps_its_own_rate():
    schedule = optim.CosineSchedule(optimizer(1.0, 0.1), 10, minimum=0.05)
    assert rates(schedule, 11, group=1)[::10] == pytest.approx([0.1, 0.05])
    assert schedule.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    schedule.optimizer.add_param_group({"params": [nn.Parameter([1.0])], "lr": 7.0})
    schedule.step()
    assert schedule.optimizer.param_groups[2]["lr"] == pytest.approx(0.05)


def test_lambda_schedule():
    found = rates(optim.LambdaSchedule(optimizer(2.0), lambda step: 0.5**step), 4)
    assert found == [2.0, 1.0, 0.5, 0.25]


def test_a_schedule_of_ones_own():
    class Staircase(optim.Schedule):
        def rate(self, initial: float, step: int) -> float:
            return initial / (1 + step // 2)

    assert rates(Staircase(optimizer(6.0)), 5) == [6.0, 6.0, 3.0, 3.0, 2.0]


def test_a_loaded_schedule_goes_on():
    first = optim.CosineSchedule(optimizer(1.0), 10, 2)
    for _ in range(5):
        first.step()
    second = optim.CosineSchedule(optimizer(9.0), 10, 2)
    second.load_state_dict(first.state_dict())
    assert rates(second, 5) == rates(first, 5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0,), "total_steps=0"), ((10, 10), "warmup_steps=10"), ((10, -1), "warmup_steps=-1"),
        ((10, 0, -0.1), "minimum=-0.1"),
    ],
)  # fmt: skip
def test_schedules_that_make_no_sense(arguments, match):
    with pytest.raises(ConfigError, match=match):
        optim.CosineSchedule(optimizer(1.0), *arguments)
