"""Checkpointed parts give the same gradients and keep less."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import memory, nn
from nnlite.errors import GradientError, OperandError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def network():
    nl.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()
    )


def gradients(run):
    model, x = network(), nl.tensor(INPUT, requires_grad=True)
    nl.manual_seed(5)
    y = run(model, x * 2.0)
    nl.manual_seed(9)  # what happens in between does not matter
    F.dropout(x, 0.5)
    (y * y).sum().backward()
    return [y.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in model.parameters())]


INPUT = normal(2, 3, 6, 6)


def test_the_same_numbers_with_dropout_inside():
    for a, b in zip(gradients(lambda m, x: m(x)), gradients(nl.checkpoint), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_sequence_of_random_numbers_goes_on_as_without():
    def draws(run):
        model = network()
        nl.manual_seed(5)
        run(model, nl.tensor(INPUT, requires_grad=True)).sum().backward()
        return F.dropout(nl.tensor(np.ones(100, np.float32)), 0.5).numpy()

    np.testing.assert_array_equal(draws(lambda m, x: m(x)), draws(nl.checkpoint))


def test_several_inputs_and_outputs_of_which_some_are_not_used():
    def function(a, b, c):
        return a * b, F.relu(c), b.sum()

    a, b, c = (nl.tensor(normal(4), requires_grad=flag) for flag in (True, False, True))
    product, positive, _ = nl.checkpoint(function, a, b, c)
    product.sum().backward(retain_graph=True)
    np.testing.assert_array_equal(a.grad.numpy(), b.numpy())
    assert c.grad is None or not c.grad.numpy().any()
    positive.sum().backward()
    np.testing.assert_array_equal(c.grad.numpy(), (c.numpy() > 0).astype(np.float32))


def test_gradients_without_touching_any_grad():
    model, x = network(), nl.tensor(INPUT, requires_grad=True)
    weight = next(iter(model.parameters()))
    model.eval()
    found = nl.grad(nl.checkpoint(model, x).sum(), [x, weight])
    expected = nl.grad(model(x).sum(), [x, weight])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert x.grad is None and weight.grad is None


def test_parts_within_parts():
    def run(model, x):
        return nl.checkpoint(lambda z: F.relu(nl.checkpoint(model, z)) * 2.0, x)

    for a, b in zip(gradients(lambda m, x: F.relu(m(x)) * 2.0), gradients(run), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_keeps_less():
    layers = [nn.Conv2d(16, 16, 1) for _ in range(8)]

    def part(x):
        for layer in layers[:4]:
            x = F.tanh(layer(x))
        return x

    def kept(run):
        x = nl.tensor(normal(4, 16, 32, 32))
        before = memory.stats().current
        y = run(part, run(part, x))
        held = memory.stats().current - before
        y.sum().backward()
        return held

    plain = kept(lambda function, x: function(x))
    assert kept(nl.checkpoint) < plain / 3


def test_without_gradients_it_is_the_function():
    model, x = network().eval(), nl.tensor(INPUT)
    with nl.no_grad():
        assert not nl.checkpoint(model, x).requires_grad
    model.freeze()
    assert not nl.checkpoint(model, x).requires_grad


def test_mistakes():
    x = nl.tensor(normal(3), requires_grad=True)
    outside = x * 2.0
    with pytest.raises(GradientError, match="computed outside of it; pass it as an input"):
        nl.checkpoint(lambda a: a * outside, x)
    with pytest.raises(OperandError, match="input 1 is a ndarray, not a Tensor"):
        nl.checkpoint(lambda a, b: a, x, normal(3))
    layer = nn.Linear(3, 3)
    y = nl.checkpoint(layer, x).sum()
    layer.weight.assign(normal(3, 3))
    with pytest.raises(GradientError, match="changed in place"):
        y.backward()
