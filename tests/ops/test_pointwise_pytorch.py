"""Activations, arithmetic and logic against PyTorch: values and gradients, kinks and extremes too."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from op_samples import assert_close
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite.errors import NnliteError
from nnlite.kernels.reference.erf import erf

ACTIVATIONS = [
    ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.3}), ("elu", {}), ("elu", {"alpha": 0.4}),
    ("selu", {}), ("celu", {}), ("celu", {"alpha": 2.5}), ("gelu", {}), ("gelu", {"approximate": "tanh"}),
    ("silu", {}), ("mish", {}), ("hardswish", {}), ("hardsigmoid", {}), ("hardtanh", {}),
    ("hardtanh", {"min_val": -2.0, "max_val": 0.5}), ("softplus", {}),
    ("softplus", {"beta": 3.0, "threshold": 2.0}), ("logsigmoid", {}), ("softsign", {}), ("tanhshrink", {}),
    ("hardshrink", {}), ("hardshrink", {"lambd": 1.5}), ("softshrink", {}), ("softshrink", {"lambd": 1.5}),
    ("threshold", {"threshold": 0.5, "value": -3.0}), ("glu", {}), ("glu", {"dim": 0}),
    ("softmin", {"dim": 1}), ("relu6", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_activations(name, options):
    ours, theirs = partial(getattr(F, name), **options), partial(getattr(T, name), **options)
    (x,) = arrays((4, 3, 6))
    # PyTorch computes hardsigmoid in float64 with a float32 sixth.
    compare(ours, theirs, [3 * x], 1e-7 if name == "hardsigmoid" else 1e-11)
    compare(ours, theirs, [(3 * x).astype(np.float32)], 2e-6)


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_the_gradient_at_a_kink_and_far_out(name, options):
    if name in ("glu", "softmin"):
        return
    x = np.array([-700.0, -30, -6, -3, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 3, 6, 30, 700])
    if name in ("hardtanh", "relu6"):  # they are clamp here, with torch.clamp's gradient at a bound
        x += 0.01
    tolerance = 1e-7 if name == "hardsigmoid" else 1e-11
    compare(partial(getattr(F, name), **options), partial(getattr(T, name), **options), [x], tolerance)


@pytest.mark.parametrize("slopes", [1, 3])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5)])
def test_prelu(slopes, shape):
    compare(F.prelu, T.prelu, arrays(shape, (slopes,)))


@pytest.mark.parametrize(
    "name",
    ["erf", "reciprocal", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
     "atanh", "floor", "ceil", "round", "sign", "rsqrt", "square", "exp", "abs"],
)  # fmt: skip
def test_arithmetic(name):
    x = np.random.default_rng(0).uniform(0.05, 0.95, (3, 4)) + (1 if name == "acosh" else 0)
    compare(getattr(F, name), getattr(torch, name), [x], 1e-10)
    if name in ("floor", "ceil", "round", "sign"):
        compare(getattr(F, name), getattr(torch, name), [np.array([-2.5, -1, -0.5, 0, 0.5, 1.5, 2.5])])


@pytest.mark.parametrize("name", ["remainder", "fmod"])
def test_remainders(name):
    a, b = arrays((4, 5), (5,))
    compare(getattr(F, name), getattr(torch, name), [5 * a, b + np.sign(b)])
    i, j = np.array([7, -7, 7, -7]), np.array([3, 3, -3, -3])
    found = getattr(F, name)(nl.tensor(i), nl.tensor(j)).numpy()
    np.testing.assert_array_equal(found, getattr(torch, name)(torch.tensor(i), torch.tensor(j)).numpy())


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(name):
    a, b = np.array([[1.0, 2.0, np.nan]]), np.array([[1.0], [2.0], [3.0]])
    found = getattr(F, name)(nl.tensor(a), nl.tensor(b))
    expected = getattr(torch, name)(torch.tensor(a), torch.tensor(b))
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert found.dtype == np.bool_
    assert not getattr(F, name)(nl.tensor(a, requires_grad=True), 1.0).requires_grad


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic(name):
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    found = getattr(F, name)(nl.tensor(a), nl.tensor(b)).numpy()
    np.testing.assert_array_equal(found, getattr(torch, name)(torch.tensor(a), torch.tensor(b)).numpy())
    np.testing.assert_array_equal(F.logical_not(nl.tensor(a)).numpy(), ~a)


def test_where_with_tensors_and_numbers():
    condition = np.array([[True], [False]])
    compare(F.where, torch.where, [condition, *arrays((2, 3), (3,))])
    compare(
        lambda c, x: F.where(c, 2.0, F.where(c, x, 0.5)),
        lambda c, x: torch.where(c, 2.0, torch.where(c, x, 0.5)),
        [condition, *arrays((2, 3))],
    )
    with pytest.raises(NnliteError, match="both numbers"):
        F.where(nl.tensor(condition), 1.0, 2.0)


def test_erf_is_exact_to_the_last_places():
    x = np.concatenate([np.linspace(-7, 7, 20001), [0.46875, 4.0, 1e-300, 1e200, np.inf, -np.inf]])
    exact = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf(x), exact, rtol=6e-16, atol=0)
    single = x[np.abs(x) < 1e30].astype(np.float32)
    exact = np.array([math.erf(v) for v in single])
    assert np.abs(erf(single) - exact).max() < 2e-7
    assert erf(single).dtype == np.float32
    assert np.isnan(erf(np.array([np.nan]))).all()


def test_activations_refuse_what_makes_no_sense():
    x = nl.tensor(np.ones((2, 3)))
    for call, match in [
        (lambda: F.glu(x), "must be of even size"),
        (lambda: F.glu(x, 2), "axis 2"),
        (lambda: F.prelu(x, nl.tensor(np.ones(2))), "2 slopes"),
        (lambda: F.gelu(x, "erf"), "gelu: approximate='erf'"),
        (lambda: F.softplus(x, beta=-1.0), "softplus: beta=-1.0"),
        (lambda: F.celu(x, 0.0), "celu: alpha=0"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()


def test_nan_goes_through():
    x = nl.tensor(np.array([np.nan, 1.0]))
    for name, options in ACTIVATIONS:
        if name not in ("glu", "softmin", "threshold"):
            y = getattr(F, name)(x, **options).numpy()
            assert np.isnan(y[0]), name
            assert not np.isnan(y[1]), name
    assert_close(F.isnan(x).numpy(), np.array([True, False]), 0)
