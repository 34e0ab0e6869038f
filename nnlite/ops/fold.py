"""Columns added up as the windows of a picture: fold, the adjoint of cutting a picture into windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array
from nnlite.memory import check_budget, max_tensor_bytes
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
from nnlite.ops.window import Ints, Window, kernel_at, window_of


def _window(
    x: Ints, size: Sequence[int], kernel_size: Sequence[int], stride: Ints | None, padding: Ints | None,
    dilation: Ints | None,
) -> tuple[Window, int]:  # fmt: skip
    """How the windows lie, and the number of channels."""
    size, kernel = tuple(map(int, size)), tuple(map(int, kernel_size))
    if len(size) != len(kernel) or len(size) < 1 or min(size) < 1:
        raise ShapeError(
            f"fold: size {list(size)} and kernel_size {list(kernel)} must be as many, of at least 1"
        )
    ones = (1,) * len(size)
    padding = padding or (0,) * (2 * len(size))
    window = window_of("fold", size, kernel, stride or ones, padding, dilation or ones)
    parts, count = int(np.prod(kernel)), int(np.prod(window.out))
    if len(x) != 3 or x[1] % parts or x[2] != count:
        wanted = f"[N, C·{parts}, {'·'.join(map(str, window.out))}]"
        raise ShapeError(f"fold: x has shape {list(x)} but size {list(size)} needs {wanted}")
    return window, x[1] // parts


def _padded(window: Window, size: Sequence[int]) -> Ints:
    return tuple(
        max(before + int(n) + after, (o - 1) * s + d * (k - 1) + 1)
        for n, before, after, o, s, d, k in zip(
            size, window.before, window.after, window.out, window.stride, window.dilation, window.kernel,
            strict=True,
        )
    )  # fmt: skip


def fold_shape(x: ArrayType, size: Sequence[int], **params: Any) -> ArrayType:
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"fold: x is {x.dtype} but must hold numbers")
    window, channels = _window(x.shape, size, **params)
    y = (x.shape[0], channels, *_padded(window, size))
    check_budget("fold", [(y, x.dtype)], max_tensor_bytes())
    return ArrayType((x.shape[0], channels, *map(int, size)), x.dtype)


def fold_forward(ctx: Context, x: Array, size: Sequence[int], **params: Any) -> Array:
    window, channels = _window(x.shape, size, **params)
    ctx.values.update(window=window, shape=x.shape)
    columns = x.reshape(x.shape[0], channels, *window.kernel, *window.out)
    y = np.zeros((x.shape[0], channels, *_padded(window, size)), x.dtype, like=x)
    for at, where in window.pieces():
        y[where] += columns[kernel_at(at)]
    return window.inside(y, tuple(map(int, size)))


def fold_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    window, shape = ctx.values["window"], ctx.values["shape"]
    padded = window.padded(gy, 0)
    gx = np.empty((*gy.shape[:2], *window.kernel, *window.out), gy.dtype, like=gy)
    for at, where in window.pieces():
        gx[kernel_at(at)] = padded[where]
    return (gx.reshape(shape),)


_PLAIN: dict[str, Any] = dict(
    size=(4, 5), kernel_size=(2, 3), stride=(1, 1), padding=(0,) * 4, dilation=(1, 1)
)


def fold_samples() -> Iterator[Sample]:
    yield Sample((2, 12, 9), **_PLAIN)
    yield Sample((1, 6, 9), **_PLAIN | dict(size=(5, 5), stride=(2, 2), padding=(1, 1, 0, 1)))
    yield Sample((1, 4, 6), **_PLAIN | dict(size=(4, 5), kernel_size=(2, 2), stride=(1, 1), dilation=(2, 2)))
    three = dict(
        size=(3, 4, 2), kernel_size=(2, 2, 1), stride=(1, 2, 1), padding=(0,) * 6, dilation=(1, 1, 1)
    )
    yield Sample((1, 8, 8), **_PLAIN | three)


def fold_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, r"needs .N, C·6, 3·3", (2, 12, 8), **_PLAIN)
    yield ErrorSample(ShapeError, r"needs .N, C·6", (2, 10, 9), **_PLAIN)
    yield ErrorSample(ShapeError, "must be as many", (2, 12, 9), **_PLAIN | dict(size=(4,)))
    yield ErrorSample(ShapeError, "stride", (2, 12, 9), **_PLAIN | dict(stride=(0, 1)))
    yield ErrorSample(DTypeError, "must hold numbers", np.zeros((2, 12, 9), bool), **_PLAIN)


def read_col2im(n: OnnxNode) -> Any:
    names = {"stride": "strides", "padding": "pads", "dilation": "dilations"}
    lists: dict[str, Any] = {ours: n.attribute(theirs) or None for ours, theirs in names.items()}
    return n.emit("fold", n.inputs[0], size=n.host(1), kernel_size=n.host(2), **lists)


def write_fold(w: OnnxWriter, node: Node) -> str:
    if w.version < 18:
        raise ShapeError("fold: ONNX knows Col2Im from operator set 18 on; export with opset=18")
    params = node.params
    return w.add(
        "Col2Im", [node.inputs[0], w.host(params["size"]), w.host(params["kernel_size"])],
        strides=params["stride"], pads=params["padding"], dilations=params["dilation"],
    )  # fmt: skip


register(
    Op(
        name="fold",
        formula="y[n,c, p·stride + r·dilation - pad, …] = Σ over windows p and places r in them of "
        "x[n, (c,r…), (p…)];  x [N, C·R·S…, P·Q…], y [N,C,H,W,…], (H, W, …) = size, over any number of axes; "
        "stride, padding and dilation None are 1, 0 and 1",
        gradient="gx: gy cut into windows",
        source="ONNX Col2Im-18; torch.nn.functional.fold",
        shape=fold_shape,
        forward=fold_forward,
        backward=fold_backward,
        samples=fold_samples,
        errors=fold_errors,
        reads={"Col2Im": read_col2im},
        writes=write_fold,
    )
)
