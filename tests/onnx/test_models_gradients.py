"""Every model at hand: its outputs against ONNX Runtime, and its gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite import onnx as nx
from nnlite.onnx.reader import declared_sizes
from nnlite.tensors import Tensor

FILES = [
    "centerface.onnx", "common_det.onnx", "dcgan_face64.onnx", "efficientnet_lite0.onnx",
    "efficientnet_lite0_padgraph.onnx", "mobilenet_v2.onnx", "mtcnn_onet.onnx", "mtcnn_pnet.onnx",
    "mtcnn_rnet.onnx", "ppocr_angle_cls.onnx", "selfie_segmenter.onnx",
]  # fmt: skip
OPEN = {"mobilenet_v2.onnx": (1, 3, 64, 64), "ppocr_angle_cls.onnx": (1, 3, 48, 192)}
"""Sizes for what a file leaves open."""


def shape_of(module, file):
    (sizes,) = module.input_sizes
    return OPEN.get(file, tuple(1 if size is None else size for size in sizes))


@pytest.fixture(params=FILES)
def model(request, assets):
    path = assets / "models" / request.param
    module = nx.load(path)
    x = np.random.default_rng(3).standard_normal(shape_of(module, request.param)).astype(np.float32)
    return path, module, x


def test_outputs_agree_with_onnx_runtime(model, run_ort):
    path, module, x = model
    for mine, theirs in zip(module.run([x]), run_ort(path, [x]), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * scale)


def test_an_unchanged_model_is_written_byte_for_byte(model, tmp_path):
    path, module, _ = model
    nx.save(module, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes()


def test_gradients_along_a_direction(model):
    """d/dt f(x + t v) at 0 by central differences, in double precision, against <gradient, v>."""
    _, module, x = model
    for leaf in (*module.parameters(), *module.buffers()):
        if leaf.dtype == np.float32:
            leaf._array = leaf._array.astype(np.float64)
    rng = np.random.default_rng(5)
    start, direction = x.astype(np.float64), rng.standard_normal(x.shape)
    weights = []

    def value(at):
        outputs = module(at)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        floats = [y for y in outputs if y.dtype.kind == "f"]
        if not weights:
            weights.extend(rng.standard_normal(y.shape) for y in floats)
        total = None
        for y, w in zip(floats, weights, strict=True):
            part = (y * Tensor(w)).sum()
            total = part if total is None else total + part
        return total

    tensor = Tensor(start, requires_grad=True)
    value(tensor).backward()
    exact = float((tensor.grad.numpy() * direction).sum())
    step = 1e-7
    ends = [value(Tensor(start + sign * step * direction)).item() for sign in (1, -1)]
    measured = (ends[0] - ends[1]) / (2 * step)
    assert exact == pytest.approx(measured, rel=1e-3, abs=1e-5)


def test_every_file_is_on_the_list(assets):
    assert {path.name for path in (assets / "models").glob("*.onnx")} == set(FILES)


def test_declared_sizes_are_those_of_the_file(assets):
    import onnx

    path = assets / "models" / "mtcnn_pnet.onnx"
    (entry,) = onnx.load(path).graph.input
    assert nx.load(path).input_sizes == (declared_sizes(entry),)


def test_fusing_changes_no_gradient(model):
    """As fine-tuning runs it: float32 kernels, activations within convolutions and normalisations."""
    _, module, x = model
    found = []
    for one in (module, module.fused()):
        one.zero_grad()
        outputs = one(Tensor(x))
        rng, total = np.random.default_rng(0), Tensor(np.float32(0))
        for y in outputs if isinstance(outputs, tuple) else (outputs,):
            if y.dtype.kind == "f":
                total = total + (y * Tensor(rng.standard_normal(y.shape).astype(np.float32))).sum()
        total.backward()
        found.append([p.grad.numpy().copy() for p in module.parameters() if p.grad is not None])
    plain, fused = found
    assert len(plain) == len(fused) > 10
    for expected, actual in zip(plain, fused, strict=True):
        # Where sums cancel, rounding is large beside them; a gate that leaks is orders of magnitude off.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-2 * np.abs(expected).max() + 1e-6)
