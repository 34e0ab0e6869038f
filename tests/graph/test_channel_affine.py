"""Scales and shifts per channel: nothing at first, trained alone, and merged into the weights."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import nn
from nnlite.graph import GraphModule, add_channel_affine, trace
from nnlite.optim import SGD
from nnlite.tensors import Tensor

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


class Network(nn.Module):
    """With and without bias, grouped, transposed, and a layer that is used twice."""

    def __init__(self):
        self.a, self.b = nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 3, groups=3)
        self.c, self.twice = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = F.tanh(self.c(F.tanh(self.b(F.tanh(self.a(x))))))
        return self.head(self.twice(F.tanh(self.twice(x))).mean((2, 3)))


@pytest.fixture
def module():
    nl.manual_seed(1)
    graph, leaves = trace(Network(), [Tensor(normal(1, 3, 8, 8))])
    return GraphModule(graph, leaves=leaves)


def test_they_change_nothing_until_they_are_trained(module):
    x = normal(2, 3, 8, 8)
    new, merge = add_channel_affine(module)
    np.testing.assert_array_equal(new.run([x])[0], module.run([x])[0])
    names = [name for name, _ in new.named_parameters() if name.endswith((".scale", ".shift"))]
    assert sum(name.endswith(".scale") for name in names) == 3
    assert sum(name.endswith(".shift") for name in names) == 2
    before = module.run([x])[0]
    merge()
    np.testing.assert_array_equal(module.run([x])[0], before)


def test_what_was_trained_is_merged(module):
    x = normal(4, 3, 8, 8)
    module.freeze()
    frozen = {name: parameter.numpy().copy() for name, parameter in module.named_parameters()}
    new, merge = add_channel_affine(module)
    optimizer = SGD([p for p in new.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(new.train()(Tensor(x)), np.array([0, 1, 1, 0]))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), frozen[name])
    expected = new.run([x])[0]
    merge()
    np.testing.assert_allclose(module.run([x])[0], expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(new.run([x])[0], module.run([x])[0])  # γ is 1 and β 0 again
    assert any(not np.array_equal(p.numpy(), frozen[name]) for name, p in module.named_parameters())
