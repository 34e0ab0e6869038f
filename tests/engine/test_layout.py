"""Channels-last: what counts as such, what is copied, and that the copies are counted."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import layout


def channels_last_array(*shape: int) -> np.ndarray:
    n, c, *rest = shape
    size = int(np.prod(shape))
    return np.moveaxis(np.arange(size, dtype=np.float32).reshape(n, *rest, c), -1, 1)


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 3, 4), (0, 3, 4, 4)]
)
def test_a_channels_last_array_is_taken_as_it_is(shape):
    array = channels_last_array(*shape)
    before = layout.copies()
    assert layout.is_channels_last(array)
    assert layout.channels_last(array) is array
    assert layout.copies() == before


def test_strides_of_axes_of_size_one_mean_nothing():
    array = np.lib.stride_tricks.as_strided(np.zeros(12, np.float32), (1, 3, 4, 1), (999, 4, 12, 777))
    assert layout.is_channels_last(array)
    assert layout.is_channels_last(np.zeros((5, 7, 1, 1))), "a C-ordered array without pixels is both"


def test_another_order_is_copied_and_counted():
    array = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    copies, size = layout.copies(), layout.copied_bytes()
    result = layout.channels_last(array)
    assert layout.is_channels_last(result)
    np.testing.assert_array_equal(result, array)
    assert (layout.copies() - copies, layout.copied_bytes() - size) == (1, array.nbytes)
    assert not layout.is_channels_last(channels_last_array(2, 3, 4, 6)[..., ::2])
    assert not layout.is_channels_last(channels_last_array(2, 4, 4, 6)[:, 1:])
    assert layout.is_channels_last(channels_last_array(4, 3, 4, 6)[1:]), "a part of the batch is whole"


def test_contiguous_copies_only_what_is_not():
    array = np.zeros((3, 4))
    copies = layout.copies()
    assert layout.contiguous(array) is array
    assert layout.contiguous(array.T).flags.c_contiguous
    assert layout.copies() == copies + 1


def test_rows_are_a_view():
    array = channels_last_array(2, 3, 4, 5)
    rows = layout.rows(array)
    assert rows.shape == (40, 3)
    assert np.shares_memory(rows, array)
    np.testing.assert_array_equal(rows[7], array[0, :, 1, 2])
    with pytest.raises(AssertionError, match="channels-last"):
        layout.rows(np.zeros((2, 3, 4, 5)))


def test_each_thread_counts_its_own_copies():
    counted = []

    def work():
        layout.channels_last(np.zeros((1, 2, 3, 4)))
        counted.append(layout.copies())

    thread = threading.Thread(target=work)
    before = layout.copies()
    thread.start()
    thread.join()
    assert counted == [1]
    assert layout.copies() == before


def test_a_network_copies_its_input_and_nothing_else():
    model = nl.nn.Sequential(
        nl.nn.Conv2d(3, 8, 3, padding=1), nl.nn.BatchNorm2d(8), nl.nn.ReLU(), nl.nn.MaxPool2d(2),
        nl.nn.Conv2d(8, 8, 3, groups=8), nl.nn.ReLU6(), nl.nn.AdaptiveAvgPool2d(1), nl.nn.Flatten(),
        nl.nn.Linear(8, 5),
    )  # fmt: skip
    x = nl.tensor(np.random.default_rng(0).standard_normal((2, 3, 10, 10)).astype(np.float32))
    before = layout.copies()
    loss = F.cross_entropy(model(x), np.array([0, 1]))
    assert layout.copies() - before == 1, "the input, in row-major order"
    loss.backward()
    assert layout.copies() - before == 1, "gradients arrive in the order that backward wants"
    x = nl.asarray(layout.channels_last(x.numpy()))
    before = layout.copies()
    model(x)
    assert layout.copies() == before
