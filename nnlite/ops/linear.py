"""Matrix products: linear layers and general matmul."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import Conv2dGeometry, NormGeometry, conv2d_geometry
from nnlite.kernels import launch
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.elementwise import broadcast_shape, unbroadcast
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


def _same_type(op: str, *types: ArrayType | None, kinds: str = "f") -> np.dtype[Any]:
    dtypes = {t.dtype for t in types if t is not None}
    if len(dtypes) != 1 or next(iter(dtypes)).kind not in kinds:
        listed = ", ".join(sorted(map(str, dtypes)))
        wanted = "floating-point" if kinds == "f" else "number"
        raise DTypeError(f"{op}: operands are {listed}; all must have one {wanted} type")
    return next(iter(dtypes))


# ---------------------------------------------------------------------------------------- linear


def _as_convolution(x: Array, w: Array) -> Conv2dGeometry:
    """A linear layer is a 1x1 convolution of M pictures of one pixel."""
    rows = int(np.prod(x.shape[:-1]))
    return conv2d_geometry((rows, x.shape[-1], 1, 1), (*w.shape, 1, 1))


def linear_shape(x: ArrayType, w: ArrayType, bias: ArrayType | None) -> ArrayType:
    if len(x.shape) < 1 or len(w.shape) != 2 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"linear: x {list(x.shape)} must end in the in_features of w [out_features, in_features], "
            f"which is {list(w.shape)}"
        )
    if 0 in w.shape:
        raise ShapeError(f"linear: w {list(w.shape)} has no features")
    if bias is not None and bias.shape != (w.shape[0],):
        raise ShapeError(f"linear: bias has shape {list(bias.shape)} but must be [{w.shape[0]}]")
    return ArrayType((*x.shape[:-1], w.shape[0]), _same_type("linear", x, w, bias))


def linear_forward(ctx: Context, x: Array, w: Array, bias: Array | None) -> Array:
    geometry = _as_convolution(x, w)
    y = memory.empty(geometry.y_shape, x.dtype, like=x)
    pictures, kernel = x.reshape(geometry.x_shape), w.reshape(geometry.w_shape)
    launch("conv2d_forward", geometry, pictures, kernel, bias, None, y)
    ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None)
    ctx.values.update(geometry=geometry, x_shape=x.shape)
    return y.reshape(*x.shape[:-1], w.shape[0])


def linear_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, w = ctx.saved
    geometry: Conv2dGeometry = ctx.values["geometry"]
    gradient = gy.reshape(geometry.y_shape)
    gx = gw = gbias = None
    if needs[0]:
        assert w is not None
        gx = memory.empty(geometry.x_shape, gy.dtype, like=gy)
        launch("conv2d_grad_input", geometry, gradient, w.reshape(geometry.w_shape), gx)
        gx = gx.reshape(ctx.values["x_shape"])
    if needs[1]:
        assert x is not None
        gw = memory.empty(geometry.w_shape, gy.dtype, like=gy)
        launch("conv2d_grad_weight", geometry, x.reshape(geometry.x_shape), gradient, gw)
        gw = gw.reshape(geometry.w_shape[:2])
    if needs[2]:
        gbias = memory.empty((geometry.K,), gy.dtype, like=gy)
        by_row = gradient.reshape(geometry.N, geometry.K)
        launch("channel_sum", NormGeometry(geometry.N, geometry.K, 0.0), by_row, gbias)
    return gx, gw, gbias


def linear_macs(x: ArrayType, w: ArrayType, bias: ArrayType | None) -> int:
    return int(np.prod(x.shape)) * w.shape[0]


def linear_samples() -> Iterator[Sample]:
    yield Sample((4, 3), (5, 3), (5,))
    yield Sample((4, 3), (5, 3), None)
    yield Sample((2, 3, 4), (5, 4), (5,))


def linear_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "must end in the in_features", (4, 3), (5, 4), None)
    yield ErrorSample(ShapeError, "bias has shape", (4, 3), (5, 3), (3,))
    yield ErrorSample(ShapeError, "has no features", (4, 0), (5, 0), None)
    yield ErrorSample(DTypeError, "floating-point", np.ones((1, 2), int), np.ones((1, 2), int), None)


def read_gemm(n: OnnxNode) -> Any:
    a, b = n.inputs[:2]
    c = n.inputs[2] if len(n.inputs) > 2 else None
    alpha, beta = n.attribute("alpha", 1.0), n.attribute("beta", 1.0)
    if n.attribute("transA", 0):
        a = n.emit("transpose", a, axes=(1, 0))
    if not n.attribute("transB", 0):
        b = n.emit("transpose", b, axes=(1, 0))
    c_type = n.known(c)
    if alpha == 1 and (c is None or (beta == 1 and c_type is not None and len(c_type.shape) == 1)):
        # A bias of size 1 is broadcast by Gemm, but linear wants one per output.
        b_type = n.known(b)
        if c is None or (b_type is not None and c_type is not None and c_type.shape == b_type.shape[:1]):
            return n.emit("linear", a, b, c)
    y = n.emit("linear", a, b, None)
    if alpha != 1:
        y = n.emit("mul", y, n.leaf(np.asarray(alpha, np.float32)))
    if c is None:
        return y
    if beta != 1:
        c = n.emit("mul", c, n.leaf(np.asarray(beta, np.float32)))
    return n.emit("add", y, c)


def write_linear(w: OnnxWriter, node: Node) -> str:
    x, weight, bias = node.inputs
    known = x.type if x is not None else None
    if known is not None and len(known.shape) == 2:
        return w.add("Gemm", [x, weight, *([] if bias is None else [bias])], transB=1)
    product = w.add("MatMul", [x, w.add("Transpose", [weight], perm=(1, 0))])
    return product if bias is None else w.add("Add", [product, bias])


register(
    Op(
        name="linear",
        formula="y = x wᵀ + bias;  x [...,in_features], w [out_features,in_features], y [...,out_features]",
        gradient="gx = gy w; gw = gyᵀ x; gbias = Σ gy over all but the last axis",
        source="torch.nn.functional.linear; ONNX Gemm-13",
        shape=linear_shape,
        forward=linear_forward,
        backward=linear_backward,
        macs=linear_macs,
        samples=linear_samples,
        errors=linear_errors,
        reads={"Gemm": read_gemm},
        writes=write_linear,
        layout="C",
        kernels=("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight", "channel_sum"),
    )
)

# ---------------------------------------------------------------------------------------- matmul


def matmul_shape(a: ArrayType, b: ArrayType) -> ArrayType:
    if len(a.shape) < 1 or len(b.shape) < 1:
        raise ShapeError(f"matmul: {list(a.shape)} @ {list(b.shape)}: a scalar is no matrix; use *")
    inner = b.shape[-2] if len(b.shape) > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ShapeError(
            f"matmul: {list(a.shape)} @ {list(b.shape)}: the inner sizes {a.shape[-1]} and {inner} differ"
        )
    lead = broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2:-1], b.shape[-1:] if len(b.shape) > 1 else ()
    return ArrayType((*lead, *rows, *columns), _same_type("matmul", a, b, kinds="fiu"))


def matmul_forward(ctx: Context, a: Array, b: Array) -> Array:
    ctx.save(a, b)
    return as_array(a @ b)


def matmul_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    a, b = ctx.saved
    assert a is not None and b is not None
    # A vector is a matrix of one row (left) or one column (right).
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    gradient = gy[..., None] if b.ndim == 1 else gy
    gradient = gradient[..., None, :] if a.ndim == 1 else gradient
    ga = gb = None
    if needs[0]:
        product = gradient @ np.swapaxes(right, -1, -2)
        ga = unbroadcast(product, left.shape).reshape(a.shape)
    if needs[1]:
        product = np.swapaxes(left, -1, -2) @ gradient
        gb = unbroadcast(product, right.shape).reshape(b.shape)
    return ga, gb


def matmul_macs(a: ArrayType, b: ArrayType) -> int:
    return int(np.prod(matmul_shape(a, b).shape)) * a.shape[-1]


def matmul_samples() -> Iterator[Sample]:
    matrices = [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (3, 4, 2))]
    vectors = [((4,), (4, 3)), ((2, 3, 4), (4,)), ((4,), (4,))]
    for a, b in [*matrices, *vectors]:
        yield Sample(a, b)
    yield Sample(np.array([[1, 2], [3, -4]]), np.array([[5, 6], [7, 8]]), gradcheck=False)


def matmul_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(ShapeError, "inner sizes 4 and 3 differ", (2, 4), (3, 5))
    yield ErrorSample(ShapeError, "no matrix", (), (3, 5))
    yield ErrorSample(ShapeError, "do not broadcast", (2, 3, 4), (3, 4, 5))
    yield ErrorSample(DTypeError, "one number type", np.ones((2, 2), bool), np.ones((2, 2), bool))
    yield ErrorSample(DTypeError, "one number type", (2, 2), np.ones((2, 2), int))


register(
    Op(
        name="matmul",
        formula="y[..., i, j] = Σ_l a[..., i, l] · b[..., l, j]; leading axes broadcast; a vector is a "
        "row at the left and a column at the right",
        gradient="ga = gy bᵀ, gb = aᵀ gy, summed over broadcast axes",
        source="ONNX MatMul-13; numpy.matmul",
        shape=matmul_shape,
        forward=matmul_forward,
        backward=matmul_backward,
        macs=matmul_macs,
        samples=matmul_samples,
        errors=matmul_errors,
        reads={"MatMul": lambda n: n.emit("matmul", *n.inputs)},
        writes=lambda w, node: w.add("MatMul", node.inputs),
    )
)
