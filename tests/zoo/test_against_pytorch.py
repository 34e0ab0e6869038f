"""The zoo against networks written anew in PyTorch: names, outputs, gradients, training."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn, zoo
from nnlite.zoo.resnet import BasicBlock, Bottleneck
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
    "vgg16_bn": (lambda num_classes: zoo.VGG(VGG16, True, num_classes, HIDDEN),
                 lambda c: nets.vgg(nets.D, c, True, HIDDEN), 32),
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

# For training one of each family; of those that only repeat blocks, a shallow one. The sides leave more than
# one pixel to the last normalisation. Inception's auxiliary head would need large pictures; see below.
TRAINED = {
    "resnet": (lambda num_classes: zoo.ResNet(BasicBlock, (1, 2, 1, 1), num_classes),
               lambda c: nets.resnet(nets.basic, [1, 2, 1, 1], c), 33),
    "resnext": (lambda num_classes: zoo.ResNet(Bottleneck, (1, 1, 2, 1), num_classes, 32, 4),
                lambda c: nets.resnet(nets.bottleneck, [1, 1, 2, 1], c, groups=32, base=4), 33),
    "vgg11_bn": (*MODELS["vgg11_bn"][:2], 64),
    "alexnet": (*MODELS["alexnet"][:2], 63),
    "squeezenet1_1": (*MODELS["squeezenet1_1"][:2], 33),
    "densenet": (lambda num_classes: zoo.DenseNet((2, 3, 2, 2), 32, num_classes),
                 lambda c: nets.densenet([2, 3, 2, 2], 32, c), 64),
    "mobilenet_v2": (*MODELS["mobilenet_v2"][:2], 33),
    "mobilenet_v3_small": (*MODELS["mobilenet_v3_small"][:2], 33),
    "efficientnet_b0": (*MODELS["efficientnet_b0"][:2], 33),
    "googlenet": (*MODELS["googlenet"][:2], 33),
    "inception_v3": (lambda num_classes: zoo.inception_v3(num_classes=num_classes, aux_logits=False),
                     lambda c: inceptions.inception_v3(c, aux=False), 107),
    "lenet": (*MODELS["lenet"][:2], 28),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine PyTorch's threads wait for each other longer than these small networks take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(ours, make, side: int) -> tuple[nn.Module, torch.nn.Module, np.ndarray]:
    """Both models with the same weights, and a batch of two pictures."""
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
    channels = next(p.shape[1] for p in mine.parameters())
    return mine, theirs, torch.randn(2, channels, side, side).numpy()


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
    mine, theirs, pictures = pair(*MODELS[name])  # loads strictly: every name and shape is the oracle's
    mine.eval()
    theirs.eval()
    with nl.no_grad(), torch.no_grad():
        close(mine(nl.tensor(pictures)).numpy(), theirs(torch.tensor(pictures)), 1e-4)


def in_float64(mine: nn.Module, theirs: torch.nn.Module) -> None:
    """Both models in double precision, where no rounding leads to the other side of a ReLU's kink."""
    theirs.double()
    for module in mine.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, (nn.Parameter, nn.Buffer)):
                setattr(module, name, type(value)(value.numpy().astype(np.float64)))


@pytest.mark.parametrize("name", TRAINED)
def test_training(name):
    """Outputs, gradients of all of them, running statistics."""
    mine, theirs, pictures = pair(*TRAINED[name])
    in_float64(mine, theirs)
    without_chance(mine, theirs)
    compare_gradients(mine.train(), theirs.train(), pictures)
    state = mine.state_dict()
    for key, value in theirs.state_dict().items():
        if "running" in key:
            close(state[key], value, 1e-7, key)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(TRAINED)))
def test_gradients(name):
    """Of those that were not trained above, in evaluation: all of their layers, on small pictures."""
    mine, theirs, pictures = pair(*MODELS[name])
    in_float64(mine, theirs)
    # PyTorch's hardsigmoid multiplies by a sixth in single precision, whatever the type of its input.
    compare_gradients(mine.eval(), theirs.eval(), pictures, 1e-5 if "v3_large" in name else 1e-6)


def compare_gradients(
    mine: nn.Module, theirs: torch.nn.Module, pictures: np.ndarray, tolerance: float = 1e-6
) -> None:
    """Outputs, and the gradients of the input and of all parameters that they depend on."""
    rng = np.random.default_rng(0)
    pictures = pictures.astype(np.float64)
    x, t = nl.tensor(pictures, requires_grad=True), torch.tensor(pictures, requires_grad=True)
    found, expected = mine(x), theirs(t)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    assert len(found) == len(expected)
    loss, other = nl.tensor(np.zeros(())), torch.zeros((), dtype=torch.float64)
    for number, (y, u) in enumerate(zip(found, expected, strict=True)):
        close(y.numpy(), u, 1e-7, f"output {number}")
        weights = rng.standard_normal(y.shape)
        loss, other = loss + (y * weights).sum(), other + (u * torch.tensor(weights)).sum()
    loss.backward()
    other.backward()
    assert x.grad is not None
    close(x.grad.numpy(), t.grad, tolerance, "input")
    gradients = {key: p.grad for key, p in theirs.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
    for key, parameter in mine.named_parameters():
        if gradients[key] is None:  # an auxiliary head, outside of training
            assert parameter.grad is None, key
            continue
        assert parameter.grad is not None, key
        # A bias before a normalisation has no effect: what is left of its gradient is rounding.
        scale = max(float(gradients[key].std(correction=0)), 1e-6 * largest)
        assert np.abs(parameter.grad.numpy() - gradients[key].numpy()).max() < tolerance * scale, key


def test_inceptions_auxiliary_head():
    mine, theirs, _ = pair(*MODELS["inception_v3"])
    in_float64(mine, theirs)
    x = np.random.default_rng(0).standard_normal((2, 768, 17, 17))
    with nl.no_grad(), torch.no_grad():
        close(mine.AuxLogits.eval()(nl.tensor(x)).numpy(), theirs.eval().AuxLogits(torch.tensor(x)), 1e-7)


def test_transform_input_is_torchvisions():
    mine, theirs, pictures = pair(*MODELS["googlenet"])
    mine.eval()
    mine.transform_input = True
    theirs.eval()
    x = torch.tensor(pictures)
    factors = [(0.229, 0.485), (0.224, 0.456), (0.225, 0.406)]
    channels = [x[:, i] * (d / 0.5) + (m - 0.5) / 0.5 for i, (d, m) in enumerate(factors)]
    with torch.no_grad(), nl.no_grad():
        close(mine(nl.tensor(pictures)).numpy(), theirs(torch.stack(channels, 1)), 1e-4)
