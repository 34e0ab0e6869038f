"""Every op x every sample on the stand-in for CuPy: no hidden copy, nothing that CuPy lacks, same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))

from op_samples import CASES, DIFFERENTIABLE, assert_close, differentiable, output_gradient, run

import nnlite as nl
from nnlite import device
from nnlite.tensors import Tensor

ON_HOST = {"shape_of", "size", "to_device"}
"""Ops whose result is about an array, wanted by whoever lays out arrays; and the one that moves them."""


def _on_gpu(arrays):
    return [None if a is None else device.moved(a, "cuda:0") for a in arrays]


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_forward(gpu, op, sample):
    arrays = sample.arrays(dtype=np.float32)
    if any(a is not None and a.dtype.kind not in "fiub" for a in arrays):
        pytest.skip("strings stay in the machine's memory")
    expected = run(op, arrays, sample.params)
    there = _on_gpu(arrays)
    gpu.to_host = 0
    if sample.params.get("reduction") == "mul":
        with pytest.raises(nl.errors.DeviceError, match=rf"{op.name}.*cannot run on a GPU.*to\('cpu'\)"):
            run(op, there, sample.params)
        return
    outputs = run(op, there, sample.params)
    for y, known in zip(outputs, expected, strict=True):
        assert y.device == "cuda:0" or op.name in ON_HOST or not any(a is not None for a in arrays)
        assert_close(device.to_host(y._array), known.numpy(), 2e-6)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_backward(gpu, op, sample):
    arrays = sample.arrays(dtype=np.float32)
    gy, wanted = output_gradient(op, sample, np.float32), differentiable(op, arrays)
    found = []
    for operands, gradient in ((arrays, gy), (_on_gpu(arrays), device.moved(gy, "cuda:0"))):
        leaves = [None if a is None else Tensor(a, i in wanted) for i, a in enumerate(operands)]
        y = run(op, leaves, sample.params)[0]
        y.backward(Tensor(device.moved(gradient, y.device)))
        found.append([leaves[i].grad for i in wanted])
    for expected, gradient in zip(*found, strict=True):
        assert gradient.device == "cuda:0"
        assert_close(gradient.to("cpu").numpy(), expected.numpy(), 2e-6)


def test_operands_on_two_devices_are_refused(gpu):
    x = nl.tensor([1.0, 2.0])
    with pytest.raises(nl.errors.DeviceError, match=r"add: .*cpu, cuda:0.*\.to\('cuda:0'\)"):
        _ = x + x.to("cuda")
