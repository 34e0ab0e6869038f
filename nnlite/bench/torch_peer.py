"""PyTorch beside nnlite: kernels by its functional calls, networks by running the same graph in it.

Every case is timed in both of PyTorch's memory layouts, and the better one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnlite.bench.cases import KernelCase
from nnlite.geometry import Conv2dGeometry, NormGeometry, Pool2dGeometry
from nnlite.graph.ir import Graph
from nnlite.layout import Array
from nnlite.node import Node, Value

LAYOUTS = ("contiguous_format", "channels_last")


def use_threads(count: int) -> None:
    """As many threads as nnlite uses."""
    import torch

    torch.set_num_threads(count)


def kernel_calls(case: KernelCase, inputs: Mapping[str, Array]) -> dict[str, Callable[[], Any]]:
    """The case's call in each memory layout."""
    import torch

    calls = {}
    for layout in LAYOUTS:
        tensors = {name: _tensor(case, array, getattr(torch, layout)) for name, array in inputs.items()}
        calls[layout] = _call(case, tensors)
    return calls


def _tensor(case: KernelCase, array: Array, layout: Any) -> Any:
    """In PyTorch's own, aligned memory."""
    import torch

    if case.pictures is not None and array.ndim == 2:
        N, C, H, W = case.pictures
        array = array.reshape(N, H, W, C).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array)).clone(
        memory_format=layout if array.ndim == 4 else torch.contiguous_format
    )


def _call(case: KernelCase, t: dict[str, Any]) -> Callable[[], Any]:
    import torch

    g = case.geometry
    if isinstance(g, Conv2dGeometry):
        stride, pads, dilation = (
            [g.stride_h, g.stride_w],
            [g.pad_top, g.pad_left],
            [g.dilation_h, g.dilation_w],
        )
        if case.transposed:
            return _transposed_call(case, t, (stride, pads, dilation))
        if case.kernel == "conv2d_forward":
            return lambda: torch.nn.functional.conv2d(t["x"], t["w"], None, stride, pads, dilation, g.groups)
        masks = [case.kernel == "conv2d_grad_input", case.kernel == "conv2d_grad_weight", False]
        x = t.get("x", torch.empty(g.x_shape).to(memory_format=_format(t["gy"])))
        w = t.get("w", torch.empty(g.w_shape).to(memory_format=_format(t["gy"])))
        return lambda: torch.ops.aten.convolution_backward(
            t["gy"], x, w, None, stride, pads, dilation, False, [0, 0], g.groups, masks
        )
    if isinstance(g, NormGeometry):
        return _norm_call(case, t, g)
    if case.kernel.startswith("avg"):
        return _average_call(case, t, g)
    window = ([g.R, g.S], [g.stride_h, g.stride_w], [g.pad_top, g.pad_left])
    if case.kernel == "max_pool2d_forward":
        # With indices, as training needs them and as nnlite's kernel returns them.
        return lambda: torch.nn.functional.max_pool2d(t["x"], *window, return_indices=True)
    x = torch.empty(g.x_shape).to(memory_format=_format(t["gy"]))
    indices = t["indices"].long().contiguous(memory_format=_format(t["gy"]))
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return lambda: backward(t["gy"], x, *window, [1, 1], False, indices)


def _average_call(case: KernelCase, t: dict[str, Any], g: Pool2dGeometry) -> Callable[[], Any]:
    import torch

    options = (
        [g.R, g.S],
        [g.stride_h, g.stride_w],
        [g.pad_top, g.pad_left],
        False,
        bool(g.count_include_pad),
    )
    if case.kernel == "avg_pool2d_forward":
        return lambda: torch.nn.functional.avg_pool2d(t["x"], *options)
    x = torch.empty(g.x_shape).to(memory_format=_format(t["gy"]))
    return lambda: torch.ops.aten.avg_pool2d_backward(t["gy"], x, *options, None)


def _transposed_call(case: KernelCase, t: dict[str, Any], window: tuple[list[int], ...]) -> Callable[[], Any]:
    """The transposed layer takes gy and yields x: its forward pass is the convolution's input gradient."""
    import torch

    g = case.geometry
    assert isinstance(g, Conv2dGeometry)
    stride, pads, dilation = window
    if case.kernel == "conv2d_grad_input":
        convolve = torch.nn.functional.conv_transpose2d
        return lambda: convolve(t["gy"], t["w"], None, stride, pads, 0, g.groups, dilation)
    masks = [case.kernel == "conv2d_forward", case.kernel == "conv2d_grad_weight", False]
    gy = t.get("gy", torch.empty(g.y_shape).to(memory_format=_format(t["x"])))
    w = t.get("w", torch.empty(g.w_shape).to(memory_format=_format(t["x"])))
    return lambda: torch.ops.aten.convolution_backward(
        t["x"], gy, w, None, stride, pads, dilation, True, [0, 0], g.groups, masks
    )


def _norm_call(case: KernelCase, t: dict[str, Any], g: NormGeometry) -> Callable[[], Any]:
    import torch

    native = torch.ops.aten
    if case.kernel == "batch_norm_training_forward":

        def forward() -> Any:
            y = torch.nn.functional.batch_norm(
                t["x"], None, None, t["weight"], t["bias"], True, 0.1, g.epsilon
            )
            return torch.relu_(y) if g.activation else y

        return forward
    y = torch.nn.functional.batch_norm(t["x"], None, None, t["weight"], t["bias"], True, 0.1, g.epsilon)

    def backward() -> Any:
        gy = native.threshold_backward(t["gy"], y, 0.0) if g.activation else t["gy"]
        statistics = (None, None, t["mean"], t["inv_std"])
        return native.native_batch_norm_backward(
            gy, t["x"], t["weight"], *statistics, True, g.epsilon, [True, True, True]
        )

    return backward


def _format(tensor: Any) -> Any:
    import torch

    is_last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


# ------------------------------------------------------------------------------------- networks


class TorchGraph:
    """A graph run node by node with PyTorch's functional calls, as an eager module would."""

    def __init__(self, graph: Graph, arrays: Mapping[Value, Array], layout: str, training: bool) -> None:
        import torch

        self.graph = graph
        self.training = training
        self.layout = getattr(torch, layout)
        running = {
            value
            for node in graph.nodes
            if node.op.name == "batch_norm"
            for value in node.inputs[3:]
            if value
        }
        self.leaves: dict[Value, Any] = {}
        for value, array in arrays.items():
            tensor = torch.from_numpy(np.array(array, order="C"))
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=self.layout)
            trained = training and array.dtype.kind == "f" and value not in running
            self.leaves[value] = tensor.requires_grad_(trained)

    def parameters(self) -> list[Any]:
        """What is trained."""
        return [tensor for tensor in self.leaves.values() if tensor.requires_grad]

    def __call__(self, *inputs: Any) -> Any:
        """The first output."""
        values = dict(self.leaves)
        values.update(zip(self.graph.inputs, inputs, strict=True))
        for node in self.graph.nodes:
            operands = [None if value is None else values[value] for value in node.inputs]
            values[node.outputs[0]] = self._apply(node, operands)
        return values[self.graph.outputs[0]]

    def _apply(self, node: Node, operands: list[Any]) -> Any:
        from torch.nn import functional as T

        p: Mapping[str, Any] = node.params
        match node.op.name:
            case "conv2d":
                pads = _symmetric(p["padding"])
                return T.conv2d(*operands, p["stride"], pads, p["dilation"], p["groups"])
            case "batch_norm":
                x, weight, bias, mean, variance = operands
                return T.batch_norm(x, mean, variance, weight, bias, self.training, 0.1, p["epsilon"])
            case "relu":
                return T.relu(operands[0], inplace=True)
            case "clamp":
                return T.hardtanh(operands[0], p["minimum"], p["maximum"], inplace=True)
            case "max_pool2d":
                return T.max_pool2d(operands[0], p["kernel_size"], p["stride"], _symmetric(p["padding"]))
            case "adaptive_avg_pool2d":
                return T.adaptive_avg_pool2d(operands[0], p["output_size"])
            case "flatten":
                return operands[0].flatten(p["start"], p["end"])
            case "linear":
                return T.linear(*operands)
            case "add":
                return operands[0] + operands[1]
            case "dropout" | "identity":
                return operands[0]
        raise NotImplementedError(f"{node.op.name} has no counterpart here yet")


def _symmetric(padding: Any) -> Any:
    if isinstance(padding, int):
        return padding
    top, left, bottom, right = padding if len(padding) == 4 else (*padding, *padding)
    if (top, left) != (bottom, right):
        raise NotImplementedError(f"padding {padding} is not symmetric")
    return (top, left)
