"""The shipped checks find wrong gradients, and only those."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite.ops import OPS, Op
from nnlite.testing import adjoint_check, gradcheck


def doubled(gradient):
    """An op y = x² whose backward is ``gradient(x, gy)``."""
    relu = OPS["relu"]

    def forward(ctx, x):
        ctx.save(x)
        return x * x

    def backward(ctx, gy, needs):
        return (gradient(ctx.saved[0], gy),)

    op = Op("test_square", "y = x²", "2x", relu.shape, forward, backward, relu.samples, relu.errors, None)
    return lambda x: nl.tensors.apply(op, x)


def leaf(*shape):
    return nl.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def test_a_right_gradient_passes():
    gradcheck(doubled(lambda x, gy: 2 * x * gy), [leaf(2, 3)])
    gradcheck(lambda a, b: (a * b, a + b), [leaf(2, 3), leaf(3)])
    gradcheck(lambda a, n: a * n, [leaf(2), nl.tensor(np.array([1, 2]))])


def test_a_gradient_that_is_wrong_in_one_place_is_named():
    def wrong(x, gy):
        gx = 2 * x * gy
        gx[1, 2] *= 1.001
        return gx

    with pytest.raises(AssertionError, match=r"gradient of input 0 at \(1, 2\): backward says"):
        gradcheck(doubled(wrong), [leaf(2, 3)])


@pytest.mark.parametrize(
    "wrong",
    [lambda x, gy: 2 * x, lambda x, gy: None, lambda x, gy: x * gy, lambda x, gy: 2 * x * gy * np.nan],
)
def test_wrong_gradients_are_found(wrong):
    with pytest.raises(AssertionError):
        gradcheck(doubled(wrong), [leaf(2, 3)])


def test_a_gradient_of_the_wrong_shape_is_found():
    with pytest.raises(AssertionError, match=r"shape \(3,\)"):
        gradcheck(doubled(lambda x, gy: (2 * x * gy).sum(0)), [leaf(2, 3)])


def test_gradcheck_leaves_its_inputs_as_they_were():
    x = leaf(2, 3)
    before = x.numpy().copy()
    gradcheck(lambda x: x * x, [x])
    np.testing.assert_array_equal(x.numpy(), before)
    assert x.grad is None


def test_gradcheck_wants_float64_and_something_to_check():
    with pytest.raises(ValueError, match="must be float64"):
        gradcheck(lambda x: x, [nl.tensor([1.0], requires_grad=True)])
    with pytest.raises(ValueError, match="no input requires gradients"):
        gradcheck(lambda x: x, [nl.tensor(np.ones(2))])


def test_adjoint_check():
    matrix = np.random.default_rng(0).standard_normal((4, 3))
    x, gy = np.ones(3), np.arange(4.0)
    adjoint_check(lambda x: matrix @ x, lambda g: matrix.T @ g, x, gy)
    with pytest.raises(AssertionError, match="<forward"):
        adjoint_check(lambda x: matrix @ x, lambda g: 1.0001 * matrix.T @ g, x, gy)
    with pytest.raises(AssertionError):
        adjoint_check(lambda x: matrix @ x, lambda g: np.full(3, np.nan), x, gy)
