"""Steps taken while backward still runs: the same bits as afterwards, fewer gradients at a time."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import memory, nn, optim
from nnlite.errors import ConfigError, GradientError


class Net(nn.Module):
    """Convolutions, one of them used twice, and a part that is checkpointed."""

    def __init__(self) -> None:
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.shared(F.relu(self.first(x))))
        x = F.relu(self.norm(self.shared(x)))
        return nl.checkpoint(lambda y: self.last(y.mean((2, 3))), x)


def trained(make, in_backward):
    nl.manual_seed(3)
    net, rng = Net(), np.random.default_rng(0)
    optimizer = make(net.parameters())
    for _ in range(4):
        x = nl.tensor(rng.standard_normal((5, 3, 9, 9)).astype(np.float32))
        loss = F.cross_entropy(net(x), rng.integers(0, 4, 5))
        if in_backward:
            optimizer.step_in_backward(loss)
            assert all(p.grad is None for p in net.parameters())
        else:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: p.numpy().copy() for name, p in net.named_parameters()}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
        lambda p: optim.AdamW(p, lr=1e-2),
    ],
)
def test_the_same_bits(make):
    usual, early = trained(make, False), trained(make, True)
    for name, expected in usual.items():
        assert np.array_equal(early[name], expected), name


def test_gradients_do_not_live_together():
    size, depth = 256, 12
    layers = nn.Sequential(*(nn.Linear(size, size) for _ in range(depth)))
    x = nl.tensor(np.ones((1, size), np.float32))

    def growth(in_backward):
        optimizer = optim.SGD(layers.parameters(), lr=1e-3)
        loss = layers(x).sum()
        memory.reset_peak()
        before = memory.stats().current
        if in_backward:
            optimizer.step_in_backward(loss)
        else:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return memory.stats().peak - before

    gradient = 4 * size * size
    assert growth(False) > depth * gradient
    assert growth(True) < 5 * gradient  # one, and what the layer at work needs for itself


def test_gradients_of_an_earlier_backward_are_not_lost():
    net = nn.Linear(3, 2)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    x = nl.tensor(np.ones((1, 3), np.float32))
    net(x).sum().backward()
    with pytest.raises(GradientError, match="zero_grad"):
        optimizer.step_in_backward(net(x).sum())


def test_steps_that_need_all_gradients_are_refused():
    class Together(optim.SGD):
        def step(self) -> None:
            super().step()

    net = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match="needs all gradients"):
        Together(net.parameters(), lr=0.1).step_in_backward(net(nl.tensor(np.ones((1, 3), np.float32))).sum())


def test_a_parameter_that_is_the_loss_itself():
    weight = nn.Parameter(np.float32(2.0))
    optim.SGD([weight], lr=0.5).step_in_backward(weight)
    assert weight.item() == 1.5 and weight.grad is None
