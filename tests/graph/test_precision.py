"""Plans in bytes and in bfloat16: which layers, which numbers, against plain NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import nn
from nnlite.errors import ConfigError
from nnlite.graph import GraphModule, trace
from nnlite.graph.calibrate import Range, best_range, calibrate
from nnlite.graph.interpret import interpret
from nnlite.graph.passes.reduce_precision import reducible, small_values, to_int8, values_to_calibrate
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def traced(module, *shape):
    graph, leaves = trace(module.eval(), [Tensor(normal(*shape))])
    return GraphModule(graph, leaves=leaves).freeze().eval()


class Net(nn.Module):
    """A stem, depthwise layers behind it and later, a residual, a gate of one pixel, a linear layer."""

    def __init__(self):
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.a = nn.Conv2d(16, 24, 3, padding=1)
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.b = nn.Conv2d(24, 24, 1)
        self.gate = nn.Conv2d(24, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = F.relu(self.first(F.relu(self.stem(x))))
        x = F.relu(self.a(x))
        x = self.b(F.clamp(self.depth(x), 0, 6)) + x
        x = x * F.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_range_by_hand():
    known = Range.between(-1.0, 3.0)
    assert known.scale == float(np.float32(4 / 255)) and known.zero == 64
    assert Range.between(0.5, 2.0).zero == 0  # 0 is always a number that is exact
    np.testing.assert_allclose(known.rounded(np.array([0.0, 9.0])), [0.0, (255 - 64) * 4 / 255], rtol=1e-6)


def test_a_lonely_outlier_is_cut_off():
    x = np.concatenate([RNG.uniform(0, 1, 100_000), [3.0]]).astype(np.float32)
    chosen = best_range(x)
    whole = Range.between(0, 3)
    assert chosen.scale < 0.9 * whole.scale
    assert np.square(chosen.rounded(x) - x).mean() < np.square(whole.rounded(x) - x).mean()


def simplified(module, x):
    return module.compile().graph([ArrayType(x.shape, x.dtype)])


def test_which_layers():
    x = normal(2, 3, 16, 16)
    graph = simplified(traced(Net(), 2, 3, 16, 16), x)
    layers = reducible(graph)
    shapes = [graph.arrays[node.inputs[1]].shape for node in layers]
    # Not the stem, not the depthwise layer behind it, not the gate.
    assert shapes == [(24, 16, 3, 3), (24, 1, 3, 3), (24, 24, 1, 1), (10, 24)]
    # The residual sum is read by a pool and a product as well.
    assert {value.node for value in small_values(graph, layers)} == set(layers[:2])


def test_int8_nodes_and_numbers():
    module, x = traced(Net(), 2, 3, 16, 16), normal(8, 3, 16, 16)
    graph = simplified(module, x)
    reduced = to_int8(graph, calibrate(graph, values_to_calibrate(graph), [x]))
    names = [node.op.name for node in reduced.nodes]
    assert names.count("conv2d_int8") == 4
    assert names.count("to_uint8") == 2  # what the stem gives, and the features
    plan = module.compile("int8", [x])
    types = plan.program([ArrayType(x.shape, x.dtype)]).types
    assert sum(known.dtype == np.uint8 for known in types.values()) == 4
    y, expected = plan(x), module.run([x])[0]
    assert np.abs(y - expected).max() < 0.03 * np.abs(expected).max()
    assert np.abs(y - expected).max() > 0
    # Steps and plain ops, native and NumPy: integers are exact, what follows a sum is rounded alike.
    np.testing.assert_allclose(interpret(reduced, [x])[0], y, rtol=0, atol=1e-5)
    with nl.use_backend("reference"):
        by_numpy = module.compile("int8", [x])(x)
    assert np.abs(by_numpy - y).max() < 0.01 * np.abs(y).max()  # the ranges may differ in a last bit


def test_int8_layer_against_integers_in_numpy():
    """A 1x1 layer with bias and ReLU and another, written out: whole numbers, two roundings between them."""
    layer = nn.Conv2d(8, 8, 1)

    class Once(nn.Module):
        def __init__(self):
            self.layer, self.after = layer, nn.Conv2d(8, 6, 1)

        def forward(self, x):
            return self.after(F.relu(self.layer(x)))

    module, x = traced(Once(), 2, 8, 5, 5), normal(4, 8, 5, 5)
    graph = simplified(module, x)
    first, second = reducible(graph)
    ranges = calibrate(graph, values_to_calibrate(graph), [x])
    rx, ry = ranges[first.inputs[0]], ranges[first.outputs[0]]

    def weights(node):
        w = graph.arrays[node.inputs[1]][:, :, 0, 0].astype(np.float64)
        step = np.abs(w).max(1) / 127
        return np.rint(w / step[:, None]), step, graph.arrays[node.inputs[2]].astype(np.float64)

    rows = np.moveaxis(x, 1, -1).astype(np.float64)
    q = np.clip(np.rint(rows / rx.scale) + rx.zero, 0, 255) - rx.zero
    w, step, bias = weights(first)
    real = np.maximum((q @ w.T) * step * rx.scale + bias, 0)
    q = np.clip(np.rint(real / ry.scale) + ry.zero, 0, 255) - ry.zero
    w, step, bias = weights(second)
    expected = np.moveaxis((q @ w.T) * step * ry.scale + bias, -1, 1)
    y = module.compile("int8", [x])(x)
    # A number on the edge between two integers may fall to either side: none of them may be off by more.
    assert np.abs(y - expected).max() <= ry.scale * np.abs(w * step[:, None]).max() * 1.01
    assert np.mean(np.abs(y - expected) > 1e-4) < 0.01


def test_bf16_against_roundings_in_float64():
    module, x = (
        traced(nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 5, 1)), 1, 8, 6, 6),
        normal(3, 8, 6, 6),
    )

    def rounded(array):
        return array.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)

    (w1, b1), (w2, b2) = [
        [leaf.numpy() for name, leaf in module.named_parameters() if name.startswith(f"{i}.")] for i in (0, 2)
    ]
    small, padded = rounded(x), np.pad(rounded(x), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = sum(
        np.einsum("nchw,kc->nkhw", padded[:, :, r : r + 6, s : s + 6], rounded(w1)[:, :, r, s])
        for r in range(3)
        for s in range(3)
    )
    y = rounded(np.maximum(y + b1[:, None, None], 0))
    expected = np.einsum("nchw,kc->nkhw", y, rounded(w2)[:, :, 0, 0]) + b2[:, None, None]
    actual = module.compile("bf16")(x)
    assert small.shape == x.shape and actual.dtype == np.float32
    # Sums in float32: a result between two bfloat16 numbers may be rounded to the other one.
    assert np.abs(actual - expected).max() < 2**-8 * np.abs(y).max()
    assert np.mean(np.abs(actual - expected) > 1e-4 * np.abs(expected).max()) < 0.05


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_batches_threads_and_shapes(precision):
    module, x = traced(Net(), 2, 3, 16, 16), normal(5, 3, 16, 16)
    plan = module.compile(precision, [x])
    whole = plan(x).copy()
    np.testing.assert_array_equal(np.concatenate([plan(x[i : i + 1]) for i in range(5)]), whole)
    before = nl.get_num_threads()
    try:
        nl.set_num_threads(1)
        np.testing.assert_array_equal(plan(x), whole)
    finally:
        nl.set_num_threads(before)
    assert plan(normal(1, 3, 24, 20)).shape == (1, 10)


def test_fingerprints():
    module, x = traced(Net(), 2, 3, 16, 16), normal(5, 3, 16, 16)
    types = [ArrayType(x.shape, x.dtype)]
    plans = [
        module.compile(), module.compile("bf16"),
        module.compile("int8", [x]), module.compile("int8", [2 * x]),
    ]  # fmt: skip
    prints = [plan.fingerprint(types) for plan in plans]
    assert len(set(prints)) == 4
    assert module.compile("int8", [x]).fingerprint(types) == prints[2]


def test_refused():
    module = traced(Net(), 2, 3, 16, 16)
    with pytest.raises(ConfigError, match="precision='fp8' must be one of fp32, bf16, int8"):
        module.compile("fp8")
    with pytest.raises(ConfigError, match="a few inputs of the network's own kind"):
        module.compile("int8")


def test_explained():
    module, x = traced(Net(), 2, 3, 16, 16), normal(2, 3, 16, 16)
    assert "conv2d_int8_float[" in str(nl.explain(module.compile("int8", [x]), x))
