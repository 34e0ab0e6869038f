"""Clamp: an elementwise operation with params, served by the activation kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np

from nnlite.errors import DTypeError
from nnlite.geometry import CLAMP
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Sample,
    register,
)
from nnlite.ops.runs import Kernel, evaluate


def clamp_shape(x: ArrayType, minimum: float | None, maximum: float | None) -> ArrayType:
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"clamp: x is {x.dtype}, not a number type; convert with astype")
    return x


@lru_cache(maxsize=1024)
def clamp_kernels(minimum: float | None, maximum: float | None) -> tuple[Kernel, Kernel]:
    options: dict[str, Any] = dict(
        activation=CLAMP,
        low=-inf if minimum is None else float(minimum),
        high=inf if maximum is None else float(maximum),
    )
    return Kernel("combine", **options), Kernel("activation_backward", **options)


def clamp_forward(ctx: Context, x: Array, minimum: float | None, maximum: float | None) -> Array:
    ctx.save(x)
    if (y := clamp_kernels(minimum, maximum)[0](x)) is not None:
        return y
    y = x
    if minimum is not None:
        y = evaluate(np.maximum, y, x.dtype.type(minimum))
    if maximum is not None:
        y = evaluate(np.minimum, y, x.dtype.type(maximum))
    return y


def clamp_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, low, high = ctx.saved[0], ctx.params["minimum"], ctx.params["maximum"]
    assert x is not None
    if (gx := clamp_kernels(low, high)[1](gy, x)) is not None:
        return (gx,)
    inside = ~np.isnan(x) if low is None else x >= low
    if high is not None:
        inside = inside & (x <= high)
    return (np.where(inside, gy, gy.dtype.type(0)),)


def clamp_samples() -> Iterator[Sample]:
    x = np.linspace(-3.03, 9.01, 24).reshape(2, 3, 4)
    yield Sample(x, minimum=0.0, maximum=6.0)
    yield Sample(x, minimum=-1.0, maximum=None)
    yield Sample(x, minimum=None, maximum=1.0)
    yield Sample(x, minimum=None, maximum=None)


def clamp_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(DTypeError, "not a number type", np.array(["a"]), minimum=0.0, maximum=1.0)


def read_clip(n: OnnxNode) -> Any:
    if n.version < 11:
        return n.emit("clamp", n.inputs[0], minimum=n.attribute("min"), maximum=n.attribute("max"))
    return n.emit("clamp", n.inputs[0], minimum=n.scalar(1), maximum=n.scalar(2))


def write_clip(w: OnnxWriter, node: Node) -> str:
    bounds = [node.params["minimum"], node.params["maximum"]]
    known = node.inputs[0].type if node.inputs[0] is not None else None
    dtype = np.float32 if known is None else known.dtype
    return w.add("Clip", [node.inputs[0], *(None if b is None else w.host(b, dtype) for b in bounds)])


register(
    Op(
        name="clamp",
        formula="y = min(max(x, minimum), maximum), elementwise; an absent bound does not bind",
        gradient="gy where minimum ≤ x ≤ maximum, else 0",
        source="ONNX Clip-13; torch.clamp",
        shape=clamp_shape,
        forward=clamp_forward,
        backward=clamp_backward,
        samples=clamp_samples,
        errors=clamp_errors,
        reads={"Clip": read_clip},
        writes=write_clip,
        kernels=("combine", "activation_backward"),
    )
)
