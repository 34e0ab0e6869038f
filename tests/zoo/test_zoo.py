"""The zoo by itself: published sizes, auxiliary heads, initial values, export."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn, zoo
from nnlite.nn import layers
from nnlite.zoo.vgg import VGG11, VGG16

# Parameters as published by torchvision; for LeNet-5 by the paper's layer sizes.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "alexnet": 61_100_840,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "densenet121": 7_978_856,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "googlenet": 13_004_888,
    "inception_v3": 27_161_264,
    "lenet": 61_706,
}
SMALL = {  # without the wide fully connected layers; 224 where the adaptive pooling does nothing
    "vgg11": (lambda n: zoo.VGG(VGG11, False, n, 16), 224),
    "vgg11_bn": (lambda n: zoo.VGG(VGG11, True, n, 16), 32),
    "vgg16": (lambda n: zoo.VGG(VGG16, False, n, 16), 64),
    "vgg16_bn": (lambda n: zoo.VGG(VGG16, True, n, 16), 33),
    "alexnet": (lambda n: zoo.AlexNet(n, 16), 95),
    "inception_v3": (zoo.inception_v3, 75),
    "lenet": (zoo.lenet, 28),
}


@pytest.fixture
def no_draws(monkeypatch):
    """Layers start from zeros: counting needs no random numbers."""
    monkeypatch.setattr(layers, "fan_in_uniform", lambda shape, _: np.broadcast_to(np.float32(0), shape))


def normalised(model: nn.Module) -> nn.Module:
    """Random running statistics, so that a normalisation does something."""
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.assign(rng.normal(0, 0.1, module.num_features))
            module.running_var.assign(rng.uniform(0.5, 1.5, module.num_features))
    return model


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name, no_draws):
    assert sum(p.size for p in getattr(zoo, name)().parameters()) == PARAMETERS[name]


def test_every_network_is_tested():
    builders = {name for name in zoo.__all__ if name[0].islower() and not name.endswith("_weights")}
    assert builders == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_export_agrees_with_onnx_runtime(name, run_ort, normal):
    make, side = SMALL.get(name, (getattr(zoo, name), 32))
    model = normalised(make(num_classes=5) if make is getattr(zoo, name) else make(5)).eval()
    pictures = normal(2, 1 if name == "lenet" else 3, side, side)
    proto = nl.onnx.to_model(model, inputs=[pictures[:1]])
    with nl.no_grad():
        expected = model(nl.tensor(pictures)).numpy()
    (found,) = run_ort(proto, [pictures])
    assert found.shape == expected.shape == (2, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# --------------------------------------------------------------------------------- auxiliary heads


@pytest.mark.parametrize(
    ("make", "outputs", "side"),
    [(zoo.googlenet, zoo.GoogLeNetOutputs, 33), (zoo.inception_v3, zoo.InceptionOutputs, 299)],
)
def test_auxiliary_heads_speak_in_training_only(make, outputs, side, normal):
    model, pictures = make(num_classes=4), nl.tensor(normal(2, 3, side, side))
    with nl.no_grad():
        result = model.train()(pictures)
        assert isinstance(result, outputs)
        assert [logits.shape for logits in result] == [(2, 4)] * len(outputs._fields)
        assert model.eval()(pictures).shape == (2, 4)


def test_inceptions_auxiliary_head_sees_what_the_last_blocks_see(normal):
    class Spy(nn.Module):
        def __init__(self, inner):
            self.inner = inner

        def forward(self, x):
            self.seen = x
            return self.inner(x)

    model = zoo.inception_v3(num_classes=2).train()
    model.AuxLogits, model.Mixed_7a = Spy(nn.Identity()), Spy(model.Mixed_7a)
    with nl.no_grad():
        model(nl.tensor(normal(2, 3, 107, 107)))
    assert model.AuxLogits.seen is model.Mixed_7a.seen


@pytest.mark.parametrize(("make", "count"), [(zoo.googlenet, 6_624_904), (zoo.inception_v3, 23_834_568)])
def test_auxiliary_heads_can_be_left_out(make, count, no_draws, normal):
    model = make(aux_logits=False)
    assert sum(p.size for p in model.parameters()) == count
    with nl.no_grad():
        assert model.train()(nl.tensor(normal(2, 3, 96, 96))).shape == (2, 1000)


# ---------------------------------------------------------------------------------- initial values


def test_the_seed_decides_the_initial_values():
    states = []
    for seed in (1, 1, 2):
        nl.manual_seed(seed)
        states.append(zoo.squeezenet1_1(num_classes=3).state_dict())
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])
    assert not np.array_equal(states[0]["features.0.weight"], states[2]["features.0.weight"])


def test_convolutions_start_with_hes_variance():
    nl.manual_seed(0)
    convolution = zoo.resnet18().layer3[1].conv2
    values = convolution.weight.numpy()
    assert values.mean() == pytest.approx(0, abs=1e-3)
    assert values.var() == pytest.approx(2 / (256 * 3 * 3), rel=0.02)


def test_stochastic_depth_drops_whole_pictures_in_training_only(normal):
    from nnlite.zoo.efficientnet import StochasticDepth

    nl.manual_seed(0)
    layer, x = StochasticDepth(0.25), nl.tensor(np.ones((2000, 2, 1, 1), np.float32))
    y = layer(x).numpy()
    assert np.array_equal(y[:, 0], y[:, 1])
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert (y[:, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert layer.eval()(x) is x
    assert layer.train().freeze()(x) is x
    assert repr(StochasticDepth(0.1)) == "StochasticDepth(p=0.1)"


def test_a_network_learns(normal):
    nl.manual_seed(0)
    model = zoo.squeezenet1_1(num_classes=3).train()
    optimizer = nl.optim.Adam(model.parameters(), lr=1e-3)
    x, labels = nl.tensor(normal(6, 3, 32, 32)), np.array([0, 1, 2, 0, 1, 2])
    losses = []
    for _ in range(30):
        loss = nl.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
