"""Moving an array to another device, and its gradient back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnlite import device as devices
from nnlite.errors import OperandError
from nnlite.layout import Array
from nnlite.ops.record import ArrayType, Context, ErrorSample, Needs, Op, Sample, register


def to_device_shape(x: ArrayType, device: str) -> ArrayType:
    if device != devices.CPU and not device.startswith("cuda:"):
        raise OperandError(f"to_device: device={device!r} must be 'cpu' or 'cuda:<number>'")
    return x


def to_device_forward(ctx: Context, x: Array, device: str) -> Array:
    ctx.values["from"] = devices.device_of(x)
    return devices.moved(x, device)


def to_device_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (devices.moved(gy, ctx.values["from"]),)


def _not_written(writer: Any, node: Any) -> Any:
    return writer.add("Identity", node.inputs)  # a file says nothing of devices


register(
    Op(
        name="to_device",
        formula="y = x, in the memory of ``device``",
        gradient="gx = gy, in the memory that x is in",
        source="torch.Tensor.to",
        shape=to_device_shape,
        forward=to_device_forward,
        backward=to_device_backward,
        samples=lambda: [
            Sample((2, 3, 4, 5), device="cpu"),
            Sample(np.array([1, 2]), device="cpu", gradcheck=False),
        ],
        errors=lambda: [ErrorSample(OperandError, "must be 'cpu' or", (2,), device="tpu")],
        writes=_not_written,
    )
)
