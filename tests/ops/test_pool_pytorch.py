"""Further pooling and convolution against PyTorch: values and gradients, options crossed."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite.errors import NnliteError


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_places_of_maxima_and_back(ceil_mode):
    (x,) = arrays((2, 3, 7, 8))
    for kernel, stride, padding in product([2, 3, (3, 2)], [None, 2, (1, 2)], [0, 1]):
        options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "return_indices": True}
        y, places = F.max_pool2d(nl.tensor(x), kernel, **options)
        z, expected = T.max_pool2d(torch.tensor(x), kernel, **options)
        np.testing.assert_array_equal(y.numpy(), z.numpy())
        np.testing.assert_array_equal(places.numpy(), expected.numpy())
        if stride is None and not padding:
            compare(
                lambda v, i, k=kernel: F.max_unpool2d(v, i, k, output_size=(7, 8)),
                lambda v, i, k=kernel: T.max_unpool2d(v, i, k, output_size=(7, 8)),
                [*arrays(y.shape), expected.numpy()],
            )
    y, places = F.max_pool1d(nl.tensor(x[0]), 3, return_indices=True)
    np.testing.assert_array_equal(places.numpy(), T.max_pool1d(torch.tensor(x[0]), 3, return_indices=True)[1])


@pytest.mark.parametrize("size", [1, (3, 2), (7, 8), (4, 3), (None, 3), (2, None), None])
def test_adaptive_pools(size):
    operands = arrays((2, 3, 7, 8))
    for name in ("adaptive_max_pool2d", "adaptive_avg_pool2d"):
        compare(partial(getattr(F, name), output_size=size),
                partial(getattr(T, name), output_size=size if size else (None, None)), operands)  # fmt: skip
    layer = nl.nn.AdaptiveMaxPool2d(size, return_indices=True)
    y, places = layer(nl.tensor(operands[0]))
    z, expected = T.adaptive_max_pool2d(torch.tensor(operands[0]), size or (None, None), return_indices=True)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    np.testing.assert_array_equal(places.numpy(), expected.numpy())


def test_adaptive_places_in_one_dimension():
    (x,) = arrays((2, 3, 11))
    y, places = nl.nn.AdaptiveMaxPool1d(4, return_indices=True)(nl.tensor(x))
    z, expected = T.adaptive_max_pool1d(torch.tensor(x), 4, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    np.testing.assert_array_equal(places.numpy(), expected.numpy())


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_a_divisor_of_ones_own(ceil_mode):
    operands = arrays((2, 3, 8, 9))
    for kernel, stride, padding in product([2, 3, (3, 2)], [None, 1, (2, 3)], [0, 1]):
        options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        options["divisor_override"] = 5
        compare(partial(F.avg_pool2d, **options), partial(T.avg_pool2d, **options), operands)
        layer = nl.nn.AvgPool2d(**options)
        np.testing.assert_array_equal(
            layer(nl.tensor(operands[0])).numpy(), F.avg_pool2d(nl.tensor(operands[0]), **options).numpy()
        )


def test_unpooling_in_one_dimension():
    (x,) = arrays((2, 3, 11))
    y, places = nl.nn.MaxPool1d(3, 2, return_indices=True)(nl.tensor(x))
    z, expected = torch.nn.MaxPool1d(3, 2, return_indices=True)(torch.tensor(x))
    np.testing.assert_array_equal(places.numpy(), expected.numpy())
    for size in (None, 11, (2, 3, 12)):
        found = nl.nn.MaxUnpool1d(3, 2)(y, places, output_size=size)
        wanted = torch.nn.MaxUnpool1d(3, 2)(
            z, expected, output_size=None if size is None else [int(np.max(size))]
        )
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    pool, inverse = nl.nn.MaxPool2d(2, return_indices=True), nl.nn.MaxUnpool2d(2)
    (x,) = arrays((2, 3, 6, 8))
    y, places = pool(nl.tensor(x))
    z, expected = torch.nn.MaxPool2d(2, return_indices=True)(torch.tensor(x))
    np.testing.assert_array_equal(inverse(y, places).numpy(), torch.nn.MaxUnpool2d(2)(z, expected).numpy())


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 1.5])
def test_lp_pool(p):
    x = np.abs(arrays((2, 3, 7, 8))[0]) + 0.1  # PyTorch takes no magnitude
    for kernel, stride in product([2, (3, 2)], [None, 1]):
        options = {"norm_type": p, "kernel_size": kernel, "stride": stride}
        compare(partial(F.lp_pool2d, **options), partial(T.lp_pool2d, **options), [x])
    compare(lambda x: F.lp_pool1d(x, p, 3, 2), lambda x: T.lp_pool1d(x, p, 3, 2), [x[0]])


def test_one_dimension():
    (x,) = arrays((2, 4, 11))
    for name, options in [
        ("max_pool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}),
        ("avg_pool1d", {"kernel_size": 3, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
        ("adaptive_avg_pool1d", {"output_size": 3}), ("adaptive_max_pool1d", {"output_size": 4}),
    ]:  # fmt: skip
        compare(partial(getattr(F, name), **options), partial(getattr(T, name), **options), [x])
    for stride, padding, dilation, groups in product([1, 2], [0, 2], [1, 2], [1, 2]):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        operands = [x, *arrays((6, 4 // groups, 3), (6,))]
        compare(partial(F.conv1d, **options), partial(T.conv1d, **options), operands)
        operands = [x, *arrays((4, 6 // groups, 3), (6,))]
        compare(partial(F.conv_transpose1d, **options), partial(T.conv_transpose1d, **options), operands)


@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
def test_unfold_and_fold(stride, padding):
    for kernel, dilation in product([2, (3, 2)], [1, 2]):
        options = {"kernel_size": kernel, "dilation": dilation, "padding": padding, "stride": stride}
        ours, theirs = partial(F.unfold, **options), partial(T.unfold, **options)
        compare(ours, theirs, arrays((2, 3, 8, 9)))
        columns = ours(nl.tensor(arrays((2, 3, 8, 9))[0])).shape
        options["output_size"] = (8, 9)
        compare(partial(F.fold, **options), partial(T.fold, **options), arrays(columns))


def test_what_cannot_be_pooled():
    x = nl.tensor(np.ones((2, 3, 4)))
    for call, match in [
        (lambda: F.max_pool1d(nl.tensor(np.ones((3, 4))), 2), "must be .N,C,L"),
        (lambda: F.max_unpool2d(x, x, 2), "must be .N,C,H,W"),
        (lambda: F.conv1d(x, nl.tensor(np.ones((2, 3)))), "conv1d: weight has shape"),
        (lambda: F.unfold(x, 2), "unfold: x has shape"),
        (lambda: F.fold(x, 4, 2), "fold: x has shape"),
        (lambda: nl.nn.Conv1d(3, 4, 0), "at least 1"),
        (lambda: nl.nn.Conv1d(3, 4, 1, groups=2), "multiples of groups=2"),
        (lambda: nl.nn.Embedding(0, 3), "at least 1"),
        (lambda: F.avg_pool2d(x, 2, divisor_override=0), "divisor_override=0"),
        (lambda: nl.nn.AdaptiveMaxPool2d((None, 0)), "must be at least 1"),
        (lambda: F.adaptive_avg_pool2d(x, None), "must be"),
        (lambda: nl.nn.Embedding.from_pretrained(np.ones(3)), "must be rows"),
        (lambda: nl.nn.Embedding(3, 3, 3), "padding_idx=3"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()


def test_the_embedding_layer():
    rows = arrays((4, 3), dtype=np.float32)[0]
    frozen = nl.nn.Embedding.from_pretrained(rows)
    assert frozen.frozen
    np.testing.assert_array_equal(frozen(np.array([2, 0])).numpy(), rows[[2, 0]])
    layer = nl.nn.Embedding(5, 3, padding_idx=-1)
    assert not layer.weight.numpy()[4].any()
    layer(np.array([[0, 4], [4, 2]])).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [1, 0, 1, 0, 0])
