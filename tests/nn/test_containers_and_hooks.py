"""ModuleList, ModuleDict, hooks, initial values, reparametrised weights, clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import nn
from nnlite.errors import ConfigError, NnliteError


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_module_list():
    layers = nn.ModuleList([nn.Linear(2, 3)]).append(nn.ReLU())
    layers.insert(1, nn.Linear(3, 4))
    assert [type(m).__name__ for m in layers] == ["Linear", "Linear", "ReLU"]
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    layers[0] = nn.Identity()
    del layers[-1]
    assert len(layers) == 2
    assert isinstance(layers[0], nn.Identity)
    with pytest.raises(ConfigError, match="must be a Module"):
        layers.append(3)


def test_module_dict():
    named = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 1), "act": nn.ReLU()})
    named["head"] = nn.Linear(2, 3)
    assert list(named) == list(named.keys()) == ["conv", "act", "head"]
    assert "head" in named
    assert named.pop("act").__class__ is nn.ReLU
    assert list(named.state_dict()) == ["conv.weight", "conv.bias", "head.weight", "head.bias"]
    assert dict(named.items())["conv"] is named["conv"]
    assert len(named.values()) == len(named) == 2
    for name in ("keys", "a.b", "freeze"):
        with pytest.raises(ConfigError, match="cannot name"):
            named[name] = nn.ReLU()
    with pytest.raises(KeyError):
        del named["nothing"]


def test_register_buffer_and_apply():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1)))
    net.register_buffer("count", np.zeros(2, np.float32))
    net.register_buffer("scratch", np.zeros(2), persistent=False)
    net.register_buffer("absent", None)
    net.register_parameter("scale", nn.Parameter([1.0]))
    assert {"count", "scale"} <= set(net.state_dict())
    assert "scratch" not in net.state_dict()
    seen = []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "Linear", "Sequential", "Sequential"]


def test_forward_hooks():
    layer, x = nn.Linear(2, 2), nl.tensor(random(3, 2))
    plain = layer(x).numpy()
    before = layer.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    seen = []
    watch = layer.register_forward_hook(lambda module, args, y: seen.append((module, args[0].numpy())))
    after = layer.register_forward_hook(lambda module, args, y: -y)
    expected = -(2 * (plain - layer.bias.numpy()) + layer.bias.numpy())
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5)
    assert seen[0][0] is layer
    np.testing.assert_array_equal(seen[0][1], 2 * x.numpy())
    for handle in (before, after, watch, watch):
        handle.remove()
    np.testing.assert_array_equal(layer(x).numpy(), plain)
    assert len(seen) == 1


def test_backward_hooks():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    ours, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ours.load_state_dict(theirs.state_dict())
    found, expected = [], []
    ours.register_full_backward_hook(lambda m, gx, gy: found.extend([gx[0], gy[0]]))
    theirs.register_full_backward_hook(lambda m, gx, gy: expected.extend([gx[0], gy[0]]))
    x = random(4, 3)
    F.relu(ours(nl.tensor(x, requires_grad=True))).sum().backward()
    torch.relu(theirs(torch.tensor(x, requires_grad=True))).sum().backward()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), atol=1e-5)
    doubling = ours.register_full_backward_hook(lambda m, gx, gy: (gx[0] * 2,))
    leaf = nl.tensor(x, requires_grad=True)
    F.relu(ours(leaf)).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), 2 * expected[0].numpy(), atol=1e-6)
    doubling.remove()
    ours(nl.tensor(x)).sum().backward()
    assert found[-2] is None, "an input that needs no gradient has none"


INITIALISERS = [
    ("xavier_uniform_", {}, lambda i, o: math.sqrt(2 / (i + o))),
    ("xavier_normal_", {"gain": 2.0}, lambda i, o: 2 * math.sqrt(2 / (i + o))),
    ("kaiming_uniform_", {"nonlinearity": "relu"}, lambda i, o: math.sqrt(2 / i)),
    ("kaiming_normal_", {"mode": "fan_out", "a": 0.5}, lambda i, o: math.sqrt(2 / 1.25 / o)),
    ("normal_", {"std": 0.3}, lambda i, o: 0.3),
    ("uniform_", {"a": -1.0}, lambda i, o: 2 / math.sqrt(12)),
    ("trunc_normal_", {}, lambda i, o: 0.8796),  # of a standard normal cut at two deviations
]


@pytest.mark.parametrize(("name", "options", "std"), INITIALISERS)
def test_initialisers_have_their_standard_deviation(name, options, std):
    nl.manual_seed(0)
    weight = nn.Parameter(np.zeros((64, 32, 3, 3), np.float32))
    assert getattr(nn.init, name)(weight, **options) is weight
    values = weight.numpy()
    assert abs(values.mean()) < 0.02 * std(288, 576) + 0.01
    assert values.std() == pytest.approx(std(288, 576), rel=0.02)
    assert weight.version == 1


def test_other_initialisers():
    weight = nn.Parameter(np.zeros((6, 4, 2), np.float32))
    for shape in [(6, 4), (4, 3, 2)]:
        w = nn.init.orthogonal_(nn.Parameter(np.zeros(shape, np.float32)), gain=3.0).numpy()
        rows = w.T if shape == (6, 4) else w.reshape(4, 6)
        np.testing.assert_allclose(rows @ rows.T, 9 * np.eye(4), atol=1e-5)
    assert (nn.init.constant_(weight, 2.0).numpy() == 2).all()
    assert (nn.init.ones_(weight).numpy() == 1).all()
    assert (nn.init.zeros_(weight).numpy() == 0).all()
    np.testing.assert_array_equal(nn.init.eye_(nn.Parameter(np.zeros((2, 3)))).numpy(), np.eye(2, 3))
    for call, match in [
        (lambda: nn.init.calculate_gain("best"), "'best'"),
        (lambda: nn.init.xavier_normal_(nn.Parameter([1.0])), "no fan"),
        (lambda: nn.init.kaiming_normal_(weight, mode="fan"), "mode='fan'"),
        (lambda: nn.init.trunc_normal_(weight, a=2.0, b=1.0), "must lie below"),
        (lambda: nn.init.eye_(weight), "no matrix"),
        (lambda: nn.init.orthogonal_(nn.Parameter([1.0])), "two axes"),
    ]:
        with pytest.raises(ConfigError, match=match):
            call()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("layer", ["Conv2d", "ConvTranspose2d"])
def test_reparametrised_weights_are_pytorchs(kind, layer):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    ours = getattr(nn.utils, kind)(getattr(nn, layer)(3, 4, 3))
    theirs = getattr(torch.nn.utils, kind)(getattr(torch.nn, layer)(3, 4, 3))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = random(2, 3, 6, 6)
    for training in (True, True, False):
        y = ours.train(training)(nl.tensor(x))
        z = theirs.train(training)(torch.tensor(x))
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-5)
        gy = random(*y.shape, seed=2)
        y.backward(gy)
        z.backward(torch.tensor(gy))
    for (key, p), q in zip(
        sorted(ours.named_parameters()), [q for _, q in sorted(theirs.named_parameters())], strict=True
    ):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), atol=2e-4, err_msg=key)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="no parameter named nothing"):
        getattr(nn.utils, kind)(nn.Linear(2, 2), "nothing")


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping(norm, limit):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    arrays = [random(3, 4), random(5, seed=1)]
    ours = [nn.Parameter(a) for a in arrays] + [nn.Parameter([1.0])]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    for p, q, a in zip(ours, theirs, arrays, strict=False):
        p.grad, q.grad = nl.tensor(a), torch.tensor(a)
    total = nn.utils.clip_grad_norm_(ours, limit, norm)
    assert total == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, limit, norm)), rel=1e-5)
    nn.utils.clip_grad_value_(ours, limit / 10)
    torch.nn.utils.clip_grad_value_(theirs, limit / 10)
    for p, q in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)
    ours[0].grad = nl.tensor(np.full((3, 4), np.nan, np.float32))
    with pytest.raises(NnliteError, match="is nan"):
        nn.utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    with pytest.raises(ConfigError, match="norm_type=0"):
        nn.utils.clip_grad_norm_(ours, 1.0, 0)


def test_parameters_as_a_vector():
    layer = nn.Conv2d(2, 3, 2)
    vector = nn.utils.parameters_to_vector(layer.parameters())
    np.testing.assert_array_equal(vector[:24], layer.weight.numpy().reshape(-1))
    nn.utils.vector_to_parameters(vector * 2, layer.parameters())
    np.testing.assert_array_equal(nn.utils.parameters_to_vector(layer.parameters()), vector * 2)
    with pytest.raises(NnliteError, match="all elements"):
        nn.utils.vector_to_parameters(vector[:3], layer.parameters())
