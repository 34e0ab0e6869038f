"""Cutting, joining, choosing and sorting against PyTorch: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite.errors import NnliteError

INDEX = np.array([[0, 2, 1, 0], [1, 1, 2, 2]])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: F.split(x, 2, 1)[1] * 2, lambda x: torch.split(x, 2, 1)[1] * 2),
        (lambda x: F.split(x, [1, 4], 1)[1], lambda x: torch.split(x, [1, 4], 1)[1]),
        (lambda x: F.chunk(x, 3, -1)[1], lambda x: torch.chunk(x, 3, -1)[1]),
        (lambda x: F.narrow(x, 1, -3, 2), lambda x: torch.narrow(x, 1, -3, 2)),
        (lambda x: F.unbind(x, 1)[3], lambda x: torch.unbind(x, 1)[3]),
        (lambda x: F.stack([x, 2 * x], 1), lambda x: torch.stack([x, 2 * x], 1)),
        (lambda x: F.stack([x, 2 * x], -1), lambda x: torch.stack([x, 2 * x], -1)),
        (lambda x: F.squeeze(F.unsqueeze(x, -1)), lambda x: x.unsqueeze(-1).squeeze()),
        (lambda x: F.squeeze(x, 1), lambda x: x.squeeze(1)),
        (lambda x: F.expand(F.unsqueeze(x, 1), (2, -1, 4, 5, 4)),
         lambda x: x.unsqueeze(1).expand(2, -1, 4, 5, 4)),
        (lambda x: F.tile(x, (2, 3)), lambda x: torch.tile(x, (2, 3))),
        (lambda x: F.tile(x, (2, 1, 3, 2)), lambda x: torch.tile(x, (2, 1, 3, 2))),
        (lambda x: F.flip(x, (0, 2)), lambda x: torch.flip(x, (0, 2))),
        (lambda x: F.roll(x, -2, 1), lambda x: torch.roll(x, -2, 1)),
        (lambda x: F.index_select(x, 1, np.array([3, 0, 3])),
         lambda x: torch.index_select(x, 1, torch.tensor([3, 0, 3]))),
        (lambda x: F.topk(x, 3, 1).values, lambda x: torch.topk(x, 3, 1).values),
        (lambda x: F.topk(x, 2, largest=False).values, lambda x: torch.topk(x, 2, largest=False).values),
        (lambda x: F.sort(x, 0, True).values, lambda x: torch.sort(x, 0, True).values),
        (lambda x: F.cumsum(x, 1), lambda x: torch.cumsum(x, 1)),
        (lambda x: F.einsum("abc,dbc->ad", x, x), lambda x: torch.einsum("abc,dbc->ad", x, x)),
        (lambda x: F.einsum("abc", x), lambda x: torch.einsum("abc", x)),
        (lambda x: F.einsum("abc->b", x), lambda x: torch.einsum("abc->b", x)),
        (lambda x: F.einsum("...c,...c->...", x, x), lambda x: torch.einsum("...c,...c->...", x, x)),
        (lambda x: F.einsum("a...,b...->ab...", x, x), lambda x: torch.einsum("a...,b...->ab...", x, x)),
        (lambda x: F.einsum("...ij,jk", x, x[0, :4]), lambda x: torch.einsum("...ij,jk", x, x[0, :4])),
        (lambda x: F.einsum("aba->b", x), lambda x: torch.einsum("aba->b", x)),
        (lambda x: F.roll(x, 3), lambda x: torch.roll(x, 3)),
        (lambda x: F.roll(x, (1, -2), (0, 2)), lambda x: torch.roll(x, (1, -2), (0, 2))),
        (lambda x: F.topk(x, 3, 1, sorted=False).values.sum(),
         lambda x: torch.topk(x, 3, 1, sorted=False).values.sum()),
    ],
)  # fmt: skip
def test_cutting_joining_choosing(ours, theirs):
    compare(ours, theirs, arrays((4, 5, 4)))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather_and_scatter(dim):
    index = INDEX if dim else INDEX[:, :3]
    compare(lambda x, i: F.gather(x, dim, i), lambda x, i: torch.gather(x, dim, i), [*arrays((4, 4)), index])
    unique = np.argsort(arrays((4, 4))[0], dim)
    operands = arrays((4, 4), (4, 4))
    # PyTorch's backward fails where src is larger than index.
    few = unique[:2, :3]
    compare(lambda x, s: F.scatter(x, dim, few, s),
            lambda x, s: torch.scatter(x, dim, torch.tensor(few), s[:2, :3]), operands)  # fmt: skip
    part = tuple(slice(n) for n in index.shape)
    compare(lambda x, s: F.scatter_add(x, dim, index, s),
            lambda x, s: torch.scatter_add(x, dim, torch.tensor(index), s[part]), operands)  # fmt: skip
    compare(lambda x: F.scatter(x, dim, unique[:1], 2.5),
            lambda x: torch.scatter(x, dim, torch.tensor(unique[:1]), 2.5), operands[:1])  # fmt: skip


def test_places_are_pytorchs():
    (x,) = arrays((4, 5, 6))
    a, b = nl.tensor(x), torch.tensor(x)
    for ours, theirs in [
        (F.argmax(a), torch.argmax(b)), (F.argmin(a, 1), torch.argmin(b, 1)),
        (F.argmax(a, -1, True), torch.argmax(b, -1, True)), (F.topk(a, 2, 0).indices, torch.topk(b, 2, 0)[1]),
        (F.argsort(a, 1), torch.argsort(b, 1)), (F.sort(a, -1, True).indices, torch.sort(b, -1, True)[1]),
    ]:  # fmt: skip
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert ours.dtype == np.int64
    ties = np.array([2.0, 1, 2, 1, 1])
    for descending in (True, False):
        expected = torch.argsort(torch.tensor(ties), descending=descending, stable=True).numpy()
        found = F.argsort(nl.tensor(ties), descending=descending).numpy()
        np.testing.assert_array_equal(found, expected)


def test_one_hot_and_embedding():
    for classes in (-1, 5):
        found = F.one_hot(INDEX, classes).numpy()
        np.testing.assert_array_equal(found, T.one_hot(torch.tensor(INDEX), classes).numpy())
    for padding in (None, 1, -2):
        compare(
            lambda w, i, p=padding: F.embedding(i, w, p),
            lambda w, i, p=padding: T.embedding(i, w, p),
            [*arrays((3, 4)), INDEX],
        )


@pytest.mark.parametrize("norm", [1.0, 2.0, np.inf])
def test_rows_of_an_embedding_are_limited(norm):
    (rows,) = arrays((5, 3))
    mine, other = nl.nn.Parameter(rows), torch.tensor(rows)
    y = F.embedding(INDEX, mine, max_norm=0.9, norm_type=norm)
    z = T.embedding(torch.tensor(INDEX), other, max_norm=0.9, norm_type=norm)
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-6)
    np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(mine.numpy()[3:], rows[3:])  # not used, not touched
    layer = nl.nn.Embedding(5, 3, max_norm=0.9, norm_type=norm)
    layer.weight.assign(rows)
    np.testing.assert_allclose(layer(INDEX).numpy(), y.numpy(), rtol=1e-6)


def test_what_cannot_be_cut_or_chosen():
    x = nl.tensor(np.ones((4, 5)))
    for call, match in [
        (lambda: F.split(x, 0), "split_size=0"),
        (lambda: F.split(x, [1, 2]), "do not add up to 4"),
        (lambda: F.split(x, 2, 2), "axis 2 is out of range"),
        (lambda: F.chunk(x, 0), "chunks=0"),
        (lambda: F.narrow(x, 0, 3, 2), "do not lie in axis 0"),
        (lambda: F.stack([x, x[0]]), "must be equal"),
        (lambda: F.roll(x, (1, 2)), "need dims"),
        (lambda: F.roll(x, (1, 2), 0), "do not pair up"),
        (lambda: F.expand(x, (5,)), "fewer axes"),
        (lambda: F.one_hot(np.array([0, 5]), 3), "must be 0 to 2"),
        (lambda: F.topk(x, 6), "k=6"),
        (lambda: F.gather(x, 0, np.array([[7]])), "index 7 is out of range"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()
