"""LARS and LAMB against their papers' formulas, schedules against PyTorch, moving averages."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn, optim
from nnlite.errors import ConfigError


def feed(parameter, step):
    gradient = np.random.default_rng(step).standard_normal(parameter.shape)
    parameter.grad = nl.tensor(gradient)
    return gradient


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_is_the_papers(decay):
    w = np.random.default_rng(99).standard_normal((4, 3, 2))
    p, v = nn.Parameter(w), np.zeros_like(w)
    optimizer = optim.LARS([p], lr=0.5, momentum=0.8, weight_decay=decay, trust=0.02)
    for step in range(50):
        g = feed(p, step)
        optimizer.step()
        local = 0.02 * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
        v = 0.8 * v + 0.5 * local * (g + decay * w)
        w = w - v
        np.testing.assert_allclose(p.numpy(), w, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lamb_is_the_papers(decay):
    w = np.random.default_rng(99).standard_normal((4, 3, 2))
    p, m, v = nn.Parameter(w), np.zeros_like(w), np.zeros_like(w)
    optimizer = optim.LAMB([p], lr=0.05, betas=(0.8, 0.9), eps=1e-4, weight_decay=decay)
    for step in range(50):
        g = feed(p, step)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        r = (m / (1 - 0.8 ** (step + 1))) / (np.sqrt(v / (1 - 0.9 ** (step + 1))) + 1e-4) + decay * w
        w = w - 0.05 * np.linalg.norm(w) / np.linalg.norm(r) * r
        np.testing.assert_allclose(p.numpy(), w, rtol=1e-8)


@pytest.mark.parametrize("kind", [optim.LARS, optim.LAMB])
def test_a_parameter_of_zeros_moves(kind):
    p = nn.Parameter(np.zeros(3))
    optimizer = kind([p], lr=0.1)
    p.grad = nl.tensor(np.ones(3))
    optimizer.step()
    assert (p.numpy() < 0).all()


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}), ("MultiStepLR", {"milestones": [8, 2, 5]}),
    ("ExponentialLR", {"gamma": 0.9}), ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 12}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 51, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 51, "pct_start": 0.5, "anneal_strategy": "linear",
                    "div_factor": 10.0, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 51}),
    ("OneCycleLR", {"max_lr": 0.3, "epochs": 3, "steps_per_epoch": 17, "three_phase": True,
                    "final_div_factor": 10.0}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 51, "three_phase": True, "anneal_strategy": "linear",
                    "pct_start": 0.2, "base_momentum": 0.5, "max_momentum": 0.9}),
    ("CosineAnnealingLR", {"T_max": 20}), ("CosineAnnealingLR", {"T_max": 50, "eta_min": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules_are_pytorchs(name, options, kind):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    more = {"momentum": 0.9} if kind == "SGD" else {}
    theirs = getattr(torch.optim, kind)([torch.zeros(1, requires_grad=True)], lr=0.4, **more)
    reference = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    ours = getattr(optim, kind)([nn.Parameter([1.0])], lr=0.4, **more)
    schedule = getattr(optim, name)(ours, **options)
    for step in range(50):
        mine, other = ours.param_groups[0], theirs.param_groups[0]
        assert mine["lr"] == pytest.approx(other["lr"], abs=1e-9), step
        for momentum in ("momentum", "betas"):
            assert mine.get(momentum) == pytest.approx(other.get(momentum), abs=1e-9), step
        theirs.step()
        reference.step()
        schedule.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateaus_are_pytorchs(mode, threshold_mode):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    options = {"mode": mode, "threshold_mode": threshold_mode, "factor": 0.5, "patience": 2, "cooldown": 1,
               "threshold": 0.05, "min_lr": 0.01}  # fmt: skip
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    ours = optim.SGD([nn.Parameter([1.0])], lr=0.4)
    schedule = optim.ReduceLROnPlateau(ours, **options)
    rates = set()
    for value in 1 + np.random.default_rng(0).standard_normal(50) * 0.3:
        schedule.step(float(value))
        reference.step(float(value))
        rates.add(ours.param_groups[0]["lr"])
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
    assert len(rates) > 3
    again = optim.ReduceLROnPlateau(ours, **options)
    again.load_state_dict(schedule.state_dict())
    assert again.state_dict() == schedule.state_dict()


def test_moving_average():
    layer = nn.BatchNorm2d(2)
    ema = optim.EMA(layer, decay=0.9)
    expected = layer.weight.numpy().copy()
    for step in range(5):
        layer.weight.assign(np.full(2, step + 2.0))
        layer.running_mean.assign(np.full(2, step))
        ema.update()
        expected = 0.9 * expected + 0.1 * (step + 2.0)
    np.testing.assert_allclose(ema.state_dict()["weight"], expected, rtol=1e-6)
    assert ema.state_dict()["running_mean"].tolist() == [4.0, 4.0]
    with ema.applied() as module:
        np.testing.assert_allclose(module.weight.numpy(), expected, rtol=1e-6)
    assert layer.weight.numpy().tolist() == [6.0, 6.0]
    other = optim.EMA(layer, 0.5)
    other.load_state_dict(ema.state_dict())
    np.testing.assert_array_equal(other.average["weight"], ema.average["weight"])


P, SGD = nn.Parameter([1.0]), optim.SGD([nn.Parameter([1.0])])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.RMSprop([P], eps=-1), "RMSprop: eps=-1"),
        (lambda: optim.Adagrad([P], lr_decay=-1), "Adagrad: lr_decay=-1"),
        (lambda: optim.LARS([P], trust=-1), "LARS: trust=-1"),
        (lambda: optim.LAMB([P], betas=(0.9, 1.0)), "LAMB: betas"),
        (lambda: optim.LAMB([P], eps=-1), "LAMB: eps=-1"),
        (lambda: optim.StepLR(SGD, 0), "step_size=0"),
        (lambda: optim.LinearLR(SGD, 0.0), "start_factor=0.0"),
        (lambda: optim.CosineAnnealingWarmRestarts(SGD, 0), "T_0=0"),
        (lambda: optim.OneCycleLR(SGD, 0.1, 10, anneal_strategy="step"), "'step'"),
        (lambda: optim.ReduceLROnPlateau(SGD, "best"), "mode='best'"),
        (lambda: optim.EMA(nn.ReLU(), 1.0), "decay=1.0"),
    ],
)
def test_options_that_make_no_sense(make, match):
    with pytest.raises(ConfigError, match=match):
        make()
