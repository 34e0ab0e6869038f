"""Models as PyTorch's own exporters write them: outputs, gradients, a step of training, and back to a file.

ONNX Runtime says what the file computes, PyTorch what its gradients are.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import onnx
import pytest
from small_step import take_small_step

import nnlite.onnx as nx
from nnlite.tensors import Tensor

torch = pytest.importorskip("torch", reason="PyTorch makes these files; install nnlite[oracle]")

from export_models import MODELS, made  # noqa: E402  (needs torch)

LEGACY, DYNAMO = (11, 13, 17, 20), {18: tuple(MODELS), 23: ("resnet", "vit", "convnext", "tracker")}
"""Operator sets that either exporter is asked for; attention is written from 14 on."""
CASES = [
    *((name, "legacy", opset) for name in MODELS for opset in LEGACY if name != "vit" or opset > 13),
    *((name, "dynamo", opset) for opset, names in DYNAMO.items() for name in names),
]


@cache
def exported(name: str, exporter: str, opset: int) -> bytes:
    """The file that PyTorch writes."""
    model, inputs = made(name)
    names = [f"x{i}" for i in range(len(inputs))]
    if exporter == "legacy":
        file = io.BytesIO()
        torch.onnx.export(model, inputs, file, opset_version=opset, input_names=names, dynamo=False)
        return file.getvalue()
    program = torch.onnx.export(
        model, inputs, opset_version=opset, input_names=names, dynamo=True, verbose=False
    )
    return program.model_proto.SerializeToString()


def scaled(array, of, tolerance):
    """Equal within ``tolerance`` of the largest magnitude."""
    assert array.shape == of.shape
    np.testing.assert_allclose(array, of, rtol=0, atol=tolerance * max(float(np.abs(of).max()), 1e-3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "exporter", "opset"), CASES)
def test_an_exported_model(name, exporter, opset, run_ort, tmp_path):
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it; install nnlite[oracle]")
    data = exported(name, exporter, opset)
    model, inputs = made(name)
    feeds = [x.numpy() for x in inputs]
    module = nx.load(data)

    expected = run_ort(data, feeds)
    for y, wanted in zip(module.run(feeds), expected, strict=True):
        scaled(y, wanted, 1e-4)

    # Gradients of one number that all outputs and all of their elements enter.
    tensors = [Tensor(x, requires_grad=True) for x in feeds]
    outputs = module(*tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [
        np.random.default_rng(i).standard_normal(y.shape).astype(np.float32) for i, y in enumerate(outputs)
    ]
    sum(((y * w).sum() for y, w in zip(outputs, weights, strict=True)), Tensor(np.float32(0))).backward()
    for x in inputs:
        x.requires_grad_()
    theirs = model(*inputs)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    sum((y * torch.from_numpy(w)).sum() for y, w in zip(theirs, weights, strict=True)).backward()
    for ours, x in zip(tensors, inputs, strict=True):
        scaled(ours.grad.numpy(), x.grad.numpy(), 2e-3)
    known = {key: p for key, p in model.named_parameters() if p.grad is not None}
    for key, parameter in module.named_parameters():
        if key not in known or not np.array_equal(parameter.numpy(), known[key].detach().numpy()):
            continue  # the exporter folded a normalisation into it
        assert parameter.grad is not None, key
        scaled(parameter.grad.numpy(), known[key].grad.numpy(), 2e-3)

    def loss():
        results = module(*(Tensor(x) for x in feeds))
        return sum(((y - w) ** 2).mean() for y, w in zip(
            results if isinstance(results, tuple) else (results,), weights, strict=True
        ))  # fmt: skip

    for parameter in module.parameters():
        parameter.grad = None
    take_small_step(module.parameters(), loss, share=2e-3)
    nx.save(module, tmp_path / "tuned.onnx")
    onnx.checker.check_model(str(tmp_path / "tuned.onnx"))
    for y, wanted in zip(module.run(feeds), run_ort(tmp_path / "tuned.onnx", feeds), strict=True):
        scaled(y, wanted, 1e-4)
