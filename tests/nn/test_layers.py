"""Layers: equal to PyTorch's in values, initial distributions and modes; errors; freezing."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn
from nnlite.errors import ConfigError, NnliteError, ShapeError


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LAYERS = [
    ("Conv2d", (3, 6, 3), {}, (2, 3, 9, 8)),
    ("Conv2d", (4, 6, (3, 2), 2, 1, 2, 2, False), {}, (2, 4, 9, 8)),
    ("Conv2d", (4, 4, 3), {"padding": "same", "groups": 4}, (2, 4, 9, 8)),
    ("Conv2d", (4, 6, (3, 2), 2, (2, 1), 1, 2, True, "reflect"), {}, (2, 4, 9, 8)),
    ("Conv2d", (3, 4, 3), {"padding": 2, "padding_mode": "replicate", "dilation": (1, 2)}, (2, 3, 9, 8)),
    ("Conv2d", (3, 4, (3, 4)), {"padding": "same", "padding_mode": "circular"}, (2, 3, 9, 8)),
    ("Conv2d", (3, 4, 3), {"padding": "valid", "padding_mode": "reflect"}, (2, 3, 9, 8)),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2, True, 2), {}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, 2), {"bias": False, "stride": 2}, (2, 4, 5, 4)),
    ("Linear", (4, 5), {}, (3, 4)),
    ("Linear", (4, 5, False), {}, (2, 3, 4)),
    ("BatchNorm2d", (4,), {}, (3, 4, 5, 5)),
    ("BatchNorm2d", (4, 1e-3, 0.5, False), {}, (3, 4, 5, 5)),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, (3, 4, 5, 5)),
    ("BatchNorm2d", (4,), {"bias": False}, (3, 4, 5, 5)),
    ("BatchNorm1d", (4,), {}, (6, 4)),
    ("BatchNorm1d", (4,), {}, (6, 4, 3)),
    ("ReLU", (True,), {}, (2, 3)),
    ("ReLU6", (), {}, (2, 3)),
    ("Sigmoid", (), {}, (2, 3)),
    ("Tanh", (), {}, (2, 3)),
    ("Softmax", (1,), {}, (2, 3, 4)),
    ("MaxPool2d", (3, 2, 1), {}, (2, 3, 9, 8)),
    ("MaxPool2d", ((2, 3),), {"dilation": 2, "ceil_mode": True}, (2, 3, 9, 8)),
    ("AvgPool2d", (3, 2, 1, True, False), {}, (2, 3, 9, 8)),
    ("AvgPool2d", (2,), {}, (2, 3, 9, 8)),
    ("AvgPool2d", (3, 2, 1), {"divisor_override": 4, "ceil_mode": True}, (2, 3, 9, 8)),
    ("AdaptiveAvgPool2d", ((3, 2),), {}, (2, 3, 9, 8)),
    ("AdaptiveAvgPool2d", ((None, 2),), {}, (2, 3, 9, 8)),
    ("Flatten", (), {}, (2, 3, 4, 5)),
    ("Flatten", (0, 1), {}, (2, 3, 4, 5)),
    ("Identity", (), {}, (2, 3)),
    ("Identity", (54,), {"unused": True}, (2, 3)),
    ("Unflatten", (1, (2, -1)), {}, (3, 6, 2)),
    ("Unflatten", (-1, (2, 3)), {}, (3, 6)),
    ("LeakyReLU", (0.2, True), {}, (2, 3)),
    ("PReLU", (), {}, (2, 3)),
    ("PReLU", (3, 0.1), {}, (2, 3, 4)),
    ("ELU", (0.5,), {}, (2, 3)),
    ("SELU", (), {}, (2, 3)),
    ("CELU", (0.5,), {}, (2, 3)),
    ("GELU", (), {"approximate": "tanh"}, (2, 3)),
    ("SiLU", (True,), {}, (2, 3)),
    ("Mish", (), {}, (2, 3)),
    ("Hardswish", (), {}, (2, 3)),
    ("Hardsigmoid", (), {}, (2, 3)),
    ("Hardtanh", (-0.5, 0.7), {}, (2, 3)),
    ("Softplus", (2.0, 5.0), {}, (2, 3)),
    ("LogSigmoid", (), {}, (2, 3)),
    ("Softsign", (), {}, (2, 3)),
    ("Tanhshrink", (), {}, (2, 3)),
    ("Hardshrink", (0.3,), {}, (2, 3)),
    ("Softshrink", (0.3,), {}, (2, 3)),
    ("Threshold", (0.1, 20.0), {}, (2, 3)),
    ("GLU", (1,), {}, (2, 4)),
    ("LogSoftmax", (1,), {}, (2, 3, 4)),
    ("Softmin", (1,), {}, (2, 3, 4)),
    ("Softmax2d", (), {}, (2, 3, 4, 5)),
    ("LayerNorm", (5,), {}, (2, 3, 5)),
    ("LayerNorm", ((3, 5), 1e-3, True, False), {}, (2, 3, 5)),
    ("LayerNorm", (5,), {"elementwise_affine": False}, (2, 5)),
    ("RMSNorm", (5, 1e-4), {}, (2, 3, 5)),
    ("GroupNorm", (2, 6), {}, (2, 6, 5, 4)),
    ("GroupNorm", (3, 6, 1e-3, False), {}, (2, 6, 5)),
    ("GroupNorm", (3, 6), {"bias": False}, (2, 6, 5)),
    ("InstanceNorm2d", (3,), {}, (2, 3, 5, 4)),
    ("InstanceNorm2d", (3, 1e-3, 0.3, True, True), {}, (2, 3, 5, 4)),
    ("InstanceNorm1d", (3,), {"affine": True}, (2, 3, 5)),
    ("InstanceNorm1d", (3,), {"affine": True, "bias": False}, (2, 3, 5)),
    ("LocalResponseNorm", (3, 0.1, 0.5, 2.0), {}, (2, 6, 3, 3)),
    ("LocalResponseNorm", (4,), {}, (2, 6, 3)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", ((7, 3), None, "bilinear", True), {}, (2, 3, 4, 5)),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("UpsamplingBilinear2d", (6,), {}, (2, 3, 4, 5)),
    ("PixelShuffle", (2,), {}, (2, 8, 4, 5)),
    ("PixelUnshuffle", (2,), {}, (2, 3, 4, 6)),
    ("ChannelShuffle", (2,), {}, (2, 6, 4, 5)),
    ("ConstantPad1d", (1, 0.5), {}, (2, 3, 5)),
    ("ConstantPad2d", ((1, 2, 0, -1), 0.5), {}, (2, 3, 4, 5)),
    ("ZeroPad2d", (1,), {}, (2, 3, 4, 5)),
    ("ReflectionPad1d", ((1, 2),), {}, (2, 3, 5)),
    ("ReflectionPad2d", (2,), {}, (2, 3, 4, 5)),
    ("ReplicationPad1d", (6,), {}, (2, 3, 5)),
    ("ReplicationPad2d", ((1, 0, 2, 3),), {}, (2, 3, 4, 5)),
    ("CircularPad2d", (2,), {}, (2, 3, 4, 5)),
    ("Conv1d", (4, 6, 3, 2, 1, 2, 2, False), {}, (2, 4, 11)),
    ("Conv1d", (4, 6, 3), {"padding": "same"}, (2, 4, 11)),
    ("Conv1d", (4, 6, 4), {"padding": "same", "padding_mode": "circular"}, (2, 4, 11)),
    ("Conv1d", (4, 6, 3, 2, 2, 2, 2, True, "reflect"), {}, (2, 4, 11)),
    ("ConvTranspose1d", (4, 6, 3, 2, 1, 1, 2, True, 2), {}, (2, 4, 6)),
    ("ConvTranspose1d", (4, 6, 2), {"bias": False, "stride": 2}, (2, 4, 6)),
    ("ZeroPad1d", ((1, 2),), {}, (2, 3, 5)),
    ("CircularPad1d", (2,), {}, (2, 3, 5)),
    ("MaxPool1d", (3, 2, 1), {}, (2, 3, 8)),
    ("MaxPool1d", (3, 2, 1, 2), {"ceil_mode": True}, (2, 3, 8)),
    ("AvgPool1d", (3,), {}, (2, 3, 8)),
    ("AvgPool1d", (3, 2, 1, True, False), {}, (2, 3, 8)),
    ("LPPool2d", (2, 3, 2), {}, (2, 3, 9, 8)),
    ("LPPool1d", (2, 3, 2), {}, (2, 3, 8)),
    ("AdaptiveMaxPool2d", ((3, 2),), {}, (2, 3, 7, 8)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 8)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 8)),
    ("Unfold", ((3, 2), 1, 1, 2), {}, (2, 3, 7, 8)),
    ("Fold", ((7, 8), (3, 2), 1, 1, 2), {}, (2, 6, 20)),
]


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS)
def test_a_layer_is_pytorchs(name, arguments, options, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    theirs, ours = (getattr(module, name)(*arguments, **options) for module in (torch.nn, nn))
    expected = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if k != "num_batches_tracked"}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected
    ours.load_state_dict(theirs.state_dict())
    for training in (True, True, False):
        x = random(*shape, seed=int(training))
        a, b = nl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours.train(training)(a), theirs.train(training)(b + 0)  # ReLU changes its input there
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=2e-6)
        gy = random(*y.shape, seed=3)
        y.backward(gy)
        z.backward(torch.tensor(gy))
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-5)
    for key, value in theirs.state_dict().items():
        if key != "num_batches_tracked":
            np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), atol=1e-6)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), atol=5e-5, err_msg=key)


NOT_IN_ONNX = {  # what the error must say
    "AdaptiveMaxPool1d": ["only where it divides"],
    "AdaptiveMaxPool2d": ["only where it divides"],
    "BatchNorm2d": ["training-time operation"],  # without running statistics
    "LocalResponseNorm": ["even size=4"],
    "Softplus": ["no threshold=5.0"],
}


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS)
def test_a_layer_is_what_onnx_runtime_makes_of_it(name, arguments, options, shape, run_ort):
    nl.manual_seed(0)
    layer, x = getattr(nn, name)(*arguments, **options).eval(), random(*shape)
    try:
        model = nl.onnx.to_model(layer, inputs=[x], opset=21)
    except NnliteError as error:
        if not any(told in str(error) for told in NOT_IN_ONNX.get(name, ())):
            raise
        return
    (found,) = run_ort(model, [x])
    with nl.no_grad():
        np.testing.assert_allclose(found, layer(nl.tensor(x)).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Conv2d(16, 64, 3, groups=2), 8 * 9),
        (lambda: nn.ConvTranspose2d(16, 64, 3), 64 * 9),
        (lambda: nn.Linear(300, 200), 300),
    ],
)
def test_initial_values(layer, fan_in):
    nl.manual_seed(1)
    made = layer()
    bound = 1 / math.sqrt(fan_in)
    for parameter in (made.weight, made.bias):
        values = parameter.numpy().ravel()
        assert parameter.dtype == np.float32
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.9 * bound
        # Mean and standard deviation of a uniform distribution, within four of their errors.
        error = 4 / math.sqrt(values.size)
        assert abs(values.mean()) < error * bound
        assert abs(values.std() / (bound / math.sqrt(3)) - 1) < error
    nl.manual_seed(1)
    again = layer()
    np.testing.assert_array_equal(made.weight.numpy(), again.weight.numpy())
    assert not np.array_equal(made.weight.numpy(), layer().weight.numpy())


@pytest.mark.parametrize(
    ("name", "options", "shape", "sizes"),
    [
        ("ConvTranspose2d", {"stride": 2, "padding": 1, "dilation": 2}, (2, 4, 5, 4), [(12, 9), (11, 10)]),
        ("ConvTranspose2d", {"stride": (3, 1)}, (2, 4, 5, 4), [(15, 6), (2, 4, 17, 6)]),
        ("ConvTranspose1d", {"stride": 3, "padding": 1}, (2, 4, 5), [(13,), (2, 4, 15)]),
    ],
)
def test_a_transposed_convolution_to_a_size(name, options, shape, sizes):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    theirs, ours = (getattr(module, name)(4, 6, 3, **options) for module in (torch.nn, nn))
    ours.load_state_dict(theirs.state_dict())
    x = random(*shape)
    for size in sizes:
        y = ours(nl.tensor(x), output_size=size)
        expected = theirs(torch.tensor(x), output_size=list(size)).detach().numpy()
        np.testing.assert_allclose(y.detach().numpy(), expected, atol=2e-6)
    with pytest.raises(ShapeError, match=r"output_size=.* must be from"):
        ours(nl.tensor(x), output_size=tuple(100 for _ in shape[2:]))


@pytest.mark.parametrize(("layer", "shape"), [(nn.Dropout1d, (40, 50, 3)), (nn.Dropout2d, (40, 50, 3, 2))])
def test_whole_channels_are_dropped(layer, shape):
    nl.manual_seed(1)
    module, x = layer(0.25), nl.tensor(np.ones(shape, np.float32))
    y = module(x).numpy()
    first = y.reshape(*shape[:2], -1)
    assert (first == first[:, :, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert (first[:, :, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(module.eval()(x).numpy(), x.numpy())
    np.testing.assert_array_equal(module.train().freeze()(x).numpy(), x.numpy())
    with pytest.raises(ShapeError, match="axes"):
        module(nl.tensor(np.ones((2, 3))))


def test_cross_entropy_loss():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    logits, labels = random(4, 5), np.array([0, 4, 2, 2])
    for options in ({}, {"reduction": "sum"}, {"reduction": "none", "label_smoothing": 0.1}):
        ours = nn.CrossEntropyLoss(**options)(nl.tensor(logits), labels)
        theirs = torch.nn.CrossEntropyLoss(**options)(torch.tensor(logits), torch.tensor(labels))
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    for options in ({"reduction": "max"}, {"label_smoothing": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            nn.CrossEntropyLoss(**options)


# ------------------------------------------------------------------------------------- frozen


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_batch_norm_uses_and_keeps_its_running_statistics(training):
    layer = nn.BatchNorm2d(3)
    layer.load_state_dict(
        {"weight": [1, 2, 3], "bias": [0, 1, 0], "running_mean": [5, 6, 7], "running_var": [1, 4, 9]}
    )
    x = random(4, 3, 5, 5)
    version = layer.running_mean.version
    y = layer.train(training).freeze()(nl.tensor(x))
    mean, std, weight, bias = (np.reshape(v, (3, 1, 1)) for v in ([5, 6, 7], [1, 2, 3], [1, 2, 3], [0, 1, 0]))
    np.testing.assert_allclose(y.numpy(), (x - mean) / std * weight + bias, atol=1e-4)
    assert layer.running_mean.numpy().tolist() == [5, 6, 7]
    assert layer.running_mean.version == version


def test_a_batch_norm_that_is_frozen_in_part_still_learns():
    layer = nn.BatchNorm2d(3).freeze(keys="weight")
    layer(nl.tensor(random(4, 3, 5, 5)))
    assert layer.running_mean.version == 1
    layer.freeze(keys="bias")
    layer(nl.tensor(random(4, 3, 5, 5)))
    assert layer.running_mean.version == 1


def test_a_batch_norm_without_parameters_is_frozen_when_told_so():
    layer = nn.BatchNorm2d(3, affine=False)
    layer(nl.tensor(random(4, 3, 5, 5)))
    assert layer.running_mean.version == 1
    layer.freeze()(nl.tensor(random(4, 3, 5, 5)))
    assert layer.running_mean.version == 1
    layer.unfreeze()(nl.tensor(random(4, 3, 5, 5)))
    assert layer.running_mean.version == 2


def test_gradients_go_through_a_frozen_batch_norm_as_through_an_affine_map():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    net[1].freeze()
    net[1].running_var.assign([4.0, 1.0, 0.25])
    x = random(2, 2, 4, 4)
    net(nl.tensor(x)).sum().backward()
    scale = 1 / np.sqrt(np.array([4.0, 1.0, 0.25]) + 1e-5)
    np.testing.assert_allclose(net[0].bias.grad.numpy(), 2 * 16 * scale, rtol=1e-5)
    assert net[1].weight.grad is None


def test_dropout_only_while_training_and_not_frozen():
    layer, x = nn.Dropout(0.5), nl.tensor(np.ones((50, 50), np.float32))
    assert set(np.unique(layer(x).numpy())) == {0.0, 2.0}
    assert layer.eval()(x).numpy().min() == 1
    assert layer.train().freeze()(x).numpy().min() == 1
    assert layer.unfreeze()(x).numpy().min() == 0
    net = nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5)).freeze()
    np.testing.assert_array_equal(net(x).numpy(), net(x).numpy())


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Conv2d(0, 4, 3), "Conv2d: in_channels=0 must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "in_channels=3 must be a multiple of groups=2"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), "out_channels=3 must be a multiple"),
        (lambda: nn.Conv2d(4, 4, 3, groups=0), "groups=0"),
        (lambda: nn.Conv2d(3, 4, 0), "Conv2d: kernel_size=0 must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "'mirror' must be one of zeros, reflect"),
        (lambda: nn.Conv1d(3, 4, 3, padding_mode="mirror"), "'mirror' must be one of zeros, reflect"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), "can only be 'zeros'"),
        (lambda: nn.ConvTranspose1d(3, 4, 3, padding_mode="reflect"), "padding_mode 'zeros'"),
        (lambda: nn.BatchNorm2d(3, momentum=None), "momentum=None"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), "stride=0"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=0), "dilation=0"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding"),
        (lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2), "needs stride 1"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding="same"), "must be integers"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=-1), "output_padding=-1"),
        (lambda: nn.Linear(3, 0), "out_features=0"),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: num_features=0"),
        (lambda: nn.Dropout(1.0), "p=1.0"),
        (lambda: nn.MaxPool2d(0), "MaxPool2d: kernel_size=0"),
        (lambda: nn.MaxPool2d(2, 0), "stride=0"),
        (lambda: nn.AvgPool2d((2, 0)), "AvgPool2d: kernel_size"),
        (lambda: nn.AdaptiveAvgPool2d(0), "output_size=0"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(make, match):
    with pytest.raises(NnliteError, match=match):
        make()


def test_inputs_of_the_wrong_rank_are_named():
    for layer, shape in [(nn.BatchNorm2d(3), (2, 3)), (nn.BatchNorm1d(3), (2, 3, 4, 4))]:
        with pytest.raises(ShapeError, match=type(layer).__name__):
            layer(nl.tensor(random(*shape)))
    with pytest.raises(ShapeError, match="conv2d: x has 4 channels"):
        nn.Conv2d(3, 2, 1)(nl.tensor(random(1, 4, 5, 5)))


def test_every_layer_says_its_options():
    for name, arguments, options, _ in LAYERS:
        text = repr(getattr(nn, name)(*arguments, **options))
        assert text.startswith(f"{name}(")
        assert text.endswith(")")
    text = repr(nn.Conv2d(4, 6, 3, 2, "valid", groups=2, bias=False))
    assert text == ("Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding='valid', groups=2, bias=False)")
