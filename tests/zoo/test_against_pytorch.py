"""The zoo against networks written anew in PyTorch: names, outputs, gradients, training."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn, zoo
from nnlite.zoo.vgg import VGG11, VGG16

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here; install nnlite[oracle]")

import torch_inception as inceptions  # noqa: E402
import torch_zoo as nets  # noqa: E402

CLASSES, HIDDEN = 7, 24
FOUR = [3, 4, 6, 3]

# Ours, the oracle, side of the picture. Wide fully connected layers are narrowed: they add time, not insight.
MODELS = {
    "resnet18": (zoo.resnet18, lambda c: nets.resnet(nets.basic, [2, 2, 2, 2], c), 32),
    "resnet34": (zoo.resnet34, lambda c: nets.resnet(nets.basic, FOUR, c), 32),
    "resnet50": (zoo.resnet50, lambda c: nets.resnet(nets.bottleneck, FOUR, c), 32),
    "resnet101": (zoo.resnet101, lambda c: nets.resnet(nets.bottleneck, [3, 4, 23, 3], c), 32),
    "resnext50_32x4d": (
        zoo.resnext50_32x4d, lambda c: nets.resnet(nets.bottleneck, FOUR, c, groups=32, base=4), 32,
    ),
    "vgg11": (lambda num_classes: zoo.VGG(VGG11, False, num_classes, HIDDEN),
              lambda c: nets.vgg(nets.A, c, False, HIDDEN), 32),
    "vgg11_bn": (lambda num_classes: zoo.VGG(VGG11, True, num_classes, HIDDEN),
                 lambda c: nets.vgg(nets.A, c, True, HIDDEN), 32),
    "vgg16": (lambda num_classes: zoo.VGG(VGG16, False, num_classes, HIDDEN),
              lambda c: nets.vgg(nets.D, c, False, HIDDEN), 32),
    "alexnet": (lambda num_classes: zoo.AlexNet(num_classes, HIDDEN),
                lambda c: nets.alexnet(c, HIDDEN), 63),
    "squeezenet1_0": (zoo.squeezenet1_0, lambda c: nets.squeezenet("1_0", c), 32),
    "squeezenet1_1": (zoo.squeezenet1_1, lambda c: nets.squeezenet("1_1", c), 32),
    "densenet121": (zoo.densenet121, lambda c: nets.densenet([6, 12, 24, 16], 32, c), 32),
    "mobilenet_v2": (zoo.mobilenet_v2, nets.mobilenet_v2, 32),
    "mobilenet_v3_large": (zoo.mobilenet_v3_large, lambda c: nets.mobilenet_v3(nets.LARGE, 1280, c), 32),
    "mobilenet_v3_small": (zoo.mobilenet_v3_small, lambda c: nets.mobilenet_v3(nets.SMALL, 1024, c), 32),
    "efficientnet_b0": (zoo.efficientnet_b0, nets.efficientnet_b0, 32),
    "googlenet": (zoo.googlenet, inceptions.googlenet, 32),
    "inception_v3": (zoo.inception_v3, inceptions.inception_v3, 75),
    "lenet": (zoo.lenet, nets.lenet, 28),
}  # fmt: skip
FAMILIES = [
    "resnet18", "resnext50_32x4d", "vgg11_bn", "alexnet", "squeezenet1_1", "densenet121", "mobilenet_v2",
    "mobilenet_v3_small", "efficientnet_b0", "googlenet", "inception_v3", "lenet",
]  # fmt: skip


def pair(name: str) -> tuple[nn.Module, torch.nn.Module, np.ndarray]:
    """Both models with the same weights, and a batch of two pictures."""
    ours, make, side = MODELS[name]
    torch.manual_seed(0)
    theirs = make(CLASSES)
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # far from the initial values that hide mistakes
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    mine = ours(num_classes=CLASSES)
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    pictures = torch.randn(2, 1 if name == "lenet" else 3, side, side).numpy()
    return mine, theirs, pictures


def without_chance(*models: nn.Module | torch.nn.Module) -> None:
    """No dropout and no stochastic depth: both would draw other numbers."""
    for model in models:
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0


def close(actual: np.ndarray, expected: torch.Tensor, tolerance: float, what: str = "") -> None:
    wanted = expected.detach().numpy()
    assert actual.shape == wanted.shape, what
    error = np.abs(actual - wanted).max() / max(wanted.std(), 1e-3 * np.abs(wanted).max(), 1e-30)
    assert error < tolerance, f"{what}: {error:.1e}"


@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_and_outputs(name):
    mine, theirs, pictures = pair(name)  # loads strictly: every name and shape is the oracle's
    mine.eval()
    theirs.eval()
    with nl.no_grad(), torch.no_grad():
        close(mine(nl.tensor(pictures)).numpy(), theirs(torch.tensor(pictures)), 1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients(name):
    mine, theirs, pictures = pair(name)
    mine.eval()
    theirs.eval()
    weights = np.random.default_rng(0).standard_normal((2, CLASSES)).astype(np.float32)
    x, t = nl.tensor(pictures, requires_grad=True), torch.tensor(pictures, requires_grad=True)
    (mine(x) * weights).sum().backward()
    (theirs(t) * torch.tensor(weights)).sum().backward()
    assert x.grad is not None and t.grad is not None
    pairs = {"input": (x.grad.numpy(), t.grad.numpy())}
    gradients = {key: p.grad for key, p in theirs.named_parameters()}
    for key, parameter in mine.named_parameters():
        if gradients[key] is None:  # an auxiliary head
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, key
            pairs[key] = parameter.grad.numpy(), gradients[key].numpy()
    # In norms: rounding may lead one picture's pixel to the other side of a ReLU's kink or a maximum.
    errors = {key: np.linalg.norm(a - b) / np.linalg.norm(b) for key, (a, b) in pairs.items()}
    assert max(errors.values()) < 0.02, max(errors, key=errors.__getitem__)
    assert np.median(list(errors.values())) < 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_training_outputs_and_running_statistics(name):
    mine, theirs, pictures = pair(name)
    side = {"inception_v3": 299, "lenet": 28}.get(name, 96)
    pictures = torch.randn(2, pictures.shape[1], side, side).numpy()
    without_chance(mine, theirs)
    mine.train()
    theirs.train()
    with torch.no_grad(), nl.no_grad():
        expected = theirs(torch.tensor(pictures))
        found = mine(nl.tensor(pictures))
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            close(one.numpy(), other, 0.02, f"output {number}")
    else:
        close(found.numpy(), expected, 0.02)
    state = mine.state_dict()
    for key, value in theirs.state_dict().items():
        if "running" in key:
            close(state[key], value, 0.01, key)


def test_transform_input_is_torchvisions():
    mine, theirs, pictures = pair("googlenet")
    mine.eval()
    mine.transform_input = True
    theirs.eval()
    x = torch.tensor(pictures)
    factors = [(0.229, 0.485), (0.224, 0.456), (0.225, 0.406)]
    channels = [x[:, i] * (d / 0.5) + (m - 0.5) / 0.5 for i, (d, m) in enumerate(factors)]
    with torch.no_grad(), nl.no_grad():
        close(mine(nl.tensor(pictures)).numpy(), theirs(torch.stack(channels, 1)), 1e-4)
