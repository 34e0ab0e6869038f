"""Whole networks: training steps and inference, beside the same network in other engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import autograd, kernels, nn, random, threads, zoo
from nnlite import functional as F
from nnlite.bench.cases import INFERENCE_CASES, TRAINING_CASES
from nnlite.bench.machine import Machine
from nnlite.bench.row import Row, make_row
from nnlite.bench.timing import alternate
from nnlite.bench.torch_peer import LAYOUTS
from nnlite.graph import GraphModule, fold_batch_norm, trace
from nnlite.layout import Array, channels_last
from nnlite.optim import SGD
from nnlite.tensors import Tensor


class SmallCNN(nn.Module):
    """The network that surveys print (docs/survey.md): two convolutions, x [N,3,32,32] -> logits [N,10]."""

    def __init__(self) -> None:
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(F.flatten(x, 1))))


def network(name: str, classes: int = 1000) -> nn.Module:
    """A network of the zoo, or ``small_cnn``, with the initial weights of seed 0."""
    random.manual_seed(0)
    model: nn.Module = SmallCNN() if name == "small_cnn" else getattr(zoo, name)(num_classes=classes)
    return model


def _settled(model: nn.Module) -> nn.Module:
    """``model`` in evaluation mode, its running statistics measured on noise.

    With the initial ones activations of a deep network shrink to denormals, which cost engines that do
    not flush them ten times the time and say nothing about a trained network.
    """
    model.train()
    with autograd.no_grad():
        for _ in range(30):
            model(Tensor(pictures(8, 96)))
    return model.eval()


def _macs(model: nn.Module, x: Array) -> int:
    from nnlite.graph import infer_types, node_macs

    graph, _ = trace(model, [Tensor(x[:1])])
    types = infer_types(graph, {value: value.type for value in graph.inputs if value.type is not None})
    return sum(node_macs(node, types) for node in graph.nodes) * len(x)


def pictures(batch: int, side: int) -> Array:
    """Noise, [batch, 3, side, side]."""
    rng = np.random.default_rng(0)
    return channels_last(rng.standard_normal((batch, 3, side, side)).astype(np.float32))


def measure_training(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    """Forward, loss, backward, SGD with momentum."""
    for name, batch, side in TRAINING_CASES:
        if match not in name:
            continue
        x, labels = pictures(batch, side), np.arange(batch) % 10
        model = network(name)
        sides = {backend: own_step(model, x, labels, backend) for backend in backends}
        if "torch" in peers:
            sides |= torch_steps(model, x, labels)
        seconds = alternate(sides, repeats)
        flops = 3 * 2 * _macs(model, x)  # backward costs two forwards
        case = f"{name} b{batch}@{side}"
        yield make_row(
            "training", name, case, "step", backends[0], seconds, flops, None, machine, backends[0]
        )


def own_step(model: nn.Module, x: Array, labels: Array, backend: str) -> Callable[[], object]:
    """A function that does one step."""
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> object:
        with kernels.use_backend(backend):
            model.train()
            loss = F.cross_entropy(model(Tensor(x)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    return step


def torch_steps(
    model: nn.Module, x: Array, labels: Array, layouts: Sequence[str] = LAYOUTS
) -> dict[str, Callable[[], object]]:
    """The same step in PyTorch, by memory layout."""
    import torch

    from nnlite.bench.torch_peer import TorchGraph

    graph, leaves = trace(model, [Tensor(x[:1])])
    arrays = {value: leaves[value].numpy() for value in graph.arrays}
    target = torch.from_numpy(labels)
    steps: dict[str, Callable[[], object]] = {}
    for layout in layouts:
        peer = TorchGraph(graph, arrays, layout, training=True)
        optimizer = torch.optim.SGD(peer.parameters(), lr=1e-3, momentum=0.9)
        images = torch.from_numpy(np.ascontiguousarray(x)).contiguous(memory_format=peer.layout)

        def step(peer: TorchGraph = peer, optimizer: Any = optimizer, images: Any = images) -> object:
            loss = torch.nn.functional.cross_entropy(peer(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        steps[f"torch {layout}"] = step
    return steps


def measure_inference(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    """One forward pass of a frozen network."""
    for name, batch, side in INFERENCE_CASES:
        if match not in name:
            continue
        x = pictures(batch, side)
        model = _settled(network(name))
        graph, _ = trace(model, [Tensor(x[:1])])
        sides = {backend: _own_inference(graph, x, backend) for backend in backends}
        if "torch" in peers:
            sides |= _torch_inference(graph, x)
        if "onnxruntime" in peers:
            sides["onnxruntime"] = _onnxruntime_inference(model, x)
        seconds = alternate(sides, repeats)
        flops = 2 * _macs(model, x)
        case = f"{name} b{batch}@{side}"
        yield make_row(
            "inference", name, case, "forward", backends[0], seconds, flops, None, machine, backends[0]
        )


def _own_inference(graph: Any, x: Array, backend: str) -> Callable[[], object]:
    plan = GraphModule(graph).freeze().eval().compile()

    def call() -> object:
        with kernels.use_backend(backend):
            return plan(x)

    return call


def _torch_inference(graph: Any, x: Array) -> dict[str, Callable[[], object]]:
    import torch

    from nnlite.bench.torch_peer import TorchGraph

    folded = fold_batch_norm(graph)
    calls: dict[str, Callable[[], object]] = {}
    for layout in LAYOUTS:
        peer = TorchGraph(folded, folded.arrays, layout, training=False)
        images = torch.from_numpy(np.ascontiguousarray(x)).contiguous(memory_format=peer.layout)

        def call(peer: TorchGraph = peer, images: Any = images) -> object:
            with torch.inference_mode():
                return peer(images)

        calls[f"torch {layout}"] = call
    return calls


def _onnxruntime_inference(model: nn.Module, x: Array) -> Callable[[], object]:
    import onnxruntime

    from nnlite.onnx import to_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.get_num_threads()
    data = to_model(model, inputs=[x[:1]]).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    contiguous = np.ascontiguousarray(x)
    return lambda: session.run(None, {"input": contiguous})
