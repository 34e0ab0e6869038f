"""The bench: its figures mean what they say, and its peer computes the same network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from nnlite import functional as F
from nnlite import random, threads, zoo
from nnlite.bench.cases import KERNEL_CASES, KernelCase
from nnlite.bench.footprint import measure_memory
from nnlite.bench.layers import measure_threads, own_call, random_inputs
from nnlite.bench.machine import Machine
from nnlite.bench.networks import network, openvino_inference, pictures
from nnlite.bench.report import geometric_mean, roofline_svg, summary, table_rows
from nnlite.bench.row import Row
from nnlite.bench.timing import alternate
from nnlite.cli.commands import nnlite
from nnlite.geometry import conv2d_geometry
from nnlite.graph import GraphModule, trace
from nnlite.tensors import Tensor

MACHINE = Machine("a processor", "avx2", 2, 400e9, 20e9)


def test_flops_and_bytes_of_a_case_by_hand() -> None:
    case = KernelCase("3x3", "tiny", "conv2d_forward", conv2d_geometry((1, 2, 4, 4), (3, 2, 3, 3)))
    assert case.flops == 2 * 3 * 2 * 2 * (2 * 3 * 3)
    assert case.bytes == 4 * (2 * 4 * 4 + 3 * 2 * 3 * 3 + 3 * 2 * 2)  # the bias is left out


def test_one_thread_is_a_side_of_its_own_and_the_threads_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = KernelCase("1x1", "tiny", "conv2d_forward", conv2d_geometry((1, 2, 4, 4), (3, 2, 1, 1)))
    monkeypatch.setattr("nnlite.bench.layers.KERNEL_CASES", (case,))
    before = threads.get_num_threads()
    threads.set_num_threads(2)
    try:
        [row] = measure_threads(MACHINE, [], ["auto"], 3, "")
        assert threads.get_num_threads() == 2
    finally:
        threads.set_num_threads(before)
    assert row.ratios == {"1 thread": row.seconds["1 thread"] / row.seconds["auto"]}


def test_memory_grows_by_what_a_step_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnlite.bench.footprint.TRAINING_CASES", (("small_cnn", 256, 32),))
    [footprint] = measure_memory([], "")
    # Backward needs at least the outputs of both convolutions: 256 x (32·32·32 + 64·16·16) numbers.
    assert footprint.growth["own"] > 4 * 256 * (32 * 32 * 32 + 64 * 16 * 16)
    assert footprint.ratios == {}


def test_cases_are_distinct() -> None:
    assert len({(case.kernel, case.geometry) for case in KERNEL_CASES}) == len(KERNEL_CASES)


def test_roofline_is_the_lower_of_two_ceilings() -> None:
    assert MACHINE.roofline(1e9, 1e9) == 20e9  # one operation per byte: bound by memory
    assert MACHINE.roofline(1e12, 1e9) == 400e9  # a thousand: bound by arithmetic
    assert Machine("a processor", "none", 2, None, 20e9).roofline(1, 1) is None


def test_sides_alternate_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = [100, 900, 100, 900, 3, 30, 1, 10, 2, 20]  # of a and b in turn, two rounds of warm-up
    ticks = [tick for i, seconds in enumerate(durations) for tick in (1000 * i, 1000 * i + seconds)]
    clock, calls = iter(ticks), []
    monkeypatch.setattr("nnlite.bench.timing.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("nnlite.bench.timing.time.sleep", lambda seconds: None)
    taken = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "a", "b", "b"] * 5  # each once untimed, then timed
    assert taken == {"a": 2, "b": 20}


def _row(name: str, ratio: float, gflops: float = 100.0) -> Row:
    seconds = {"auto": 0.001, "torch": ratio / 1000}
    what, variant = "conv2d_forward", "native:igemm"
    return Row("kernels", "3x3", name, what, variant, seconds, gflops, 10.0, 0.5, {"torch": ratio})


def test_summary_is_the_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert summary([_row("one", 2.0), _row("two", 8.0)])[1] == ["3x3", "conv2d_forward", "2", "4.00"]
    assert table_rows([_row("one", 2.0)])[1][-1] == "2.00"


def test_plot_is_well_formed_and_has_a_point_per_row() -> None:
    rows = [_row("one", 2.0, 100), _row("two", 1.0, 50)]
    root = ElementTree.fromstring(roofline_svg(rows, MACHINE))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [
        "one, conv2d_forward: 100 GFLOP/s, 10.0 FLOP/byte",
        "two, conv2d_forward: 50 GFLOP/s, 5.0 FLOP/byte",
    ]


@pytest.mark.parametrize("kernel", ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"])
def test_torch_runs_the_same_transposed_layer(kernel: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is the peer whose results are compared")
    from nnlite.bench.torch_peer import kernel_calls

    geometry = conv2d_geometry((2, 5, 8, 6), (7, 5, 4, 4), (2, 2), (1, 1, 1, 1))
    case = KernelCase("transposed", "tiny", kernel, geometry, transposed=True)
    inputs = random_inputs(case)
    outputs = own_call(case, inputs)()
    assert isinstance(outputs, list)
    for call in kernel_calls(case, inputs).values():
        result = call()  # one tensor, or those of three gradients that were asked for
        [theirs] = [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]
        np.testing.assert_allclose(outputs[0], theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torch_runs_the_same_network(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the peer whose results are compared")
    from nnlite.bench.torch_peer import TorchGraph

    random.manual_seed(0)
    model = getattr(zoo, name)(num_classes=5)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    graph, leaves = trace(model, [Tensor(x)])
    # In float64: batch statistics of two pictures amplify float32's rounding by orders of magnitude.
    arrays = {value: leaves[value].numpy().astype(np.float64) for value in graph.arrays}
    own = GraphModule(replace(graph, arrays=arrays)).train()
    for node in own.graph.nodes:
        if node.op.name == "dropout":  # the peer has none
            node.params["p"] = 0.0
    peer = TorchGraph(graph, arrays, "channels_last", training=True)
    labels = np.arange(2)
    loss = F.cross_entropy(own(Tensor(x.astype(np.float64))), labels)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(peer(torch.from_numpy(x).double()), torch.from_numpy(labels))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    by_name = {value.name: tensor for value, tensor in peer.leaves.items()}
    for parameter_name, parameter in own.named_parameters():
        assert parameter.grad is not None
        gradient = by_name[parameter_name].grad.numpy()
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-6, atol=1e-8)


def test_efficientnet_lite0_has_the_parameters_of_the_published_network() -> None:
    assert sum(parameter.size for parameter in network("efficientnet_lite0").parameters()) == 4_652_008


def test_openvino_runs_the_same_network() -> None:
    pytest.importorskip("openvino", reason="there is no OpenVINO to compare with")
    model = network("small_cnn", 10).eval()
    x = pictures(2, 32)
    [result] = openvino_inference(model, x)().values()
    np.testing.assert_allclose(result, model(Tensor(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_command_measures_and_writes(tmp_path: Path) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "roof.svg"
    case = ["--match", "960@7 b16 conv2d_forward", "--repeats", "3", "--backend", "auto,reference"]
    arguments = ["bench", "kernels", *case]
    result = CliRunner().invoke(nnlite, [*arguments, "--json", str(figures), "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    rows = json.loads(figures.read_text())["rows"]
    assert [row["name"] for row in rows] == ["3x3/1 depthwise 960@7 b16"]
    assert set(rows[0]["seconds"]) == {"auto", "reference"}
    assert rows[0]["ratios"]["reference"] == pytest.approx(
        rows[0]["seconds"]["reference"] / rows[0]["seconds"]["auto"]
    )
    assert "reference / own" in result.output
    ElementTree.fromstring(plot.read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "caffe"], "must be one or more of torch, onnxruntime"),
        (["--match", "no such case"], "no case of kernels"),
        (["--backend", "cuda9"], "cannot be used"),
        (["--backend", ","], "name at least one backend"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(nnlite, ["bench", "kernels", *arguments])
    assert result.exception is not None
    assert message in str(result.exception)


def test_mistakes_of_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(nnlite, ["bench", "memory", "--match", "no such case"])
    assert "no training case has this in its name" in str(result.exception)
    monkeypatch.setattr(threads, "get_num_threads", lambda: 1)
    result = CliRunner().invoke(nnlite, ["bench", "threads"])
    assert "there is one thread to use; set NNLITE_NUM_THREADS to 2 or more" in str(result.exception)
