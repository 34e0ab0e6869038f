"""Activations that backward computes again instead of keeping them."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from nnlite import functional as F
from nnlite import kernels, memory, nn, random
from nnlite.autograd import TapeNode
from nnlite.ops.record import Context
from nnlite.tensors import Tensor, grad


class Network(nn.Module):
    """Two convolutions, each with batch norm and activation; what joins them is read twice."""

    def __init__(self, training: bool, activation: str) -> None:
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, bias=False)
        self.shortcut = nn.Conv2d(8, 8, 3, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.norms_train, self.activation = training, activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1, self.conv1(x))
        return self.act(self.norm2, self.conv2(y)) + self.shortcut(y)

    def act(self, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        known = {"none": None, "relu": "relu", "relu6": (0.0, 6.0)}[self.activation]
        return F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.norms_train, activation=known
        )


def gradients(training, activation, keep, monkeypatch, backend="auto"):
    """Gradients of all parameters, and how often an array was not kept."""
    random.manual_seed(0)
    model = Network(training, activation)
    deferred = []
    real = Context.defer

    def defer(context, array, again):
        if not keep:
            real(context, array, again)
            deferred.append(len(context.deferred))

    with monkeypatch.context() as patch, kernels.use_backend(backend):
        patch.setattr(Context, "defer", defer)
        x = Tensor(np.random.default_rng(0).standard_normal((4, 3, 9, 8)).astype(np.float32) * 5)
        y = model(x)
        (y * y).sum().backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}, deferred


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_kept_activations_to_the_bit(training, activation, backend, monkeypatch):
    kept, _ = gradients(training, activation, True, monkeypatch, backend)
    computed, deferred = gradients(training, activation, False, monkeypatch, backend)
    assert deferred == [1, 1, 0]  # by both convolutions that read it; the sum of two keeps nothing anyway
    for name, gradient in kept.items():
        assert np.array_equal(gradient, computed[name]), name


def test_the_activation_is_gone_between_forward_and_backward():
    conv, norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
    x = Tensor(np.ones((8, 16, 32, 32), np.float32))
    size = x.numpy().nbytes
    gc.collect()
    before = memory.stats().current
    y = F.relu(conv(F.batch_norm(conv(x), None, None, norm.weight, norm.bias, True, activation="relu")))
    held = memory.stats().current - before
    assert 2 * size <= held < 3.5 * size  # what the norm read, what relu left, and what relu or pool keep
    y.sum().backward()
    assert conv.weight.grad is not None


def test_an_array_that_somebody_holds_is_not_computed_again():
    conv, norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 8, 16, 16)).astype(np.float32))
    x.requires_grad = True
    held = F.batch_norm(x, None, None, norm.weight, norm.bias, True)
    y = conv(held)
    node = y._value.node
    assert isinstance(node, TapeNode)
    [(places, reference, again)] = node.context.deferred
    assert node.context.complete()[places[0]] is reference()
    array = reference()
    del held
    assert np.array_equal(again(), array)


def test_backward_twice_and_gradients_of_a_part():
    conv, norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 8, 16, 16)).astype(np.float32))
    loss = (conv(F.batch_norm(x, None, None, norm.weight, norm.bias, True)) ** 2).sum()
    loss.backward(retain_graph=True)
    first = conv.weight.grad.numpy().copy()
    [part] = grad(loss, [conv.weight])  # the norm is not visited
    assert np.array_equal(part.numpy(), first)


def test_what_is_computed_again_is_what_was_even_where_the_norm_has_changed_since():
    conv, norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 8, 16, 16)).astype(np.float32))
    loss = (conv(F.batch_norm(x, None, None, norm.weight, norm.bias, True)) ** 2).sum()
    [before] = grad(loss, [conv.weight], retain_graph=True)
    for parameter in (norm.weight, norm.bias):
        parameter.writable()[...] = 5
    [after] = grad(loss, [conv.weight])
    assert np.array_equal(before.numpy(), after.numpy())
