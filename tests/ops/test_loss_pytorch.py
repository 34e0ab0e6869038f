"""Losses against PyTorch: values and gradients, options crossed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite import nn
from nnlite.errors import NnliteError

REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3), (2, 5, 2, 3)])
def test_cross_entropy(shape, smoothing, reduction):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (shape[0], *shape[2:]))
    labels.flat[1] = -1
    weight = np.array([0.5, 1.0, 2.0, 1.5, 0.25])
    for weighted, ignored in product([True, False], [-1, 3]):
        target = labels if ignored == -1 else np.abs(labels)
        options = {"ignore_index": ignored, "reduction": reduction, "label_smoothing": smoothing}
        mine, theirs = (nl.tensor(weight), torch.tensor(weight)) if weighted else (None, None)
        compare(
            lambda x, t, w=mine, o=options: F.cross_entropy(x, t, w, **o),
            lambda x, t, w=theirs, o=options: T.cross_entropy(x, t, w, **o),
            [*arrays(shape), target],
        )
        options.pop("label_smoothing")
        compare(
            lambda x, t, w=mine, o=options: F.nll_loss(F.log_softmax(x, 1), t, w, **o),
            lambda x, t, w=theirs, o=options: T.nll_loss(T.log_softmax(x, 1), t, w, **o),
            [*arrays(shape), target],
        )
    probabilities = rng.dirichlet(np.ones(5), (shape[0], *shape[2:]))
    probabilities = np.moveaxis(probabilities, -1, 1).copy()
    for w in (None, weight):
        compare(
            lambda x, t, w=w: F.cross_entropy(
                x, t, None if w is None else nl.tensor(w), reduction=reduction, label_smoothing=smoothing
            ),
            lambda x, t, w=w: T.cross_entropy(
                x, t, None if w is None else torch.tensor(w), reduction=reduction, label_smoothing=smoothing
            ),
            [*arrays(shape), probabilities],
        )


def test_nothing_but_ignored_labels_is_nan():
    loss = F.cross_entropy(nl.tensor(arrays((2, 3))[0]), np.array([-100, -100]))
    assert np.isnan(loss.item())


PAIRS = [
    ("mse_loss", {}), ("l1_loss", {}), ("smooth_l1_loss", {}), ("smooth_l1_loss", {"beta": 0.3}),
    ("smooth_l1_loss", {"beta": 0.0}), ("huber_loss", {}), ("huber_loss", {"delta": 0.4}),
    ("binary_cross_entropy_with_logits", {}),
]  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options"), PAIRS)
def test_losses_of_pairs(name, options, reduction):
    options = {**options, "reduction": reduction}
    x, t = arrays((3, 4, 2), (3, 4, 2))
    compare(lambda x: getattr(F, name)(x, t, **options),
            lambda x: getattr(T, name)(x, torch.tensor(t), **options), [x])  # fmt: skip
    if "cross" not in name:
        compare(lambda t: getattr(F, name)(nl.tensor(x), t, **options),
                lambda t: getattr(T, name)(torch.tensor(x), t, **options), [t])  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_weighted_losses_of_pairs(name, reduction):
    x, t, w = arrays((3, 4), (3, 4), (3, 4))
    w = np.abs(w)
    mine, other = nl.tensor(w), torch.tensor(w)
    compare(
        lambda x: getattr(F, name)(x, t, reduction=reduction, weight=mine),
        lambda x: getattr(T, name)(x, torch.tensor(t), reduction=reduction, weight=other),
        [x],
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("p", [1, 2])
def test_multi_margin_loss(p, reduction):
    x, w = arrays((4, 5), (5,))
    labels, options = np.array([0, 4, 2, 2]), {"p": p, "margin": 0.7, "reduction": reduction}
    for weight in (None, np.abs(w)):
        mine, other = (None, None) if weight is None else (nl.tensor(weight), torch.tensor(weight))
        compare(
            lambda x, t, w=mine: F.multi_margin_loss(x, t, weight=w, **options),
            lambda x, t, w=other: T.multi_margin_loss(x, t, weight=w, **options),
            [x, labels],
        )


@pytest.mark.parametrize(
    "name", ["CrossEntropyLoss", "NLLLoss", "MultiMarginLoss", "BCELoss", "BCEWithLogitsLoss"]
)
def test_weights_are_saved_with_the_loss(name):
    weight = np.array([0.5, 1.0, 2.0], np.float32)
    options = {"weight": weight} | ({"pos_weight": 2 * weight} if "Logits" in name else {})
    ours = getattr(nn, name)(**options)
    theirs = getattr(torch.nn, name)(**{k: torch.tensor(v) for k, v in options.items()})
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    weight[:] = 0  # it was copied
    other = getattr(nn, name)(**{k: np.ones(3, np.float32) for k in options})
    other.load_state_dict(ours.state_dict())
    x = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)).astype(np.float32)
    target = np.array([0, 1, 2, 2]) if name[0] != "B" else (x > 0.5).astype(np.float32)
    expected = theirs(torch.tensor(x), torch.tensor(target)).item()
    assert other(nl.tensor(x), target).item() == pytest.approx(expected, rel=1e-5)
    assert not list(ours.parameters())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy(reduction):
    x, w = np.random.default_rng(0).uniform(0.01, 0.99, (2, 3, 4))
    t = (arrays((3, 4))[0] > 0) * 1.0
    weight = nl.tensor(w), torch.tensor(w)
    compare(
        lambda x: F.binary_cross_entropy(x, t, weight[0], reduction),
        lambda x: T.binary_cross_entropy(x, torch.tensor(t), weight[1], reduction=reduction),
        [x],
    )
    compare(
        lambda x: F.binary_cross_entropy_with_logits(30 * x, t, weight[0], reduction, weight[0]),
        lambda x: T.binary_cross_entropy_with_logits(
            30 * x, torch.tensor(t), weight[1], reduction=reduction, pos_weight=weight[1]
        ),
        arrays((3, 4)),
    )
    ends = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    found = F.binary_cross_entropy(nl.tensor(ends[0]), ends[1], reduction="none").numpy()
    np.testing.assert_allclose(found, [0, 0, 100, 100])


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # PyTorch's advice
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
def test_kl_div(reduction):
    logs = np.log(np.random.default_rng(1).dirichlet(np.ones(4), 3))
    target = np.random.default_rng(2).dirichlet(np.ones(4), 3)
    target[0] = [0, 0.5, 0.5, 0]
    compare(lambda x: F.kl_div(x, target, reduction),
            lambda x: T.kl_div(x, torch.tensor(target), reduction=reduction), [logs])  # fmt: skip
    compare(
        lambda x: F.kl_div(x, logs, reduction, True),
        lambda x: T.kl_div(x, torch.tensor(logs), reduction=reduction, log_target=True),
        [logs - 1],
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_margins_and_distances(reduction):
    a, b, c = arrays((4, 5), (4, 5), (4, 5))
    sign, signs = np.array([1.0, -1, 1, -1]), np.where(a > 0.3, 1.0, -1.0)

    def both(name, operands, target, *options):
        compare(
            lambda *t: getattr(F, name)(*t, target, *options, reduction=reduction),
            lambda *t: getattr(T, name)(*t, torch.tensor(target), *options, reduction=reduction),
            operands,
        )

    both("hinge_embedding_loss", [b], signs, 0.7)
    both("soft_margin_loss", [b], signs)
    both("cosine_embedding_loss", [a, b], sign, 0.1)
    both("margin_ranking_loss", [a, b], signs, 0.2)
    for p, swap in product([1, 2, 3], [True, False]):
        options = {"p": float(p), "swap": swap, "margin": 2.0, "reduction": reduction}
        compare(lambda *t, o=options: F.triplet_margin_loss(*t, **o),
                lambda *t, o=options: T.triplet_margin_loss(*t, **o), [a, b, c])  # fmt: skip
    compare(F.pairwise_distance, T.pairwise_distance, [a, b])
    for p in (1.0, 3.0, np.inf):
        compare(lambda *t, p=p: F.pairwise_distance(*t, p=p, keepdim=True),
                lambda *t, p=p: T.pairwise_distance(*t, p=p, keepdim=True), [a, b])  # fmt: skip
        compare(lambda x, p=p: F.normalize(x, p, 0), lambda x, p=p: T.normalize(x, p, 0), [a])
    compare(F.cosine_similarity, T.cosine_similarity, [a, b])


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2}, 0),
        ("NLLLoss", {"ignore_index": 1}, 0), ("KLDivLoss", {"reduction": "batchmean"}, 2),
        ("MSELoss", {}, 2), ("L1Loss", {"reduction": "sum"}, 2), ("SmoothL1Loss", {"beta": 0.5}, 2),
        ("HuberLoss", {"delta": 0.5}, 2), ("BCEWithLogitsLoss", {}, 2),
        ("SoftMarginLoss", {}, 2), ("TripletMarginLoss", {"margin": 0.5, "swap": True}, 3),
        ("CosineSimilarity", {"dim": 1}, 2), ("PairwiseDistance", {"p": 3.0, "keepdim": True}, 2),
        ("MultiMarginLoss", {"p": 2}, 0),
    ],
)  # fmt: skip
def test_modules(name, options, count):
    operands = [np.abs(a) for a in arrays(*[(4, 5)] * max(count, 1))]
    if not count:
        operands.append(np.array([0, 1, 4, 3]))
    ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
    found = ours(*map(nl.tensor, operands)).numpy()
    np.testing.assert_allclose(found, theirs(*map(torch.tensor, operands)).numpy(), rtol=1e-9)
    assert repr(ours).startswith(name)


def test_losses_refuse_what_makes_no_sense():
    x = nl.tensor(np.ones((2, 3)))
    for call, match in [
        (lambda: F.mse_loss(x, np.ones(3)), "mse_loss: target .3. must have the shape"),
        (lambda: F.mse_loss(x, x, "max"), "reduction='max'"),
        (lambda: F.huber_loss(x, x, delta=0.0), "delta=0.0"),
        (lambda: F.smooth_l1_loss(x, x, beta=-1.0), "beta=-1.0"),
        (lambda: F.cross_entropy(x, np.array([0, 7])), "label 7"),
        (lambda: F.cross_entropy(x, np.ones((2, 4))), "must have the shape"),
        (lambda: F.cross_entropy(x, np.array([0, -100]), label_smoothing=1.0), "label_smoothing=1.0"),
        (lambda: nn.MSELoss(reduction="max"), "MSELoss: reduction='max'"),
        (lambda: F.mse_loss(x, x, weight=nl.tensor([1.0])), "must have the shape"),
        (lambda: F.multi_margin_loss(x, np.array([0, 1]), 3), "p=3 must be 1 or 2"),
        (lambda: F.multi_margin_loss(x, np.array([0.0, 1.0])), "N integers"),
        (lambda: F.pairwise_distance(x, x, 0.0), "is no norm"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()
