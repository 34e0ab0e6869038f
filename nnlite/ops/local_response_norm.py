"""Normalisation of each channel by its neighbours: local response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array, as_array
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


def lrn_shape(x: ArrayType, size: int, alpha: float, beta: float, k: float) -> ArrayType:
    if len(x.shape) < 2:
        raise ShapeError(f"local_response_norm: x has shape {list(x.shape)} but must be [N,C,...]")
    if size < 1:
        raise OperandError(f"local_response_norm: size={size} must be at least 1")
    if x.dtype.kind != "f":
        raise DTypeError(f"local_response_norm: x is {x.dtype} but must be floating-point; use astype")
    return x


def _window_sums(values: Array, before: int, size: int) -> Array:
    """Sums of values[:, c - before : c - before + size] along the channels, cut at the ends."""
    channels = values.shape[1]
    total = np.zeros_like(values)
    for shift in range(max(-before, -channels), min(size - before, channels)):
        low, high = max(0, -shift), min(channels, channels - shift)
        if low < high:
            total[:, low:high] += values[:, low + shift : high + shift]
    return total


def lrn_forward(ctx: Context, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    base = k + (alpha / size) * _window_sums(np.square(x), size // 2, size)
    y = as_array(x * base**-beta)
    ctx.save(x, base, y)
    return y


def lrn_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, base, y = ctx.saved
    assert x is not None and base is not None and y is not None
    size, alpha, beta = (ctx.params[name] for name in ("size", "alpha", "beta"))
    # x[c] enters the sums of the channels whose window holds c: the window the other way round.
    spread = _window_sums(gy * y / base, size - 1 - size // 2, size)
    return (gy * base**-beta - (2 * alpha * beta / size) * x * spread,)


def lrn_samples() -> Iterator[Sample]:
    yield Sample((2, 7, 3, 2), size=5, alpha=0.5, beta=0.75, k=2.0)
    yield Sample((2, 4, 3), size=4, alpha=0.1, beta=0.5, k=1.0, onnx=False)


def lrn_errors() -> Iterator[ErrorSample]:
    plain = dict(size=3, alpha=1e-4, beta=0.75, k=1.0)
    yield ErrorSample(ShapeError, "must be .N,C", (6,), **plain)
    yield ErrorSample(OperandError, "size=0", (2, 6), **plain | dict(size=0))
    yield ErrorSample(DTypeError, "floating-point", np.ones((2, 3), int), **plain)


def read_lrn(n: OnnxNode) -> Any:
    size = n.attribute("size")
    if size % 2 == 0:
        raise n.refuse(f"an even size={size} is not supported: runtimes disagree about where the window lies")
    return n.emit(
        "local_response_norm", n.inputs[0], size=size,
        alpha=n.attribute("alpha", 1e-4), beta=n.attribute("beta", 0.75), k=n.attribute("bias", 1.0),
    )  # fmt: skip


def write_lrn(w: OnnxWriter, node: Node) -> str:
    params = node.params
    if params["size"] % 2 == 0:
        raise OperandError(
            f"local_response_norm: ONNX puts the window of an even size={params['size']} elsewhere than "
            "PyTorch; use an odd size to export"
        )
    numbers = {"alpha": float(params["alpha"]), "beta": float(params["beta"]), "bias": float(params["k"])}
    return w.add("LRN", node.inputs, size=params["size"], **numbers)


register(
    Op(
        name="local_response_norm",
        formula="y[n,c] = x[n,c] / (k + alpha/size · Σ x[n, c-⌊size/2⌋ : c-⌊size/2⌋+size]²)^beta, the "
        "window cut at the first and last channel;  x and y [N,C,...]",
        gradient="b the base of the power; gx = gy · b^-beta - 2·alpha·beta/size · x · Σ gy · y / b over the "
        "windows that hold the channel",
        source="Krizhevsky et al. 2012; ONNX LRN-13; torch.nn.functional.local_response_norm",
        shape=lrn_shape,
        forward=lrn_forward,
        backward=lrn_backward,
        samples=lrn_samples,
        errors=lrn_errors,
        reads={"LRN": read_lrn},
        writes=write_lrn,
    )
)
