"""Normalisation within one sample against PyTorch: values and gradients, options crossed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from op_samples import assert_close
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite.errors import NnliteError


@pytest.mark.parametrize("sizes", [(5,), (4, 5), (3, 4, 5)])
def test_layer_norm_and_rms_norm(sizes):
    for weight, bias in product([True, False], repeat=2):
        operands = arrays((2, 3, 4, 5), sizes if weight else None, sizes if bias else None)
        compare(
            lambda x, w, b: F.layer_norm(x, sizes, w, b, 1e-3),
            lambda x, w, b: T.layer_norm(x, sizes, w, b, 1e-3),
            operands,
        )
        compare(
            lambda x, w: F.rms_norm(x, sizes, w), lambda x, w: T.rms_norm(x, sizes, w), operands[:2], 1e-10
        )


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 3, 4), (1, 6, 2, 3, 2)])
def test_group_norm(groups, shape):
    for affine in (True, False):  # PyTorch's backward fails with only one of the two
        operands = arrays(shape, *[(6,) if affine else None] * 2)
        compare(
            lambda x, w, b: F.group_norm(x, groups, w, b, 1e-3),
            lambda x, w, b: T.group_norm(x, groups, w, b, 1e-3),
            operands,
        )


def test_group_norm_in_float32_far_from_zero():
    x = 100 + arrays((2, 8, 12, 12), dtype=np.float32)[0]
    exact = T.group_norm(torch.tensor(x, dtype=torch.float64), 4)
    assert_close(F.group_norm(nl.tensor(x), 4).numpy(), exact.numpy(), 1e-5)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5)])
def test_instance_norm(own, shape):
    running = [np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.1, 3.0])]
    mine, theirs = [nl.tensor(r) for r in running], [torch.tensor(r) for r in running]
    compare(
        lambda x, w, b: F.instance_norm(x, *mine, w, b, own, 0.3, 1e-3),
        lambda x, w, b: T.instance_norm(x, *theirs, w, b, own, 0.3, 1e-3),
        arrays(shape, (3,), (3,)),
    )
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a.numpy(), b.numpy(), 1e-12)


@pytest.mark.parametrize("beta", [0.5, 0.75])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 3, 4)])
def test_local_response_norm(size, shape, beta):
    compare(
        lambda x: F.local_response_norm(x, size, 0.3, beta, 1.5),
        lambda x: T.local_response_norm(x, size, 0.3, beta, 1.5),
        arrays(shape),
    )


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_normalize(p, dim):
    compare(lambda x: F.normalize(x, p, dim), lambda x: T.normalize(x, p, dim), arrays((3, 4, 5)))


def test_normalize_of_nothing_is_nothing():
    x = nl.tensor(np.zeros((2, 3)), requires_grad=True)
    y = F.normalize(x)
    y.backward(np.ones((2, 3)))
    assert not y.numpy().any()
    assert np.isfinite(x.grad.numpy()).all()


def test_what_cannot_be_normalised():
    x = nl.tensor(np.ones((2, 6, 3)))
    for call, match in [
        (lambda: F.layer_norm(x, 6), "must end in normalized_shape"),
        (lambda: F.group_norm(x, 4), "num_groups=4 must divide the 6 channels"),
        (lambda: F.group_norm(x, 0), "num_groups=0"),
        (lambda: F.instance_norm(nl.tensor(np.ones((2, 6, 1)))), "more than one pixel"),
        (lambda: nl.nn.LayerNorm(0), "LayerNorm"),
        (lambda: nl.nn.GroupNorm(4, 6), "num_groups=4 must divide num_channels=6"),
        (lambda: nl.nn.InstanceNorm2d(0), "num_features=0"),
        (lambda: nl.nn.InstanceNorm2d(6)(x), "must be .N,C,H,W"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()
