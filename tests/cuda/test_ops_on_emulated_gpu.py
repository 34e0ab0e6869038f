"""Ops with kernels, from tensors down to the sources of csrc/cuda, on a GPU that the CPU emulates."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))

from op_samples import CASES, assert_close, differentiable, output_gradient, run

import nnlite as nl
import nnlite.functional as F
from nnlite import device
from nnlite.kernels import unavailable
from nnlite.tensors import Tensor

SERVED = [
    case for case in CASES
    if case.values[0].kernels and all(a is None or a.dtype.kind in "fiub" for a in case.values[1].arrays())
]  # fmt: skip


@pytest.mark.parametrize(("op", "sample"), SERVED)
def test_forward_and_backward(emulated_gpu, op, sample):
    arrays = sample.arrays(dtype=np.float32)
    wanted = differentiable(op, arrays) if op.backward is not None and sample.gradcheck else []
    found = []
    for move in (lambda a: a, lambda a: device.moved(a, "cuda:0")):
        leaves = [None if a is None else Tensor(move(a), i in wanted) for i, a in enumerate(arrays)]
        outputs = run(op, leaves, sample.params)
        if wanted:
            gy = output_gradient(op, sample, np.float32)
            outputs[0].backward(Tensor(device.moved(gy, outputs[0].device)))
        gradients = [leaves[i].grad for i in wanted]
        found.append([device.to_host(t.array) for t in (*outputs, *gradients)])
    for expected, actual in zip(*found, strict=True):
        assert_close(actual, expected, 5e-6)


def test_the_extension_serves_and_says_so(emulated_gpu):
    assert unavailable("cuda") is None
    x, w = (nl.tensor(np.ones(shape, np.float32), device="cuda") for shape in ((1, 4, 6, 6), (8, 4, 3, 3)))
    explained = nl.explain(F.conv2d, x, w)
    assert str(explained.decisions[0].variant) == "cuda:exact"
    labels = np.array([1, 2])
    logits = nl.tensor(np.zeros((2, 3), np.float32), device="cuda")
    explained = nl.explain(F.cross_entropy, logits, labels)
    assert str(explained.decisions[0].variant) == "cuda:lines"
    assert explained.result.item() == pytest.approx(np.log(3))


def test_a_training_step(emulated_gpu):
    losses, states = [], []
    for where in ("cpu", "cuda"):
        nl.manual_seed(0)
        net = nl.nn.Sequential(
            nl.nn.Conv2d(3, 8, 3, bias=False), nl.nn.BatchNorm2d(8), nl.nn.ReLU(), nl.nn.MaxPool2d(2),
            nl.nn.Flatten(), nl.nn.Linear(8 * 9, 4),
        ).to(where)  # fmt: skip
        optimiser = nl.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
        for _ in range(2):
            loss = F.cross_entropy(net(nl.tensor(x, device=where)), np.array([0, 1, 2, 3]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        states.append(net.state_dict())
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-5)
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-4, atol=1e-5)


def test_a_plan(emulated_gpu):
    nl.manual_seed(0)
    net = nl.nn.Sequential(
        nl.nn.Conv2d(3, 8, 3), nl.nn.BatchNorm2d(8), nl.nn.ReLU6(), nl.nn.Conv2d(8, 8, 3, groups=8),
        nl.nn.AdaptiveAvgPool2d(1), nl.nn.Flatten(), nl.nn.Linear(8, 4),
    ).eval()  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype(np.float32)
    graph, leaves = nl.graph.trace(net, [Tensor(x)])
    module = nl.graph.GraphModule(graph, leaves=leaves)
    plan = module.compile(device="cuda")
    np.testing.assert_allclose(plan(x), module.compile()(x), rtol=1e-4, atol=1e-5)
    variants = {row["variant"] for row in plan.profile(x, repeats=1)}
    assert {"cuda:exact", "cuda:depthwise"} <= variants
