"""Keras' networks as tf2onnx writes them (export_tensorflow.py): values, transpositions, training."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_step import take_small_step

from nnlite import functional as F
from nnlite import onnx as nx
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

FOLDER = os.environ.get("NNLITE_TEST_TENSORFLOW")
FILES = sorted(Path(FOLDER).glob("*.onnx")) if FOLDER else []
pytestmark = pytest.mark.skipif(
    not FILES, reason="NNLITE_TEST_TENSORFLOW names no folder of files made by export_tensorflow.py"
)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request):
    """A model, its inputs and what TensorFlow computes."""
    arrays = np.load(request.param.with_suffix(".npz"), allow_pickle=False)
    return request.param, arrays["x"], arrays["y"]


def test_values_are_those_of_tensorflow_and_onnx_runtime(case, run_ort):
    path, x, y = case
    module = nx.load(path)
    (mine,) = module.run([x])
    (theirs,) = run_ort(path, [x])
    for expected in (y, theirs, module.compile()(x)):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5 * np.abs(y).max())


def test_transpositions_around_layers_cancel(case):
    path, x, _ = case
    program = nx.load(path).compile().program([ArrayType(x.shape, x.dtype)])
    moved = [s for s in program.steps if s.node.op.name == "transpose" and s.variant != "no copy"]
    assert len(moved) <= 1, [s.node.name for s in moved]  # that of the picture, where the file begins


def test_a_step_of_training_and_the_way_back(case, run_ort, tmp_path):
    path, x, _ = case
    module = nx.load(path)
    labels = np.arange(len(x))
    weights = [p for p in module.parameters() if p.requires_grad]

    def loss():
        return F.nll_loss(F.log(module(Tensor(x)) + 1e-9), labels)

    take_small_step(weights, loss)
    assert all(p.grad is not None for p in weights)
    nx.save(module, tmp_path / "tuned.onnx")
    onnx.checker.check_model(str(tmp_path / "tuned.onnx"))
    (mine,), (theirs,) = module.run([x]), run_ort(tmp_path / "tuned.onnx", [x])
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
