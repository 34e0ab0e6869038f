"""Parameters on the tape: frozen ones cost nothing, changed ones are noticed."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import kernels
from nnlite.errors import GradientError


def leaf(*shape, seed=0):
    return nl.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def launches(function):
    """Names of the kernels that run during ``function()``."""
    return [decision.kernel for decision in kernels.explain(function).decisions]


@pytest.mark.parametrize(
    ("x_needs", "w_needs", "expected"),
    [
        (True, True, ["conv2d_grad_input", "conv2d_grad_weight"]),
        (True, False, ["conv2d_grad_input"]),
        (False, True, ["conv2d_grad_weight"]),
    ],
)
@pytest.mark.parametrize("op", ["conv2d", "linear"])
def test_a_frozen_operand_costs_no_gradient(op, x_needs, w_needs, expected):
    x, w = (leaf(1, 2, 5, 5), leaf(4, 2, 3, 3)) if op == "conv2d" else (leaf(5, 2), leaf(4, 2))
    x.requires_grad, w.requires_grad = x_needs, w_needs
    y = getattr(F, op)(x, w)
    assert launches(lambda: y.backward(np.ones(y.shape))) == expected
    assert (x.grad is not None, w.grad is not None) == (x_needs, w_needs)


def test_nothing_below_the_lowest_trainable_parameter_is_recorded():
    layers = [nl.nn.Conv2d(2, 2, 3, padding=1) for _ in range(4)]
    for layer in layers[:2]:
        layer.freeze()
    x = nl.tensor(np.ones((1, 2, 6, 6), np.float32))
    outputs = []
    for layer in layers:
        x = F.relu(layer(x))
        outputs.append(x)
    assert [y._value is not None for y in outputs] == [False, False, True, True]
    assert launches(lambda: outputs[-1].sum().backward()) == [
        "conv2d_grad_input", "conv2d_grad_weight", "channel_sum",
        "activation_backward", "conv2d_grad_weight", "channel_sum",
    ]  # fmt: skip
    assert all(p.grad is None for layer in layers[:2] for p in layer.parameters())
    assert all(p.grad is not None for layer in layers[2:] for p in layer.parameters())


def test_a_frozen_weight_does_not_keep_the_input_alive():
    x, w = leaf(1, 2, 6, 6), nl.tensor(np.ones((3, 2, 3, 3)))
    y = F.conv2d(x * 2, w)
    assert y._value.node.context.saved[0] is None
    assert y._value.node.context.saved[1] is not None


def test_an_op_on_constants_saves_nothing():
    y = F.relu(nl.tensor([1.0, -1.0]))
    assert y._value is None
    assert y.is_leaf


# --------------------------------------------------------------------------- changes in place


def test_a_parameter_changed_between_forward_and_backward_is_noticed():
    w, x = nl.nn.Parameter(np.ones((3, 3))), leaf(2, 3)
    y = F.linear(x, w).sum()
    w.writable()[0, 0] = 5
    with pytest.raises(GradientError, match="changed in place"):
        y.backward()


def test_so_is_a_frozen_one_whose_values_were_saved():
    w, x = nl.nn.Parameter(np.ones((3, 3)), requires_grad=False), leaf(2, 3)
    y = F.linear(x, w).sum()
    w.assign(np.zeros((3, 3)))
    with pytest.raises(GradientError, match="changed in place"):
        y.backward()


def test_a_change_after_backward_is_fine():
    w, x = nl.nn.Parameter(np.ones((3, 3))), leaf(2, 3)
    for _ in range(2):
        F.linear(x, w).sum().backward()
        w.writable()[...] -= 0.1
    assert w.version == 2
