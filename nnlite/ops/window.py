"""Convolution and pooling over any number of axes: 3-D models, and pooling of integers.

Plain NumPy, one step per element of the kernel. Two axes have kernels of their own (``conv``, ``pool``),
one axis goes through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import conv_output_size, pool_output_size
from nnlite.layout import Array
from nnlite.memory import check_budget, max_tensor_bytes
from nnlite.node import Node
from nnlite.ops.record import ArrayType, Context, ErrorSample, Needs, OnnxWriter, Op, Sample, register

Ints = tuple[int, ...]
MAX_KERNEL = 1 << 17
"""Elements of a window; there is a step for each."""


class Window(NamedTuple):
    """How a kernel slides over the axes behind [N,C]."""

    kernel: Ints
    stride: Ints
    dilation: Ints
    before: Ints
    after: Ints
    """Padding."""
    out: Ints

    def padded(self, x: Array, value: Any) -> Array:
        """x with ``value`` around it, and behind as far as the last window reaches."""
        reach = [
            (o - 1) * s + d * (k - 1) + 1 - b - n
            for o, s, d, k, b, n in zip(
                self.out, self.stride, self.dilation, self.kernel, self.before, x.shape[2:], strict=True
            )
        ]
        ends = [max(a, r) for a, r in zip(self.after, reach, strict=True)]
        widths = [(0, 0), (0, 0), *zip(self.before, ends, strict=True)]
        return np.pad(x, widths, constant_values=value)

    def pieces(self) -> Iterator[tuple[Ints, tuple[slice, ...]]]:
        """For every element of the kernel: its index, and where it lies in the padded array."""
        for at in np.ndindex(*self.kernel):
            starts = [i * d for i, d in zip(at, self.dilation, strict=True)]
            yield (
                at,
                (
                    slice(None),
                    slice(None),
                    *(
                        slice(b, b + s * (o - 1) + 1, s)
                        for b, s, o in zip(starts, self.stride, self.out, strict=True)
                    ),
                ),
            )

    def inside(self, y: Array, size: Ints) -> Array:
        """The part of a padded array that is not padding."""
        axes = (slice(b, b + n) for b, n in zip(self.before, size, strict=True))
        where: tuple[Any, ...] = (..., *axes)
        part: Array = y[where]
        return part


def window_of(
    op: str, size: Ints, kernel: Ints, stride: Ints, padding: Any, dilation: Ints, ceil_mode: bool = False
) -> Window:
    """The window of an operation on ``size``; ShapeError names what does not fit."""
    axes = len(size)
    for name, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
        if len(values) != axes or min(values, default=1) < 1:
            raise ShapeError(f"{op}: {name}={values} must be {axes} integers of at least 1")
    if isinstance(padding, str):
        if padding not in ("valid", "same_upper", "same_lower"):
            raise ShapeError(f"{op}: padding={padding!r} must be 'valid', 'same_upper' or 'same_lower'")
        total = [
            0 if padding == "valid" else max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, after = (large, small) if padding == "same_lower" else (small, large)
    else:
        if len(padding) != 2 * axes or min(padding, default=0) < 0:
            raise ShapeError(f"{op}: padding={padding} must be {2 * axes} integers of at least 0")
        before, after = tuple(padding[:axes]), tuple(padding[axes:])
    out = tuple(
        pool_output_size(n, k, s, d, b, a, ceil_mode) if ceil_mode else conv_output_size(n, k, s, d, a + b)
        for n, k, s, d, b, a in zip(size, kernel, stride, dilation, before, after, strict=True)
    )
    if prod(kernel) > MAX_KERNEL:
        raise ShapeError(f"{op}: kernel {kernel} has more than {MAX_KERNEL} elements")
    padded = [n + b + a for n, b, a in zip(size, before, after, strict=True)]
    check_budget(f"{op}: padding", [(padded, np.dtype(np.float32))], max_tensor_bytes())
    if min(out, default=1) < 1:
        raise ShapeError(f"{op}: kernel {kernel} with dilation {dilation} does not fit {size} with {padding}")
    return Window(tuple(kernel), tuple(stride), tuple(dilation), before, after, out)


# --------------------------------------------------------------------------------------- conv_nd


def _conv_window(x: Ints, w: Ints, stride: Ints, padding: Any, dilation: Ints, groups: int) -> Window:
    if len(x) < 3 or len(w) != len(x):
        raise ShapeError(f"conv_nd: x {list(x)} and w {list(w)} must be [N,C,…] and [K,C/groups,…]")
    if groups < 1 or w[1] * groups != x[1] or w[0] % groups or 0 in w[:2]:
        raise ShapeError(
            f"conv_nd: x has {x[1]} channels, w {list(w)} with groups={groups} does not fit them"
        )
    return window_of("conv_nd", x[2:], w[2:], stride, padding, dilation)


def conv_nd_shape(x: ArrayType, w: ArrayType, bias: ArrayType | None, **params: Any) -> ArrayType:
    window = _conv_window(x.shape, w.shape, **params)
    if bias is not None and bias.shape != (w.shape[0],):
        raise ShapeError(f"conv_nd: bias has shape {list(bias.shape)} but must be [{w.shape[0]}]")
    types = {t.dtype for t in (x, w, bias) if t is not None}
    if len(types) != 1 or x.dtype.kind != "f":
        raise DTypeError(
            f"conv_nd: operands are {', '.join(sorted(map(str, types)))}; one floating type is wanted"
        )
    return ArrayType((x.shape[0], w.shape[0], *window.out), x.dtype)


def kernel_at(at: Ints) -> tuple[Any, ...]:
    """Index into a weight: one element of the kernel for all channels."""
    return (slice(None), slice(None), *at)


def _grouped(a: Array, groups: int) -> Array:
    """[N, groups, channels, places]."""
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, -1)


def _kernel(w: Array, at: Ints, groups: int) -> Array:
    """[groups, K/groups, C/groups]: one element of the kernel for all channels."""
    part: Array = w[kernel_at(at)].reshape(groups, -1, w.shape[1])
    return part


def conv_nd_forward(ctx: Context, x: Array, w: Array, bias: Array | None, **params: Any) -> Array:
    window, groups = _conv_window(x.shape, w.shape, **params), params["groups"]
    padded = window.padded(x, 0)
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, int(np.prod(window.out))), x.dtype, like=x)
    for at, where in window.pieces():
        y += _kernel(w, at, groups) @ _grouped(padded[where], groups)
    y = y.reshape(x.shape[0], w.shape[0], *window.out)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(window.out))
    ctx.save(x, w)
    return y


def conv_nd_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w = ctx.saved
    assert x is not None and w is not None
    window, groups = _conv_window(x.shape, w.shape, **ctx.params), ctx.params["groups"]
    padded, gradient = window.padded(x, 0), _grouped(gy, groups)
    gpadded, gw = np.zeros(padded.shape, gy.dtype, like=gy), np.zeros(w.shape, gy.dtype, like=gy)
    for at, where in window.pieces():
        piece = padded[where]
        if needs[0]:
            gpadded[where] += (_kernel(w, at, groups).swapaxes(1, 2) @ gradient).reshape(piece.shape)
        if needs[1]:
            product = (gradient @ _grouped(piece, groups).swapaxes(2, 3)).sum(0)
            gw[kernel_at(at)] = product.reshape(w.shape[:2])
    gx = window.inside(gpadded, x.shape[2:]) if needs[0] else None
    gbias = gy.sum((0, *range(2, gy.ndim))) if needs[2] else None
    return gx, gw if needs[1] else None, gbias


_PLAIN: dict[str, Any] = dict(stride=(1, 1, 1), padding=(0,) * 6, dilation=(1, 1, 1), groups=1)


def conv_nd_samples() -> Iterator[Sample]:
    yield Sample((2, 2, 3, 4, 3), (3, 2, 2, 3, 1), (3,), **_PLAIN)
    uneven = dict(stride=(2, 1, 2), padding=(1, 0, 1, 0, 1, 2), groups=2, dilation=(1, 2, 1))
    yield Sample((1, 4, 4, 5, 4), (2, 2, 2, 2, 3), None, **_PLAIN | uneven)
    yield Sample(
        (1, 1, 4, 5, 4), (2, 1, 3, 2, 3), (2,), **_PLAIN | dict(padding="same_lower", stride=(2, 2, 2))
    )


def conv_nd_errors() -> Iterator[ErrorSample]:
    x, w = (1, 2, 3, 3, 3), (4, 2, 2, 2, 2)
    yield ErrorSample(ShapeError, "does not fit them", x, (4, 3, 2, 2, 2), None, **_PLAIN)
    yield ErrorSample(ShapeError, "must be .N,C", x, (4, 2, 2, 2), None, **_PLAIN)
    yield ErrorSample(ShapeError, "bias has shape", x, w, (3,), **_PLAIN)
    yield ErrorSample(ShapeError, "does not fit .3, 3, 3", x, (4, 2, 4, 1, 1), None, **_PLAIN)
    yield ErrorSample(ShapeError, "groups=0", x, w, None, **_PLAIN | dict(groups=0))
    yield ErrorSample(ShapeError, "stride", x, w, None, **_PLAIN | dict(stride=(0, 1, 1)))
    yield ErrorSample(ShapeError, "6 integers", x, w, None, **_PLAIN | dict(padding=(1, 1)))
    yield ErrorSample(ShapeError, "must be 'valid'", x, w, None, **_PLAIN | dict(padding="full"))
    ints = np.ones((1, 1, 2, 2, 2), int)
    yield ErrorSample(DTypeError, "floating type", ints, ints, None, **_PLAIN)


def attributes_of(params: Any) -> dict[str, Any]:
    """strides, dilations and pads as ONNX says them."""
    padding = params["padding"]
    pads = dict(auto_pad=padding.upper()) if isinstance(padding, str) else dict(pads=padding)
    return dict(strides=params["stride"], dilations=params["dilation"], **pads)


register(
    Op(
        name="conv_nd",
        formula="conv2d's sum over any number of axes: y[n,k,p…] = bias[k] + Σ_{c,r…} w[k,c,r…] · "
        "x[n, c, p·stride + r·dilation - pad, …];  x [N,C,…], w [K,C/groups,…], y [N,K,…]",
        gradient="as conv2d's, over all axes",
        source="ONNX Conv-22; torch.nn.functional.conv3d",
        shape=conv_nd_shape,
        forward=conv_nd_forward,
        backward=conv_nd_backward,
        macs=lambda x, w, bias, **params: (
            int(np.prod(conv_nd_shape(x, w, bias, **params).shape)) * int(np.prod(w.shape[1:]))
        ),
        samples=conv_nd_samples,
        errors=conv_nd_errors,
        writes=lambda w, node: w.add(
            "Conv", node.inputs, group=node.params["groups"], **attributes_of(node.params)
        ),
    )
)

# ------------------------------------------------------------------------------- pooling over axes


def _pool_shape(op: str, kinds: str) -> Any:
    def rule(
        x: ArrayType, kernel_size: Ints, stride: Ints, padding: Any, dilation: Ints, ceil_mode: bool,
        count_include_pad: bool = False,
    ) -> ArrayType:  # fmt: skip
        if len(x.shape) < 3 or 0 in x.shape[2:]:
            raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,…], with elements")
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{op}: x is {x.dtype}, which is not taken; convert with astype")
        window = window_of(op, x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
        reach = [d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True)]
        if any(max(b, a) >= r for b, a, r in zip(window.before, window.after, reach, strict=True)):
            raise ShapeError(f"{op}: padding {padding} must be smaller than the window {reach}")
        return ArrayType((*x.shape[:2], *window.out), x.dtype)

    return rule


def _pool_window(op: str, x: Array, params: Any) -> Window:
    return window_of(
        op, x.shape[2:], params["kernel_size"], params["stride"], params["padding"], params["dilation"],
        params["ceil_mode"],
    )  # fmt: skip


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def max_pool_nd_forward(ctx: Context, x: Array, **params: Any) -> Array:
    window = _pool_window("max_pool_nd", x, params)
    padded = window.padded(x, _lowest(x.dtype))
    y = np.full_like(x, _lowest(x.dtype), x.dtype, "C", shape=(*x.shape[:2], *window.out))
    for _, where in window.pieces():
        np.maximum(y, padded[where], out=y)
    ctx.save(x, y)
    return y


def max_pool_nd_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, y = ctx.saved
    assert x is not None and y is not None
    window = _pool_window("max_pool_nd", x, ctx.params)
    padded = window.padded(x, _lowest(x.dtype))
    gpadded, open_ = np.zeros(padded.shape, gy.dtype, like=gy), np.ones_like(y, bool)
    for _, where in window.pieces():
        first = open_ & (padded[where] == y)
        gpadded[where] += gy * first
        open_ &= ~first
    return (window.inside(gpadded, x.shape[2:]),)


def _counts(window: Window, x: Array, include: bool) -> Array:
    """How many elements of each window count: those of x, or with padding."""
    ones = np.ones_like(x, x.dtype, "C", shape=(1, 1, *x.shape[2:]))
    if include:  # what ceil_mode adds behind the padding does not count even so
        widths = [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)]
        ones = np.pad(ones, widths, constant_values=1)
        bare = window._replace(before=(0,) * len(window.before), after=(0,) * len(window.after))
    else:
        bare = window
    padded = bare.padded(ones, 0)
    total = np.zeros((1, 1, *window.out), x.dtype, like=x)
    for _, where in bare.pieces():
        total += padded[where]
    return total


def avg_pool_nd_forward(ctx: Context, x: Array, count_include_pad: bool, **params: Any) -> Array:
    window = _pool_window("avg_pool_nd", x, params)
    padded = window.padded(x, 0)
    y = np.zeros((*x.shape[:2], *window.out), x.dtype, like=x)
    for _, where in window.pieces():
        y += padded[where]
    counts = _counts(window, x, count_include_pad)
    ctx.values.update(size=x.shape, window=window, padded=padded.shape)
    ctx.save(counts)
    return y / counts


def avg_pool_nd_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    window, share = ctx.values["window"], gy / ctx.saved[0]
    gpadded = np.zeros(ctx.values["padded"], gy.dtype, like=gy)
    for _, where in window.pieces():
        gpadded[where] += share
    return (window.inside(gpadded, ctx.values["size"][2:]),)


_POOL: dict[str, Any] = dict(
    kernel_size=(2, 2, 2), stride=(2, 1, 2), padding=(0,) * 6, dilation=(1, 1, 1), ceil_mode=False
)


def _pool_samples(**extra: Any) -> Iterator[Sample]:
    yield Sample((2, 2, 4, 3, 5), **_POOL, **extra)
    yield Sample((1, 2, 4, 5, 3), **_POOL | dict(padding=(1, 0, 1, 0, 1, 0), ceil_mode=True) | extra)
    yield Sample((1, 1, 5, 5, 4), **_POOL | dict(kernel_size=(3, 2, 2), padding="same_upper") | extra)


def _pool_errors(**extra: Any) -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "must be .N,C", (2, 3), **_POOL, **extra)
    yield ErrorSample(ShapeError, "3 integers", (1, 1, 4, 4, 4), **_POOL | dict(stride=(2, 2)) | extra)
    yield ErrorSample(ShapeError, "smaller than", (1, 1, 4, 4, 4), **_POOL | dict(padding=(2,) * 6) | extra)
    yield ErrorSample(DTypeError, "not taken", np.zeros((1, 1, 2, 2, 2), bool), **_POOL, **extra)


def _write_pool(op_type: str) -> Any:
    def write(w: OnnxWriter, node: Node) -> str:
        params = node.params
        more: dict[str, Any] = {}
        if "count_include_pad" in params:
            more["count_include_pad"] = int(params["count_include_pad"])
        window = attributes_of(params)
        late = op_type == "AveragePool" and w.version < 19
        if late and max(window.pop("dilations")) > 1:
            raise ShapeError("avg_pool_nd: ONNX knows dilation from operator set 19 on; use opset=19")
        return w.add(
            op_type, node.inputs, kernel_shape=params["kernel_size"], ceil_mode=int(params["ceil_mode"]),
            **window, **more,
        )  # fmt: skip

    return write


register(
    Op(
        name="max_pool_nd",
        formula="max_pool2d over any number of axes, and of integers too;  x [N,C,…], y [N,C,…]",
        gradient="gx = Σ gy over the windows whose (first) maximum is there",
        source="ONNX MaxPool-22; torch.nn.functional.max_pool3d",
        shape=_pool_shape("max_pool_nd", "fiu"),
        forward=max_pool_nd_forward,
        backward=max_pool_nd_backward,
        samples=_pool_samples,
        errors=_pool_errors,
        writes=_write_pool("MaxPool"),
    )
)
register(
    Op(
        name="avg_pool_nd",
        formula="avg_pool2d over any number of axes;  x [N,C,…], y [N,C,…]",
        gradient="gx = Σ gy / count over the windows that hold each element",
        source="ONNX AveragePool-22; torch.nn.functional.avg_pool3d",
        shape=_pool_shape("avg_pool_nd", "f"),
        forward=avg_pool_nd_forward,
        backward=avg_pool_nd_backward,
        samples=lambda: [*_pool_samples(count_include_pad=True), *_pool_samples(count_include_pad=False)],
        errors=lambda: _pool_errors(count_include_pad=True),
        writes=_write_pool("AveragePool"),
    )
)
