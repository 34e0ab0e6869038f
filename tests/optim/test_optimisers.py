"""Optimisers: PyTorch's trajectories, groups, what is skipped, saving, errors."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn, optim
from nnlite.errors import ConfigError, ModelError

SHAPES = [(4, 3, 3, 3), (5, 4), (7,), ()]

OPTIONS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.5), "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.02, "amsgrad": True, "betas": (0.8, 0.5)}),
    ("AdamW", {"lr": 0.02, "maximize": True}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "betas": (0.0, 0.99)}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.5, "betas": (0.8, 0.95)}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01, "centered": True, "eps": 1e-3, "momentum": 0.5}),
    ("RMSprop", {"lr": 0.01, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "maximize": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.5}),
]


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), np.float32) for shape in SHAPES]


def feed(parameters, seed):
    """Give every parameter a random gradient; returns them."""
    arrays = weights(seed)
    for parameter, array in zip(parameters, arrays, strict=True):
        parameter.grad = nl.tensor(array)
    return arrays


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_the_trajectory_is_pytorchs(name, options):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    ours = [nn.Parameter(w) for w in weights()]
    theirs = [torch.tensor(w, requires_grad=True) for w in weights()]
    mine, reference = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for step in range(50):
        for tensor, array in zip(theirs, feed(ours, seed=step + 1), strict=True):
            tensor.grad = torch.tensor(array)
        mine.step()
        reference.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_training_a_network_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")

    def layers(m):
        return [m.Conv2d(2, 4, 3), m.BatchNorm2d(4), m.ReLU(), m.Flatten(), m.Linear(64, 3)]

    def groups(net):
        head = {"params": list(net[4].parameters()), "lr": 0.05, "weight_decay": 0.0}
        return [head, {"params": [*net[0].parameters(), *net[1].parameters()]}]

    torch.manual_seed(0)
    ours, theirs = nn.Sequential(*layers(nn)), torch.nn.Sequential(*layers(torch.nn))
    ours.load_state_dict(theirs.state_dict())
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}
    mine, reference = optim.SGD(groups(ours), **options), torch.optim.SGD(groups(theirs), **options)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, labels = rng.standard_normal((8, 2, 6, 6)).astype(np.float32), rng.integers(0, 3, 8)
        mine.zero_grad()
        nl.functional.cross_entropy(ours(nl.tensor(x)), labels).backward()
        mine.step()
        reference.zero_grad()
        torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels)).backward()
        reference.step()
    for name, value in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), atol=1e-5, err_msg=name)


def test_sgd_by_hand():
    p = nn.Parameter([1.0, 2.0])
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5)
    for expected in ([0.5, 1.0], [-0.25, -0.5]):  # v = g, then v = 0.5·1 + 1 = 1.5
        p.grad = nl.tensor([1.0, 2.0])
        optimizer.step()
        np.testing.assert_allclose(p.numpy(), expected)


def test_the_first_step_of_adam_is_lr_whatever_the_scale_of_the_gradient():
    for scale in (1e-3, 1.0, 1e3):
        p = nn.Parameter([1.0, 1.0])
        p.grad = nl.tensor([scale, -scale])
        optim.Adam([p], lr=0.1).step()
        np.testing.assert_allclose(p.numpy(), [0.9, 1.1], rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_only_the_weights_change(name, options):
    parameters = [nn.Parameter(w) for w in weights()]
    optimizer = getattr(optim, name)(parameters, **options)
    for step in range(2):
        arrays = feed(parameters, step)
        kept = [p.grad.numpy().copy() for p in parameters]
        optimizer.step()
        for p, before, array in zip(parameters, kept, arrays, strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), before)
            np.testing.assert_array_equal(array, before)
            assert p.version == step + 1
            assert nl.layout.is_channels_last(p.numpy())


def test_what_has_no_gradient_or_is_frozen_stays():
    a, b, c = (nn.Parameter([1.0]) for _ in range(3))
    optimizer = optim.Adam([a, b, c], weight_decay=0.1)
    a.grad, c.grad = nl.tensor([1.0]), nl.tensor([1.0])
    c.requires_grad = False
    optimizer.step()
    assert [p.version for p in (a, b, c)] == [1, 0, 0]
    assert list(optimizer.state) == [a]
    assert a.numpy()[0] < 1


def test_zero_grad():
    p = nn.Parameter([1.0, 2.0])
    optimizer = optim.SGD([p])
    p.grad = nl.tensor([3.0, 4.0])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.numpy().tolist() == [0, 0]
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is None


# -------------------------------------------------------------------------------------- groups


def test_groups_have_options_of_their_own():
    a, b, c = (nn.Parameter([1.0]) for _ in range(3))
    optimizer = optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.1)
    optimizer.add_param_group({"params": iter([c]), "weight_decay": 0.5})
    for p in (a, b, c):
        p.grad = nl.tensor([1.0])
    optimizer.step()
    np.testing.assert_allclose([p.numpy()[0] for p in (a, b, c)], [0.0, 0.9, 1 - 0.1 * 1.5], rtol=1e-6)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert a.numpy()[0] == 0
    assert "weight_decay=0.5" in repr(optimizer)


P = nn.Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.SGD([]), "SGD: group 0 has no parameters"),
        (lambda: optim.SGD([{"params": [P]}, {"params": []}]), "group 1 has no parameters"),
        (lambda: optim.SGD([P, P]), r"shape \[1\] appears twice"),
        (lambda: optim.SGD([{"params": [P]}, {"params": [P]}]), "appears twice"),
        (lambda: optim.SGD([nl.tensor([1.0])]), "Tensor is no nn.Parameter"),
        (lambda: optim.SGD([{"params": [P], "rate": 1}]), "unknown option rate; there are lr"),
        (lambda: optim.SGD([{"lr": 1}]), "must be a group with 'params'"),
        (lambda: optim.SGD([{"params": [P]}, nn.Parameter([1.0])]), "must be a group"),
        (lambda: optim.SGD([P], lr=-1), "SGD: lr=-1 must not be negative"),
        (lambda: optim.SGD([P], lr=float("nan")), "lr=nan"),
        (lambda: optim.SGD([P], weight_decay=-1), "weight_decay=-1"),
        (lambda: optim.SGD([P], momentum=-0.1), "momentum=-0.1"),
        (lambda: optim.SGD([P], nesterov=True), "nesterov needs momentum"),
        (lambda: optim.SGD([P], momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs"),
        (lambda: optim.SGD([{"params": [P], "lr": -2}]), "lr=-2"),
        (lambda: optim.Adam([P], betas=(0.9, 1.0)), "Adam: betas"),
        (lambda: optim.AdamW([P], betas=(0.9,)), "AdamW: betas"),
        (lambda: optim.Adam([P], eps=-1), "eps=-1"),
    ],
)
def test_what_cannot_be_optimised(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_a_refused_group_leaves_nothing_behind():
    optimizer = optim.SGD([P])
    with pytest.raises(ConfigError):
        optimizer.add_param_group({"params": [nn.Parameter([1.0])], "lr": -1})
    assert len(optimizer.param_groups) == 1


# ------------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_a_loaded_optimiser_goes_on_where_the_other_stopped(name, options):
    kind = getattr(optim, name)
    ours = [nn.Parameter(w) for w in weights()]
    first = kind([{"params": ours[:2], "lr": 0.02}, {"params": ours[2:]}], **options)
    for step in range(3):
        feed(ours, step)
        first.step()
    copies = [nn.Parameter(p) for p in ours]
    second = kind([{"params": copies[:2]}, {"params": copies[2:]}], lr=5.0)
    saved = first.state_dict()
    second.load_state_dict(saved)
    for step in range(3, 6):
        feed(ours, step)
        feed(copies, step)
        first.step()
        second.step()
        for p, q in zip(ours, copies, strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())
    third = kind([nn.Parameter(w) for w in weights()])
    with pytest.raises(ModelError, match=r"saved groups have \[2, 2\] parameters, these have \[4\]"):
        third.load_state_dict(saved)
    assert not third.state


def test_a_saved_state_is_a_snapshot_and_shapes_are_checked():
    p = nn.Parameter([1.0, 2.0])
    optimizer = optim.Adam([p])
    p.grad = nl.tensor([1.0, 1.0])
    optimizer.step()
    saved = optimizer.state_dict()
    kept = saved["state"][0]["mean"].copy()
    optimizer.step()
    np.testing.assert_array_equal(saved["state"][0]["mean"], kept)
    with pytest.raises(ModelError, match=r"mean of parameter 0 has shape \[2\] but must be \[3\]"):
        optim.Adam([nn.Parameter(np.ones(3))]).load_state_dict(saved)
