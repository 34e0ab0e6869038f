"""The functional interface against PyTorch: values and gradients, options crossed."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
from op_samples import assert_close
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite.errors import ShapeError

STRIDES, DILATIONS = [(1, 1), (2, 1), (3, 2)], [(1, 1), (2, 1), (1, 3)]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # PyTorch's, about its own copies
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("padding", [0, (1, 2), "same", "valid"])
def test_conv2d(groups, padding):
    for stride, dilation, bias in product(STRIDES, DILATIONS, [True, False]):
        if padding == "same" and stride != (1, 1):
            continue
        operands = arrays((2, 6, 9, 8), (12, 6 // groups, 3, 2), (12,) if bias else None)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        compare(partial(F.conv2d, **options), partial(T.conv2d, **options), operands)


def test_conv2d_with_a_different_padding_on_each_side():
    x, w = arrays((2, 3, 6, 7), (4, 3, 3, 3))
    compare(
        lambda x, w: F.conv2d(x, w, padding=(0, 1, 2, 3)),
        lambda x, w: T.conv2d(T.pad(x, (1, 3, 0, 2)), w),
        [x, w],
    )


def test_conv2d_float32():
    operands = arrays((2, 32, 14, 14), (64, 32, 3, 3), (64,), dtype=np.float32)
    compare(lambda *t: F.conv2d(*t, padding=1), lambda *t: T.conv2d(*t, padding=1), operands, 1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("output_padding", [0, (1, 0)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
def test_conv_transpose2d(groups, output_padding, padding):
    for stride, dilation, bias in product(STRIDES, DILATIONS, [True, False]):
        if output_padding and max(stride[0], dilation[0]) == 1:
            continue
        operands = arrays((2, 4, 5, 4), (4, 6 // groups, 3, 3), (6,) if bias else None)
        options = {
            "stride": stride, "padding": padding, "output_padding": output_padding,
            "groups": groups, "dilation": dilation,
        }  # fmt: skip
        compare(partial(F.conv_transpose2d, **options), partial(T.conv_transpose2d, **options), operands)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("stride", [None, 1, (3, 2)])
@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
def test_pools(ceil_mode, stride, padding):
    (x,) = arrays((2, 3, 9, 8))
    for kernel, dilation in product([2, (3, 2), 3], [1, (2, 1)]):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        compare(
            partial(F.max_pool2d, kernel_size=kernel, **options),
            partial(T.max_pool2d, kernel_size=kernel, **options),
            [x],
        )
    for kernel, counted in product([2, (3, 2), 3], [True, False]):
        options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": counted}
        compare(
            partial(F.avg_pool2d, kernel_size=kernel, **options),
            partial(T.avg_pool2d, kernel_size=kernel, **options),
            [x],
        )


def test_the_gradient_of_a_tie_goes_to_the_first_maximum():
    x = np.ones((1, 2, 6, 6))
    compare(lambda x: F.max_pool2d(x, 3, 2), lambda x: T.max_pool2d(x, 3, 2), [x])


@pytest.mark.parametrize("size", [1, (3, 2), (9, 8), (4, 3), (11, 5)])
def test_adaptive_avg_pool2d(size):
    operands = arrays((2, 3, 9, 8))
    compare(lambda x: F.adaptive_avg_pool2d(x, size), lambda x: T.adaptive_avg_pool2d(x, size), operands)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, affine, training):
    operands = arrays(shape, *[(3,) if affine else None] * 2)
    running = [np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.1, 3.0])]
    mine, theirs = [nl.tensor(r) for r in running], [torch.tensor(r) for r in running]
    compare(
        lambda x, w, b: F.batch_norm(x, *mine, w, b, training, 0.3, 1e-3),
        lambda x, w, b: T.batch_norm(x, *theirs, w, b, training, 0.3, 1e-3),
        operands,
    )
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a.numpy(), b.numpy(), 1e-12)


def test_batch_norm_without_running_statistics():
    operands = arrays((4, 3, 2, 2), (3,), (3,))
    compare(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: T.batch_norm(x, None, None, w, b, True),
        operands,
    )


def test_batch_norm_of_values_far_from_zero():
    x = 1000 + arrays((8, 4, 6, 6), dtype=np.float32)[0]
    y = F.batch_norm(nl.tensor(x), None, None, training=True)
    exact = T.batch_norm(torch.tensor(x, dtype=torch.float64), None, None, training=True)
    assert_close(y.numpy(), exact.numpy(), 2e-4)  # the inputs themselves are only exact to 6e-5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(reduction, smoothing):
    labels = np.array([1, 0, 4, 4])
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(
        lambda x, t: F.cross_entropy(x, t, **options),
        lambda x, t: T.cross_entropy(x, t, **options),
        [*arrays((4, 5)), labels],
    )


def test_cross_entropy_of_huge_logits_is_finite():
    logits, labels = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 5.0]], np.float32), np.array([1, 1])
    compare(F.cross_entropy, T.cross_entropy, [logits, labels], 1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (F.relu, torch.relu), (F.relu6, T.relu6), (F.sigmoid, torch.sigmoid), (F.tanh, torch.tanh),
        (F.exp, torch.exp), (F.abs, torch.abs), (lambda x: F.log(x * x), lambda x: torch.log(x * x)),
        (lambda x: F.sqrt(x * x + 1), lambda x: torch.sqrt(x * x + 1)),
        (lambda x: F.softmax(x, 1), lambda x: torch.softmax(x, 1)),
        (lambda x: F.log_softmax(x, 0), lambda x: torch.log_softmax(x, 0)),
        (lambda x: F.clamp(x, min=-0.5), lambda x: torch.clamp(x, min=-0.5)),
        (lambda x: F.clamp(x, max=0.5), lambda x: torch.clamp(x, max=0.5)),
        (lambda x: F.pad(x, (1, 2, 0, 3), value=2.0), lambda x: T.pad(x, (1, 2, 0, 3), value=2.0)),
        (lambda x: F.pad(x, (-1, 1)), lambda x: T.pad(x, (-1, 1))),
        (lambda x: F.cat([x, x * 2, x], 2), lambda x: torch.cat([x, x * 2, x], 2)),
        (lambda x: F.maximum(x, 0.3), lambda x: torch.maximum(x, torch.tensor(0.3, dtype=x.dtype))),
        (lambda x: F.minimum(x, -x), lambda x: torch.minimum(x, -x)),
        (lambda x: x.max((0, 2)), lambda x: torch.amax(x, (0, 2))),
        (lambda x: x.mean((1,), keepdim=True), lambda x: x.mean((1,), keepdim=True)),
        (lambda x: x.sum(), lambda x: x.sum()),
        (lambda x: x.transpose(0, -1).reshape(8, -1), lambda x: x.transpose(0, -1).reshape(8, -1)),
        (lambda x: x.permute(2, 0, 1).flatten(1), lambda x: x.permute(2, 0, 1).flatten(1)),
        (lambda x: (1 - x) / (2 + x * x) - 3 * x, lambda x: (1 - x) / (2 + x * x) - 3 * x),
        (lambda x: x**3 + x**2, lambda x: x**3 + x**2),
        (lambda x: (x * 0) ** 0 + (x * 0) ** 1, lambda x: (x * 0) ** 0 + (x * 0) ** 1),
        (lambda x: F.matmul(x, x.transpose(1, 2)), lambda x: torch.matmul(x, x.transpose(1, 2))),
    ],
)  # fmt: skip
def test_elementwise_shape_and_reduction(ours, theirs):
    compare(ours, theirs, arrays((2, 3, 8)))


@pytest.mark.parametrize("a", [(3,), (2, 3), (4, 2, 3), (5, 1, 2, 3)])
@pytest.mark.parametrize("b", [(3,), (3, 2), (4, 3, 2)])
def test_matmul_broadcasts(a, b):
    compare(F.matmul, torch.matmul, arrays(a, b))


@pytest.mark.parametrize("x", [(3,), (4, 3), (2, 5, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(x, bias):
    compare(F.linear, T.linear, arrays(x, (6, 3), (6,) if bias else None))


def test_ties_of_a_reduction_share_the_gradient():
    x = np.array([[1.0, 3.0, 3.0], [3.0, 2.0, 2.0]])
    compare(lambda x: x.max(1), lambda x: torch.amax(x, 1), [x])
    compare(lambda x: x.max(), lambda x: torch.amax(x), [x])


def test_the_gradient_at_a_kink_is_pytorchs():
    x = np.array([[-1.0, 0.0, 6.0, 7.0]])
    compare(F.relu, torch.relu, [x])
    compare(F.abs, torch.abs, [x])
    compare(lambda x: F.clamp(x, 0, 6), lambda x: x.clamp(0, 6), [x])
    compare(lambda x: F.maximum(x, x.detach()), lambda x: torch.maximum(x, x.detach()), [x])


@pytest.mark.parametrize("batch", [0, 1])
def test_an_empty_batch_goes_through(batch):
    x, w = arrays((batch, 3, 8, 8), (4, 3, 3, 3))

    def ours(x, w):
        y = F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2)
        return F.adaptive_avg_pool2d(F.avg_pool2d(y, 2), 1).flatten(1)

    def theirs(x, w):
        y = T.max_pool2d(torch.relu(T.conv2d(x, w, padding=1)), 2)
        return T.adaptive_avg_pool2d(T.avg_pool2d(y, 2), 1).flatten(1)

    compare(ours, theirs, [x, w])
    compare(
        lambda x, w: ours(x.astype("float32"), w.astype("float32")),
        lambda x, w: theirs(x.float(), w.float()),
        [x, w],
        1e-5,
    )


def test_dropout_keeps_the_expectation_and_repeats_from_a_seed():
    x = nl.tensor(np.ones((100, 100)), requires_grad=True)
    nl.manual_seed(3)
    y = F.dropout(x, 0.25)
    nl.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x, 0.25).detach().numpy(), y.detach().numpy())
    assert not np.array_equal(F.dropout(x, 0.25).detach().numpy(), y.detach().numpy())
    assert set(np.unique(y.detach().numpy())) == {0.0, 1 / 0.75}
    assert abs(y.detach().numpy().mean() - 1) < 0.03
    y.backward(np.ones(y.shape))
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert F.dropout(x, 0.25, training=False).detach().numpy().min() == 1


def test_functions_refuse_what_makes_no_sense():
    x = nl.tensor(np.ones((2, 3)))
    for call, match in [
        (lambda: F.cat([]), "at least one"),
        (lambda: F.pad(x, (1,)), "pair up"),
        (lambda: F.pad(x, (1, 1), mode="mirror"), "'mirror' must be one of"),
        (lambda: F.batch_norm(nl.tensor(np.ones(3)), None, None), "must be .N,C"),
        (lambda: F.batch_norm(x, None, None), "needs running_mean"),
        (lambda: F.max_pool2d(nl.tensor(np.ones((1, 1, 4, 4))), (1, 2, 3)), "one integer or"),
    ]:
        with pytest.raises(nl.NnliteError, match=match):
            call()
    with pytest.raises(ShapeError, match="running_mean has shape"):
        F.batch_norm(x, nl.tensor(np.zeros(4)), nl.tensor(np.ones(4)), training=True)
