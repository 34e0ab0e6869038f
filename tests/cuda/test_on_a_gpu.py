"""What the stand-in shows of the Python side, on a real GPU with the real CuPy."""

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
from nnlite.data.prefetch import on_device
from nnlite.errors import OutOfMemoryError
from nnlite.tensors import Tensor

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if device.missing_driver() is not None:
        pytest.skip("no NVIDIA GPU on this machine")
    pytest.importorskip("cupy", reason="CuPy is not installed; install nnlite[cuda12] or nnlite[cuda13]")


def _results(op, sample, where):
    arrays = [None if a is None else device.moved(a, where) for a in sample.arrays(dtype=np.float32)]
    wanted = []
    if op.backward is not None and sample.gradcheck:
        wanted = differentiable(op, arrays)
    leaves = [None if a is None else Tensor(a, i in wanted) for i, a in enumerate(arrays)]
    outputs = run(op, leaves, sample.params)
    if wanted:
        gy = output_gradient(op, sample, np.float32)
        outputs[0].backward(Tensor(device.moved(gy, outputs[0].device)))
    return [device.to_host(t.array) for t in (*outputs, *(leaves[i].grad for i in wanted))]


def test_every_op():
    wrong = []
    for case in CASES:
        op, sample = case.values
        if any(a is not None and a.dtype.kind not in "fiub" for a in sample.arrays()):
            continue
        try:
            for actual, expected in zip(*(_results(op, sample, d) for d in ("cuda:0", "cpu")), strict=True):
                assert_close(actual, expected, 5e-6)
        except nl.errors.DeviceError:
            assert sample.params.get("reduction") == "mul", case.id
        except Exception as error:
            wrong.append(f"{case.id}: {type(error).__name__}: {error}"[:300])
    assert not wrong, "\n".join(wrong)


def test_training_equals_the_cpus():
    losses = []
    for where in ("cpu", "cuda"):
        nl.manual_seed(0)
        net = nl.nn.Sequential(
            nl.nn.Conv2d(3, 16, 3, bias=False), nl.nn.BatchNorm2d(16), nl.nn.ReLU(), nl.nn.MaxPool2d(2),
            nl.nn.Dropout(0.2), nl.nn.Flatten(), nl.nn.Linear(16 * 49, 10),
        ).to(where)  # fmt: skip
        optimiser = nl.optim.AdamW(net.parameters(), lr=1e-3)
        x = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)
        for _ in range(5):
            loss = F.cross_entropy(net(nl.tensor(x, device=where)), np.arange(32) % 10)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[5:] == pytest.approx(losses[:5], rel=1e-3)


def test_a_plan_equals_the_cpus(mobilenet_path):
    model = nl.onnx.load(mobilenet_path)
    x = np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32)
    expected, found = model.compile()(x), model.compile(device="cuda")(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_memory_is_shared_with_pytorch_both_ways():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; install nnlite[oracle]")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch was made without CUDA")
    theirs = torch.zeros(2, 3, 4, 4, device="cuda").to(memory_format=torch.channels_last)
    ours = nl.asarray(theirs)
    theirs[1, 2, 3, 3] = 7
    torch.cuda.synchronize()
    assert ours.device == "cuda:0"
    assert float(ours._array[1, 2, 3, 3]) == 7
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()
    assert torch.as_tensor(ours, device="cuda").data_ptr() == theirs.data_ptr()


def test_batches_are_copied_while_something_is_computed():
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((16, 3, 64, 64)).astype(np.float32), i) for i in range(12)]
    sums = [float(nl.asarray(images).sum().item()) for images, _ in on_device(batches, "cuda:0")]
    assert sums == pytest.approx(
        [float(images.sum(dtype=np.float64)) for images, _ in batches], rel=1e-3, abs=1
    )


def test_running_out_of_memory_says_how_much():
    shapes = (1 << 21, 1), (1, 1 << 21)
    rows, columns = (nl.tensor(np.ones(shape, np.float32), device="cuda") for shape in shapes)
    with pytest.raises(OutOfMemoryError, match=r"add\(.* free; nnlite uses .*use smaller batches"):
        _ = rows + columns
