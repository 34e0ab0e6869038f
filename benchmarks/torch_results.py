"""The recipe of benchmarks/results.py in PyTorch: a head on frozen features, then the last stage with it.

The network is the same ONNX file, run node by node, so that both sides start from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

BATCH, SMOOTHING, DECAY = 32, 0.1, 0.01
Start = tuple[np.ndarray, Callable[[int, int], np.ndarray]]
"""First weights of the head [classes, features], and the order of the pictures in (phase, epoch)."""


class OnnxNetwork(nn.Module):
    """The nodes of a classifier's file; runs from any value to any other."""

    def __init__(self, path: str, classes: int) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        self.nodes, self.begin, self.end = list(graph.node), graph.input[0].name, graph.output[0].name
        arrays = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        head = next(n for n in reversed(self.nodes) if n.op_type == "Gemm")
        self.features = head.input[0]
        width = arrays[head.input[1]].shape[1]
        layer = nn.Linear(width, classes)
        arrays[head.input[1]], arrays[head.input[2]] = layer.weight.data, torch.zeros(classes)
        self.head = [head.input[1], head.input[2]]
        self.names = list(arrays)
        self.values = [nn.Parameter(a, False) if a.is_floating_point() else a for a in arrays.values()]

    def forward(self, x: torch.Tensor, begin: str | None = None, end: str | None = None) -> torch.Tensor:
        known: dict[str, Any] = {begin or self.begin: x}
        arrays = dict(zip(self.names, self.values, strict=True))
        for node in self.nodes:
            if node.op_type == "Constant":
                known[node.output[0]] = torch.from_numpy(numpy_helper.to_array(node.attribute[0].t).copy())
                continue
            inputs = [known.get(name, arrays.get(name)) if name else None for name in node.input]
            if inputs[0] is None or node.output[0] in known:
                continue  # before ``begin``
            known[node.output[0]] = run_node(node, inputs)
            if node.output[0] == (end or self.end):
                break
        return known[end or self.end]


def run_node(node: onnx.NodeProto, inputs: list[Any]) -> Any:
    a = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    x = inputs[0]
    if node.op_type == "Conv":
        top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
        w, bias = inputs[1], inputs[2] if len(inputs) > 2 else None
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, w, bias, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))
    if node.op_type == "BatchNormalization":
        return F.batch_norm(x, inputs[3], inputs[4], inputs[1], inputs[2], False, 0.0, a.get("epsilon", 1e-5))
    if node.op_type == "Clip":
        return torch.clamp(x, float(inputs[1]), float(inputs[2]))
    if node.op_type == "Add":
        return x + inputs[1]
    if node.op_type == "GlobalAveragePool":
        return x.mean((2, 3), keepdim=True)
    if node.op_type == "ReduceMean":
        return x.mean((2, 3), keepdim=bool(a.get("keepdims", 1)))
    if node.op_type in ("Flatten", "Reshape"):
        return x.flatten(1)
    if node.op_type == "Gemm":
        return F.linear(x, inputs[1], inputs[2])
    if node.op_type in ("Dropout", "Identity"):
        return x
    raise SystemExit(f"{node.op_type}: not a part of the networks that are compared")


def fit(
    net: OnnxNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    begin: str,
    groups: list[dict[str, Any]],
    epochs: int,
    order: Callable[[int], torch.Tensor],
) -> None:
    """AdamW, one epoch of warm-up at most a tenth, then a cosine; label smoothing."""
    optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
    steps = -(-len(x) // BATCH)
    total, warm = epochs * steps, min(steps, epochs * steps // 10)

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(total - warm, 1))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for epoch in range(epochs):
        for chosen in order(epoch).split(BATCH):
            loss = F.cross_entropy(net(x[chosen], begin), y[chosen], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def accuracies(
    path: str,
    cut: str,
    train: tuple[np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray],
    starts: list[Start | None],
) -> list[float]:
    """Held-out accuracy for each seed, from its start or one of its own; pictures are [N,3,H,W]."""
    torch.set_num_threads(2)
    result, at_cut = [], []
    for seed, start in enumerate(starts):
        torch.manual_seed(seed)
        net = OnnxNetwork(path, int(train[1].max()) + 1).eval()
        if not at_cut:
            with torch.no_grad():
                for images, _ in (train, held):
                    batches = torch.from_numpy(images).split(32)
                    at_cut.append(torch.cat([net(batch, None, cut) for batch in batches]))
        x, y = at_cut[0], torch.from_numpy(train[1])
        with torch.no_grad():
            features = net(x, cut, net.features)
        by_name = dict(zip(net.names, net.values, strict=True))
        own = [by_name[name].requires_grad_(True) for name in net.head]
        if start is not None:
            own[0].data.copy_(torch.from_numpy(start[0].copy()))

        order = partial(order_of, start, len(y))
        fit(net, features, y, net.features, [{"params": own, "lr": 3e-3}], 20, partial(order, 0))
        after = [n for n in net.nodes[position(net, cut) :] if n.op_type in ("Conv", "Gemm")]
        used = {name for node in after for name in node.input[1:]}
        stage = [by_name[n].requires_grad_(True) for n in net.names if n in used and n not in net.head]
        groups = [{"params": stage, "lr": 1e-4}, {"params": own, "lr": 3e-4}]
        fit(net, x, y, cut, groups, 8, partial(order, 1))
        with torch.no_grad():
            result.append(float((net(at_cut[1], cut).argmax(1).numpy() == held[1]).mean()))
    return result


def order_of(start: Start | None, pictures: int, phase: int, epoch: int) -> torch.Tensor:
    return torch.randperm(pictures) if start is None else torch.from_numpy(start[1](phase, epoch))


def position(net: OnnxNetwork, value: str) -> int:
    return next(i for i, node in enumerate(net.nodes) if value in node.output) + 1
