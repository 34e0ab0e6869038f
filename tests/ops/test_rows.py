"""Operations on rows at the edges of what floats hold, and how much resizing remembers."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite import functional as F
from nnlite.ops.resize_taps import Along, Rule, resize_taps
from nnlite.tensors import Tensor


def test_what_is_masked_by_minus_infinity_has_no_weight_at_all():
    x = np.random.default_rng(0).standard_normal((3, 37)).astype(np.float32)
    x[:, 5::2] = -np.inf
    y = F.softmax(Tensor(x), -1).numpy()
    assert (y[:, 5::2] == 0).all()
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)


def test_a_row_with_nan_is_nan_and_the_others_are_not():
    x = np.ones((3, 21), np.float32)
    x[1, 20] = np.nan
    for function in (F.softmax, F.log_softmax):
        y = function(Tensor(x), -1).numpy()
        assert np.isnan(y[1]).all()
        assert not np.isnan(y[[0, 2]]).any()


def test_logits_beyond_what_exp_holds():
    logits = np.array([[1e4, 0.0, -1e4], [-3e38, 3e38, 0.0]], np.float32)
    loss = F.cross_entropy(Tensor(logits), np.array([1, 1]), reduction="none")
    np.testing.assert_array_equal(loss.numpy(), np.array([1e4, 0], np.float32))


def test_ignored_labels_have_no_loss_and_no_gradient():
    x = Tensor(np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32), requires_grad=True)
    labels = np.array([[0, -1, 2]] * 4)
    loss = F.cross_entropy(x, labels, ignore_index=-1, reduction="none", label_smoothing=0.1)
    loss.sum().backward()
    assert (loss.numpy()[:, 1] == 0).all()
    assert (x.grad.numpy()[:, :, 1] == 0).all()
    assert (x.grad.numpy()[:, :, [0, 2]] != 0).all()


def test_the_mean_over_nothing_but_ignored_labels_is_nan():
    loss = F.cross_entropy(Tensor(np.zeros((2, 3), np.float32)), np.array([7, 7]), ignore_index=7)
    assert np.isnan(loss.item())


def test_a_mean_far_from_zero_does_not_drown_the_deviation():
    x = np.random.default_rng(0).standard_normal((5, 300)) + 1e4
    x = x.astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-5)
    # float32 holds these numbers to 5e-4.
    np.testing.assert_allclose(F.layer_norm(Tensor(x), (300,)).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize(("mode", "taps"), [("nearest", 1), ("linear", 2), ("cubic", 4)])
def test_resizing_remembers_a_few_numbers_for_each_row(mode, taps):
    table = resize_taps(Rule(mode=mode), Along(2, 50_000, 100_000, 2.0))
    assert len(table.start) == 100_001
    assert len(table.source) == len(table.weight) <= taps * 100_000
