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
from nnlite.zoo.blocks import conv_norm_act, he_initialised
from nnlite.zoo.efficientnet import STAGES


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


class LiteBlock(nn.Module):
    """EfficientNet-lite's block: MobileNetV2's with any kernel, x [N,inputs,H,W]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        hidden = inputs * expansion
        layers = [] if expansion == 1 else [conv_norm_act(inputs, hidden, 1, act=nn.ReLU6)]
        layers.append(conv_norm_act(hidden, hidden, kernel, stride, hidden, nn.ReLU6))
        layers.append(conv_norm_act(hidden, outputs, 1, act=None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """block(x), plus x where that fits."""
        return x + self.block(x) if self.residual else self.block(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 without squeeze-and-excitation, with ReLU6: x [N,3,H,W] -> logits [N,classes].

    Source: the reference code of Tan and Le 2019, ``efficientnet_lite``.
    """

    def __init__(self, num_classes: int) -> None:
        layers: list[nn.Module] = [conv_norm_act(3, 32, 3, 2, act=nn.ReLU6)]
        inputs = 32
        for expansion, kernel, stride, outputs, count in STAGES:
            for index in range(count):
                layers.append(LiteBlock(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        layers.append(conv_norm_act(inputs, 1280, 1, act=nn.ReLU6))
        self.features = he_initialised(nn.Sequential(*layers))
        self.avgpool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


OWN_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "small_cnn": lambda classes: SmallCNN(),
    "efficientnet_lite0": EfficientNetLite0,
}
"""Those that the zoo does not have."""


def network(name: str, classes: int = 1000) -> nn.Module:
    """A network of the zoo or of this module, with the initial weights of seed 0."""
    random.manual_seed(0)
    if name in OWN_NETWORKS:
        return OWN_NETWORKS[name](classes)
    model: nn.Module = getattr(zoo, name)(num_classes=classes)
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
        if "openvino" in peers:
            sides["openvino"] = openvino_inference(model, x)
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


def _file_of(model: nn.Module, x: Array) -> bytes:
    """The ONNX file that other engines read."""
    from nnlite.onnx import to_model

    data: bytes = to_model(model, inputs=[x[:1]]).SerializeToString()
    return data


def _onnxruntime_inference(model: nn.Module, x: Array) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.get_num_threads()
    session = onnxruntime.InferenceSession(_file_of(model, x), options, providers=["CPUExecutionProvider"])
    contiguous = np.ascontiguousarray(x)
    return lambda: session.run(None, {"input": contiguous})


def openvino_inference(model: nn.Module, x: Array) -> Callable[[], object]:
    """A forward pass in float32, which OpenVINO does not choose where the processor multiplies bfloat16."""
    import openvino

    core = openvino.Core()
    read = core.read_model(_file_of(model, x))
    read.reshape(list(x.shape))
    options = {
        "INFERENCE_NUM_THREADS": threads.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(read, "CPU", options)
    contiguous = np.ascontiguousarray(x)
    return lambda: compiled(contiguous)
