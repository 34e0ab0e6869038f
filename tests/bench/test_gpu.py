"""benchmarks/gpu.py: it says what is missing, and runs on the emulated GPU."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from nnlite import device
from nnlite.kernels import SPECS

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return import_module("gpu")


def test_without_a_gpu_it_says_so(gpu_benchmark, monkeypatch, capsys):
    monkeypatch.setattr(device, "missing_driver", lambda: "the NVIDIA driver finds no GPU")
    assert gpu_benchmark.main([]) == 2
    assert "needs an NVIDIA GPU: the NVIDIA driver finds no GPU" in capsys.readouterr().err


@pytest.mark.parametrize("match", ["pool", "batch norm", "3x3/1 depthwise", "1x1"])
def test_small_on_the_emulated_gpu(emulated_gpu, gpu_benchmark, tmp_path, capsys, match):
    file = tmp_path / "gpu.json"
    assert gpu_benchmark.main(["--small", "--match", match, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "cases right (seed" in shown
    rows = json.loads(file.read_text())["rows"]
    assert rows
    assert {row["variant"].partition(":")[0] for row in rows} == {"cuda"}
    assert all(row["seconds"]["nnlite"] > 0 and row["copy"] > 0 for row in rows)
    assert shown.rstrip().splitlines()[-1].endswith(" s"), "nothing was left out"


def test_a_wrong_kernel_stops_it(emulated_gpu, gpu_benchmark, monkeypatch, capsys):
    import nnlite.kernels.cuda as cuda

    inner = cuda._function

    def broken(name):
        def run(stream, values, *operands):
            inner(name)(stream, values, *operands)
            operands[1]._host[..., 0] *= 1.001

        return run if name == "max_pool2d_forward" else inner(name)

    broken.cache_clear = inner.cache_clear
    monkeypatch.setattr(cuda, "_function", broken)
    assert gpu_benchmark.main(["--small", "--match", "pool"]) == 1
    assert "WRONG: max 3x3/2" in capsys.readouterr().out


def _outputs(result):
    listed = result if isinstance(result, (tuple, list)) else [result]
    return [tensor for tensor in listed if tensor is not None]


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_the_peer_computes_the_same(emulated_gpu, gpu_benchmark, monkeypatch, products):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; install nnlite[oracle]")
    sides = import_module("gpu_sides")
    monkeypatch.setattr(sides, "PEER", "cpu")
    rng, seen = np.random.default_rng(0), set()
    for case in sides.cases(2, 16):
        if (case.group, case.kernel) in seen or products not in sides.kinds(case):
            continue
        seen.add((case.group, case.kernel))
        inputs, there, decision = sides.operands(case, rng)
        sides.runner(case, there, decision)()
        own = device.to_host(there[SPECS[case.kernel].outputs[0]])
        theirs = _outputs(sides.peer(case, inputs, products, torch)())[0].detach().float().numpy()
        if own.ndim == 2:  # rows of pictures
            theirs = theirs.transpose(0, 2, 3, 1).reshape(own.shape)
        rounded = 2e-2 if products == "bfloat16" else 1e-5
        np.testing.assert_allclose(theirs, own, rtol=0, atol=rounded * np.abs(own).max(), err_msg=str(case))
    assert len(seen) >= (15 if products == "float32" else 9)


def test_a_step_beside_the_peers(gpu, gpu_benchmark, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; install nnlite[oracle]")
    sides = import_module("gpu_sides")
    monkeypatch.setattr(sides, "PEER", "cpu")
    for products in ("float32", "bfloat16"):
        both = sides.step_sides("small_cnn", products, torch, batch=4, side=32)
        for step, _ in both.values():
            step()
