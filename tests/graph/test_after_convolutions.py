"""What plans put behind convolutions and transposed ones: PReLU, sums, functions, in the same pass."""

from __future__ import annotations

import numpy as np
import pytest
from planning import RNG, normal, only_native, traced

import nnlite as nl
import nnlite.onnx as nx
from nnlite import functional as F
from nnlite import nn
from nnlite.ops import OPS, ArrayType
from nnlite.tensors import apply


def described(plan, *arrays):
    return [row["op"] for row in plan.program([ArrayType(a.shape, a.dtype) for a in arrays]).rows()]


def assert_close(actual, expected, tolerance=5e-6):
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def slopes(channels):
    layer = nn.PReLU(channels)
    layer.weight = nn.Parameter(RNG.uniform(-0.5, 0.9, channels).astype(np.float32))
    return layer


# ------------------------------------------------------------------------------------------ PReLU


class Face(nn.Module):
    """Convolutions of every kind with PReLU behind them, as networks for faces have them."""

    def __init__(self):
        self.stem, self.after_stem = nn.Conv2d(3, 20, 3, stride=2, padding=1), slopes(20)
        self.wide, self.after_wide = nn.Conv2d(20, 48, 1, bias=False), slopes(48)
        self.depthwise, self.after_depthwise = nn.Conv2d(48, 48, 3, padding=1, groups=48), slopes(48)
        self.grouped, self.after_grouped = nn.Conv2d(48, 20, 2, groups=4), slopes(20)
        self.dense, self.after_dense = nn.Conv2d(20, 20, 3, padding=1, bias=False), slopes(20)
        self.norm = nn.BatchNorm2d(20)
        self.norm.running_mean.assign(normal(20))
        self.end, self.after_end = nn.Conv2d(20, 7, 1), slopes(1)

    def forward(self, x):
        x = self.after_wide(self.wide(self.after_stem(self.stem(x))))
        x = self.after_grouped(self.grouped(self.after_depthwise(self.depthwise(x))))
        x = self.after_dense(self.norm(self.dense(x)) + x)
        return self.after_end(self.end(x))


def test_prelu_joins_the_convolutions_before_it():
    module, x = traced(Face(), (2, 3, 25, 38)), normal(2, 3, 25, 38)
    [expected] = module.run([x])
    assert (expected < 0).any()
    plan = module.compile()
    assert_close(plan(x), expected)
    if nl.kernels.unavailable("native") is None:
        assert described(plan, x) == ["conv2d+prelu"] * 6
        assert "activation=12" in str(nl.explain(plan, x))
    assert_close(plan(x[:1]), expected[:1])  # another batch, the same weights
    with nl.use_backend("reference"):  # there each is a step of its own
        plan = module.compile()
        assert described(plan, x).count("prelu") == 6
        assert_close(plan(x), expected)


def test_prelu_behind_a_convolution_against_onnxruntime(tmp_path, run_ort):
    module, x = traced(Face(), (1, 3, 25, 38)), normal(1, 3, 25, 38)
    nx.save(module, tmp_path / "face.onnx", inputs=[x])
    assert_close(module.compile()(x), run_ort(tmp_path / "face.onnx", [x])[0], 2e-5)


def test_prelu_with_slopes_that_are_not_per_channel_stays_apart():
    class Odd(nn.Module):
        def __init__(self, slope):
            self.conv, self.slope = nn.Conv2d(3, 9, 3), nn.Parameter(slope)

        def forward(self, x):
            return apply(OPS["prelu"], self.conv(x), self.slope)

    x = normal(2, 3, 11, 11)  # the result is as wide as it has channels
    for slope in (normal(9), normal(9, 1), normal(2, 9, 1, 1), normal(9, 9, 9)):
        module = traced(Odd(slope), x.shape)
        plan = module.compile()
        assert described(plan, x) == ["conv2d", "prelu"]
        assert_close(plan(x), module.run([x])[0])
    module = traced(Odd(normal(1, 9, 1, 1)), x.shape)
    assert_close(module.compile()(x), module.run([x])[0])


def test_a_fingerprint_knows_the_slopes():
    def prints(init):
        nl.manual_seed(0)
        module = traced(nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8, init)), (1, 3, 9, 9))
        return module.compile().fingerprint([ArrayType((1, 3, 9, 9), np.dtype(np.float32))])

    assert prints(0.25) == prints(0.25) != prints(0.5)


# ------------------------------------------------------------------------- transposed convolutions


class Generator(nn.Module):
    """DCGAN's: Radford et al. 2015, arXiv:1511.06434."""

    def __init__(self):
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(30, 64, 4, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU6(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def test_a_generator_has_no_step_but_its_transposed_convolutions():
    module, x = traced(Generator(), (3, 30, 1, 1)), normal(3, 30, 1, 1)
    plan = module.compile()
    [expected] = module.run([x])
    assert_close(plan(x), expected)
    if nl.kernels.unavailable("native") is None:
        assert described(plan, x) == [
            f"conv_transpose2d+{name}" for name in ("relu", "leaky_relu", "clamp", "tanh")
        ]
    assert_close(plan(x[:1]), expected[:1])
    with nl.use_backend("reference"):
        assert_close(module.compile()(x), expected)


def test_a_generator_against_onnxruntime(tmp_path, run_ort):
    module, x = traced(Generator(), (2, 30, 1, 1)), normal(2, 30, 1, 1)
    nx.save(module, tmp_path / "generator.onnx", inputs=[x])
    assert_close(module.compile()(x), run_ort(tmp_path / "generator.onnx", [x])[0], 2e-5)


class Decoder(nn.Module):
    """A decoder whose enlarged maps are added to those of an encoder; every kernel of the transposed kind."""

    def __init__(self):
        self.encode = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.deeper = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.dense, self.after_dense = nn.ConvTranspose2d(24, 24, 3, padding=1), slopes(24)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.depthwise = nn.ConvTranspose2d(16, 16, 3, 2, 1, 1, groups=16)
        self.head, self.after_head = nn.ConvTranspose2d(16, 2, 3, (2, 1), 1), slopes(2)

    def forward(self, x):
        x = F.relu(self.encode(x))
        y = self.after_dense(self.dense(self.deeper(x)))
        y = F.silu(x + self.up(y))
        y = F.sigmoid(self.depthwise(y))
        return self.after_head(self.head(y))


def test_a_decoder_adds_in_the_same_pass():
    module, x = traced(Decoder(), (2, 3, 24, 36)), normal(2, 3, 24, 36)
    plan = module.compile()
    [expected] = module.run([x])
    assert_close(plan(x), expected)
    if nl.kernels.unavailable("native") is None:
        names = ("prelu", "add+silu", "sigmoid", "prelu")
        assert described(plan, x)[2:] == [f"conv_transpose2d+{name}" for name in names]


def test_sums_that_a_transposed_convolution_cannot_take_stay_apart():
    class Sums(nn.Module):
        def __init__(self):
            self.up = nn.ConvTranspose2d(4, 8, 2, stride=2)
            self.down = nn.Conv2d(4, 8, 1)

        def forward(self, x, other):
            twice = self.up(x)
            broadcast = self.up(x) + other  # [2,1,6,6]
            late = self.up(x) + F.interpolate(self.down(x), scale_factor=2)  # not there yet
            return twice + twice, broadcast, late

    module = traced(Sums(), (2, 4, 3, 3), (2, 1, 6, 6))
    arrays = normal(2, 4, 3, 3), normal(2, 1, 6, 6)
    plan = module.compile()
    assert not [op for op in described(plan, *arrays) if "conv_transpose2d+" in op]
    for actual, expected in zip(plan.run(*arrays), module.run(list(arrays)), strict=True):
        assert_close(actual, expected)


@only_native
def test_transposed_convolutions_are_kept_calls_that_prepare_their_weights():
    module, x = traced(Generator(), (2, 30, 1, 1)), normal(2, 30, 1, 1)
    program = module.compile().program([ArrayType(x.shape, x.dtype)])
    assert all(step.direct for step in program.steps)
    assert all(step.how.preparation is not None for step in program.steps)


# --------------------------------------------------------------------- squeeze and excitation


class Excited(nn.Module):
    """A block of EfficientNet or MobileNetV3; whoever asks gets the pictures before their scaling, too."""

    def __init__(self, gate, both=False):
        self.conv, self.gate, self.both = nn.Conv2d(3, 21, 3, padding=1), gate, both
        self.squeeze, self.excite, self.project = (
            nn.Conv2d(21, 5, 1),
            nn.Conv2d(5, 21, 1),
            nn.Conv2d(21, 8, 1),
        )

    def forward(self, x):
        x = F.silu(self.conv(x))
        factors = self.gate(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        y = self.project(factors * x if self.both else x * factors)
        return (y, x) if self.both else y


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid()], ids=["sigmoid", "hardsigmoid"])
@pytest.mark.parametrize("both", [False, True])
def test_squeeze_and_excitation_needs_no_python_between_its_parts(gate, both):
    module, x = traced(Excited(gate, both), (3, 3, 13, 10)), normal(3, 3, 13, 10)
    plan = module.compile()
    for actual, expected in zip(plan.run(x), module.run([x]), strict=True):
        assert_close(actual, expected)
    if nl.kernels.unavailable("native") is None:
        program = plan.program([ArrayType(x.shape, x.dtype)])
        assert [step.node.op.name for step in program.steps if not step.direct] == []
        assert "scale_channels[N=3 C=21 H=13 W=10] float32: native:run" in str(nl.explain(plan, x))
    for backend in ("reference", "numba"):
        if nl.kernels.unavailable(backend) is None:
            with nl.use_backend(backend):  # no kernel of theirs: NumPy multiplies
                assert_close(
                    module.compile()(x) if not both else module.compile().run(x)[0], module.run([x])[0]
                )


def test_products_of_other_shapes_are_numpys():
    class Products(nn.Module):
        def forward(self, x, each, one, maps):
            return x * each * one * maps * each, each * each

    shapes = (2, 5, 6, 7), (2, 5, 1, 1), (1, 5, 1, 1), (2, 1, 6, 7)
    arrays = [normal(*shape) for shape in shapes]
    module = traced(Products(), *shapes)
    x, each, one, maps = arrays
    expected = x * each * one * maps * each, each * each
    plan = module.compile()
    for actual, wanted in zip(plan.run(*arrays), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    if nl.kernels.unavailable("native") is None:
        types = [ArrayType(a.shape, a.dtype) for a in arrays]
        variants = [row["variant"] for row in plan.program(types).rows()]
        assert sorted(variants) == ["native:run"] * 2 + ["numpy.multiply"] * 3
